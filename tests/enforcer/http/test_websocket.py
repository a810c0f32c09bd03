"""WebSocket by RFC 6455, both roles."""
from __future__ import annotations

import os
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.http.websocket import NO_CODE, Close, Event, Part, Ping, Pong, WebSocket
from enforcer.words.errors import ProtocolError, RemoteProtocolError


def frame(opcode: int, payload: bytes = b"", fin: bool = True, mask: bool = True, rsv: int = 0,
    length: int = 0) -> bytes:
    size = len(payload)
    head = bytes((fin << 7 | rsv << 4 | opcode,))
    if length == 2 or (not length and 125 < size < 65536):
        head += bytes((mask << 7 | 126,)) + struct.pack("!H", size)
    elif length == 8 or size > 65535:
        head += bytes((mask << 7 | 127,)) + struct.pack("!Q", size)
    else:
        head += bytes((mask << 7 | size,))
    if not mask:
        return head + payload
    key = b"\x01\x02\x03\x04"
    return head + key + bytes(one ^ key[at % 4] for at, one in enumerate(payload))


def read(data: bytes, cut: int = 0, client: bool = False) -> list[Event]:
    """As Weir towards a crew; parts of one message joined, but for where it begins and ends."""
    socket, found = WebSocket(client), []
    for at in range(0, len(data), cut or max(len(data), 1)):
        found += list(socket.receive(data[at:at + (cut or len(data))]))
    return found


def messages(found: list[Event]) -> list[object]:
    out: list[object] = []
    kept = b""
    for one in found:
        if isinstance(one, Part):
            kept += one.data
            if one.last:
                out.append(kept)
                kept = b""
        else:
            out.append(one)
    return out


TALK = b"".join((
    frame(2, b"\x00ls\n"), frame(9, b"there?"), frame(1, "grün".encode()), frame(2, b"a" * 300),
        frame(2, b"one ", False),
    frame(10, b"yes"), frame(0, b"two ", False), frame(0, b""), frame(2, b"x" * 70000),
        frame(8, struct.pack("!H", 1000) + b"bye")))
SAID = [b"\x00ls\n", Ping(b"there?"), "grün".encode(), b"a" * 300, Pong(b"yes"), b"one two ", b"x" * 70000,
        Close(1000, "bye")]


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 7, 4096])
def test_however_it_is_cut(cut: int) -> None:
    assert messages(read(TALK, cut)) == SAID


def test_cut_at_every_offset_of_the_beginning() -> None:
    for at in range(700):
        socket = WebSocket(False)
        found = list(socket.receive(TALK[:at])) + list(socket.receive(TALK[at:]))
        assert messages(found) == SAID


@pytest.mark.parametrize(("wrong", "why"), [
    (frame(2, b"x", mask=False), "mask"), (frame(3), "opcode"), (frame(11), "opcode"), (frame(2, b"x", rsv=4), "bit"),
    (frame(2, b"x", rsv=1), "bit"), (frame(9, b"x", fin=False), "fragment"), (frame(9, b"x" * 126), "125"),
    (frame(0, b"x"), "CONTINUATION"), (frame(2, b"x", False) + frame(2, b"y"), "CONTINUATION"),
    (frame(2, b"x", length=2), "2 bytes"), (frame(2, b"x" * 200, length=8), "8 bytes"),
    (bytes((0x82, 0xff)) + b"\xff" * 8, "MSB"), (frame(1, b"\xff\xfe"), "decode"), (frame(1, b"\xc3"), "decode"),
    (frame(8, b"\x03"), "CLOSE"), (frame(8, struct.pack("!H", 999)), "CLOSE"),
    (frame(8, struct.pack("!H", 1005)), "CLOSE"),
    (frame(8, struct.pack("!H", 1006)), "CLOSE"), (frame(8, struct.pack("!H", 2999)), "CLOSE"),
    (frame(8, struct.pack("!H", 1000) + b"\xff"), "CLOSE"),
])
def test_what_the_rfc_refuses(wrong: bytes, why: str) -> None:
    for cut in (0, 1):
        with pytest.raises(RemoteProtocolError, match=why):
            read(wrong, cut)


def test_a_server_masks_nothing() -> None:
    with pytest.raises(RemoteProtocolError, match="mask"):
        read(frame(2, b"x"), client=True)
    assert read(frame(2, b"x", mask=False), client=True) == [Part(b"x", False, True, True)]


def test_nothing_counts_behind_a_close() -> None:
    socket = WebSocket(False)
    assert list(socket.receive(frame(8) + frame(2, b"late"))) == [Close(NO_CODE)]
    assert list(socket.receive(frame(2, b"later"))) == []
    assert socket.close()
    assert not socket.message(b"x")
    assert not socket.ping()
    assert not socket.pong()
    assert not socket.close()


@pytest.mark.parametrize("client", [False, True])
def test_what_is_written_is_read(client: bool) -> None:
    writer, reader = WebSocket(client), WebSocket(not client)
    out = writer.message(b"\x01abc") + writer.message("grün".encode(), True) + writer.ping(b"p") + writer.pong(b"q") \
        + writer.message(b"") + writer.close(1008, "é" * 200)
    found = messages(list(reader.receive(out)))
    assert found[:5] == [b"\x01abc", "grün".encode(), Ping(b"p"), Pong(b"q"), b""]
    assert isinstance(found[5], Close)
    assert found[5].code == 1008
    assert set(found[5].reason) == {"é"}


def test_a_client_masks_each_frame_anew() -> None:
    socket = WebSocket(True)
    assert len({socket.message(b"same")[2:6] for _ in range(8)}) > 1


def test_a_message_without_end_takes_no_memory() -> None:
    socket = WebSocket(False)
    head = bytes((0x82, 0xff)) + struct.pack("!Q", 1 << 40) + b"\0\0\0\0"
    list(socket.receive(head))
    piece = bytes(1 << 16)
    tracemalloc.start()
    total = 0
    for _ in range(64):
        total += sum(len(one.data) for one in socket.receive(piece) if isinstance(one, Part))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 64 << 16
    assert peak < 1 << 20


@given(st.binary(max_size=200), st.integers(1, 9), st.booleans())
def test_garbage(data: bytes, cut: int, client: bool) -> None:
    try:
        read(data, cut, client)
    except ProtocolError:
        pass


def test_garbage_behind_a_beginning() -> None:
    for at in range(0, len(TALK), 997):
        try:
            read(TALK[:at] + os.urandom(50))
        except ProtocolError:
            pass
