"""SPDY's frames and header blocks."""
from __future__ import annotations

import os
import struct
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.protocols.kubernetes.streams.spdy import frames
from enforcer.protocols.kubernetes.streams.spdy.blocks import BLOCK, DICTIONARY, Blocks, parse_block, render_block
from enforcer.protocols.kubernetes.streams.spdy.frames import (
    Data,
    Frame,
    Framer,
    GoAway,
    Nothing,
    Ping,
    Reset,
    SynReply,
    SynStream,
    render_data,
    render_goaway,
    render_ping,
    render_reset,
)
from enforcer.words.errors import ProtocolError, RemoteProtocolError

HEADERS = ((b"streamtype", b"error"), (b"port", b"8080"), (b"requestid", b"0"))


def control(kind: int, payload: bytes, flags: int = 0, version: int = 3, size: int = -1) -> bytes:
    return struct.pack("!HHI", 0x8000 | version, kind, flags << 24 | (len(payload) if size < 0 else size)) + payload


def read(data: bytes, cut: int = 0) -> list[Frame]:
    framer, found = Framer(), []
    for at in range(0, len(data), cut or max(len(data), 1)):
        found += list(framer.receive(data[at:at + (cut or len(data))]))
    return found


def joined(found: list[Frame]) -> list[Frame]:
    """Pieces of data that follow each other on a stream, in one."""
    out: list[Frame] = []
    for one in found:
        last = out[-1] if out else None
        if isinstance(one, Data) and isinstance(last, Data) and last.stream == one.stream and not last.last:
            out[-1] = Data(one.stream, last.data + one.data, one.last)
        else:
            out.append(one)
    return out


def conversation() -> bytes:
    other = Framer()
    return b"".join((
        other.syn_stream(1, HEADERS), other.syn_reply(1), other.syn_stream(3, ((b"streamtype", b"data"),), True),
        render_data(1, b"hello"), render_ping(7), render_data(3, b"x" * 1000, True), render_reset(3, frames.CANCEL),
        control(frames.SETTINGS, struct.pack("!III", 1, 4, 100)),
            control(frames.WINDOW_UPDATE, struct.pack("!II", 1, 9)),
        render_data(1, b"", True), render_goaway(3)))


SAID: list[Frame] = [
    SynStream(1, HEADERS, False), SynReply(1, False), SynStream(3, ((b"streamtype", b"data"),), True),
    Data(1, b"hello", False), Ping(7), Data(3, b"x" * 1000, True), Reset(3, 5), Nothing(0), Nothing(1),
    Data(1, b"", True), GoAway(3)]


@pytest.mark.parametrize("cut", [0, 1, 2, 5, 13])
def test_however_it_is_cut(cut: int) -> None:
    assert joined(read(conversation(), cut)) == SAID


def test_cut_at_every_offset() -> None:
    talk = conversation()
    for at in range(len(talk)):
        framer = Framer()
        found = list(framer.receive(talk[:at])) + list(framer.receive(talk[at:]))
        assert joined(found) == SAID


def test_the_dictionary_is_the_drafts() -> None:
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)       # as spdylay and Go have it


def test_what_go_has_written_is_read() -> None:
    """Two blocks of one connection, of github.com/moby/spdystream v0.5.0."""
    reader = Blocks()
    for block, kind in ((
        "78f9e3c6a7c202e50e703a2b294a4dcc851625aca9a0808614cb45e01c6061606100000000ffff", b"error"), (
        "c2aa1454ea24a2ab04000000ffff", b"data"),
    ):
        assert dict(reader.read(bytes.fromhex(block))) == {b"streamtype": kind, b"port": b"8080"}


def test_data_comes_in_pieces_and_goes_in_pieces() -> None:
    found = read(struct.pack("!II", 5, 1 << 24 | 9) + b"abc")
    assert found == [Data(5, b"abc", False)]
    out = render_data(5, b"y" * (frames.PIECE + 1), True)
    assert [(len(one.data), one.last) for one in read(out) if isinstance(one, Data)] == [(frames.PIECE, False),
        (1, True)]


