from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sftptalk import S, named, u32, u64

from enforcer.protocols.ssh.sftp import messages as m
from enforcer.protocols.ssh.sftp.framing import LIMIT, Framing
from enforcer.words.errors import ProtocolError

PACKETS = [m.render(m.STAT, 7, S(b"/a")), m.render(m.INIT, 3), m.render(m.WRITE, 8, S(b"h"), u64(0), S(bytes(100)))]


def take(framing: Framing) -> list[bytes]:
    return [bytes(packet) for packet in iter(framing.next, None)]


@pytest.mark.parametrize("cut", range(1, 200))
def test_framing_however_it_is_cut(cut: int) -> None:
    framing, stream, got = Framing(), b"".join(PACKETS), []
    for at in range(0, len(stream), cut):
        framing.feed(stream[at:at + cut])
        got += take(framing)
    assert got == PACKETS
    assert framing.waiting == 0


def test_framing_that_is_read_late() -> None:
    framing = Framing()
    for byte in b"".join(PACKETS):
        framing.feed(bytes([byte]))
    assert framing.waiting == sum(map(len, PACKETS))
    assert take(framing) == PACKETS


@pytest.mark.parametrize("length", [0, 4, LIMIT + 1, 0xFFFFFFFF])
def test_lengths_are_refused_before_memory_is_taken(length: int) -> None:
    framing = Framing()
    framing.feed(u32(length))
    with pytest.raises(ProtocolError, match="length"):
        framing.next()


def test_the_longest() -> None:
    packet = m.render(m.WRITE, 1, bytes(LIMIT - 5))
    framing = Framing()
    framing.feed(packet[:-1])
    assert framing.next() is None
    framing.feed(packet[-1:])
    assert take(framing) == [packet]


def test_attributes() -> None:
    fields = m.Fields(memoryview(u32(0x8000000F) + u64(5) + u32(1, 2, 0o120777, 3, 4, 1) + S(b"a") + S(b"b")), 0)
    attributes = m.parse_attributes(fields)
    fields.end()
    assert (attributes.flags & m.SIZE, attributes.is_link) == (1, True)
    assert m.parse_attributes(m.Fields(memoryview(u32(0)), 0)).is_link is None


@given(st.binary(max_size=60))
def test_garbage_is_the_protocols_error(data: bytes) -> None:
    packet = memoryview(m.render(m.NAME, 1, data))
    for parse in (m.parse_names, m.parse_status, m.parse_version, lambda view: m.parse_attributes(m.Fields(view))):
        try:
            parse(packet)
        except ProtocolError:
            pass


def test_names_and_status() -> None:
    assert m.parse_names(memoryview(named(3, b"a", b"b"))) == [b"a", b"b"]
    status = m.render_status(9, 3, "not\nallowed \ud800")
    assert m.parse_status(memoryview(status)) == m.Status(3, b"not allowed ?")
    assert m.parse_status(memoryview(m.render(m.STATUS, 1, u32(2)))) == m.Status(2, b"")
    assert len(m.render_status(9, 3, "ä" * 5000)) < 1100
    assert bytes(m.renumber(memoryview(status), 5)) == m.render_status(5, 3, "not allowed ?")