@pytest.mark.parametrize(("wrong", "why"), [
    (control(frames.PING, struct.pack("!I", 1), version=2), "version"), (control(5, b""), "type 5"),
    (control(77, b""), "type 77"), (control(frames.SYN_STREAM, b"", size=1 << 23), "more than"),
    (control(frames.PING, b"\0\0\0\1\0"), "ping"), (control(frames.PING, bytes(4)), "ping"),
    (control(frames.PING, struct.pack("!I", 1), flags=1), "ping"),
    (control(frames.RST_STREAM, struct.pack("!II", 1, 0)), "reason"),
    (control(frames.RST_STREAM, struct.pack("!II", 0, 1)), "no stream"),
    (control(frames.RST_STREAM, bytes(12)), "length"),
    (control(frames.RST_STREAM, struct.pack("!II", 1 << 31 | 1, 1)), "no stream"),
    (control(frames.GOAWAY, bytes(4)), "length"),
    (control(frames.WINDOW_UPDATE, bytes(8), flags=1), "length"),
    (control(frames.SETTINGS, struct.pack("!I", 3)), "settings"),
    (control(frames.SYN_STREAM, bytes(9)), "too short"),
    (control(frames.SYN_STREAM, bytes(10) + b"garbage"), "inflated"),
    (control(frames.SYN_REPLY, bytes(2)), "too short"), (struct.pack("!II", 0, 0), "no stream"),
    (struct.pack("!II", 1, 2 << 24), "flags"),
    (control(frames.SYN_STREAM, struct.pack("!IIBB", 1, 0, 0, 0) + Blocks().write(HEADERS), flags=2), "one direction"),
    (control(frames.SYN_STREAM, struct.pack("!IIBB", 1, 3, 0, 0) + Blocks().write(HEADERS)), "beside"),
    (control(frames.SYN_STREAM, struct.pack("!IIBB", 0, 0, 0, 0) + Blocks().write(HEADERS)), "no stream"),
])
def test_what_is_refused(wrong: bytes, why: str) -> None:
    for cut in (0, 1):
        with pytest.raises(RemoteProtocolError, match=why):
            read(wrong, cut)


def plain(*pairs: tuple[bytes, bytes], count: int = -1, more: bytes = b"") -> bytes:
    return struct.pack("!I", len(pairs) if count < 0 else count) + render_block(pairs)[4:] + more


@pytest.mark.parametrize(("block", "why"), [
    (b"", "breaks off"), (plain(count=1), "breaks off"), (plain((b"a", b"b"))[:-1], "breaks off"),
    (plain(more=b"x"), "behind"),
    (plain((b"A", b"b")), "upper"), (plain((b"", b"b")), "without a name"),
    (plain((b"a", b"b"), (b"a", b"c")), "twice"),
    (plain(count=0xFFFFFFFF), "more than"), (struct.pack("!II", 1, 0xFFFFFFFF), "breaks off"),
])
def test_blocks_that_are_none(block: bytes, why: str) -> None:
    with pytest.raises(RemoteProtocolError, match=why):
        parse_block(block)


def test_a_block_that_inflates_to_much_takes_no_memory() -> None:
    writer = zlib.compressobj(zdict=DICTIONARY)
    bomb = writer.compress(bytes(60 << 20)) + writer.flush(zlib.Z_SYNC_FLUSH)
    assert len(bomb) < frames.CONTROL
    tracemalloc.start()
    with pytest.raises(RemoteProtocolError, match="more than"):
        read(control(frames.SYN_STREAM, struct.pack("!IIBB", 1, 0, 0, 0) + bomb))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * BLOCK


def test_the_stream_of_blocks_does_not_end() -> None:
    writer = zlib.compressobj(zdict=DICTIONARY)
    with pytest.raises(RemoteProtocolError, match="ends"):
        Blocks().read(writer.compress(render_block(HEADERS)) + writer.flush())


def test_blocks_follow_each_other() -> None:
    writer, reader = Blocks(), Blocks()
    written = [writer.write(HEADERS) for _ in range(3)]
    assert [reader.read(one) for one in written] == [HEADERS] * 3
    assert len(written[1]) < len(written[0])
    with pytest.raises(RemoteProtocolError):
        Blocks().read(written[1])


@given(st.binary(max_size=200), st.integers(1, 9))
def test_garbage(data: bytes, cut: int) -> None:
    try:
        read(data, cut)
    except ProtocolError:
        pass


@given(st.sampled_from([1, 2, 3, 4, 6, 7, 8, 9]), st.binary(max_size=60), st.integers(0, 3))
def test_garbage_in_a_control_frame(kind: int, payload: bytes, flags: int) -> None:
    try:
        read(control(kind, payload, flags))
    except ProtocolError:
        pass


@given(st.binary(max_size=100))
def test_garbage_in_a_block(data: bytes) -> None:
    try:
        parse_block(data)
    except ProtocolError:
        pass


def test_bits_turned() -> None:
    talk = conversation()
    for at in range(len(talk)):
        wrong = bytearray(talk)
        wrong[at] ^= 1 << at % 8
        try:
            read(bytes(wrong))
        except ProtocolError:
            pass


def test_garbage_behind_a_beginning() -> None:
    talk = conversation()
    for at in range(0, len(talk), 7):
        try:
            read(talk[:at] + os.urandom(60))
        except ProtocolError:
            pass


