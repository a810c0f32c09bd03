"""Channels in WebSocket's messages, as they are and in base64."""
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.http.websocket import WebSocket
from enforcer.protocols.kubernetes.streams.channels import PIECE, Channels
from enforcer.protocols.kubernetes.streams.offers import WEBSOCKET, Spoken
from enforcer.protocols.kubernetes.streams.words import Answered, Asked, Ended, Over, Said, Word
from enforcer.words.errors import ProtocolError, RemoteProtocolError

V4, V5, BASE64 = b"v4.channel.k8s.io", b"v5.channel.k8s.io", b"v4.base64.channel.k8s.io"


def make(protocol: bytes, client: bool = False) -> Channels:
    return Channels(Spoken(WEBSOCKET, protocol), client, 5)


def read(protocol: bytes, data: bytes, cut: int = 0) -> list[Word]:
    channels, found = make(protocol), []
    for at in range(0, len(data), cut or max(len(data), 1)):
        found += list(channels.receive(data[at:at + (cut or len(data))]))
    return found


def joined(found: list[Word]) -> list[Word]:
    out: list[Word] = []
    for one in found:
        last = out[-1] if out else None
        if isinstance(one, Said) and isinstance(last, Said) and last.stream == one.stream:
            out[-1] = Said(one.stream, last.data + one.data)
        else:
            out.append(one)
    return out


@pytest.mark.parametrize("cut", [0, 1, 3, 10])
@pytest.mark.parametrize("protocol", [V4, BASE64, b"", b"channel.k8s.io", b"base64.channel.k8s.io"])
def test_what_is_written_is_read_on_the_other_side(protocol: bytes, cut: int) -> None:
    crew = make(protocol, True)
    data = bytes(range(256)) * 3
    out = (crew.say(0, data) + crew.say(4, b"{}") + crew.ask(b"p") + crew.say(1,
        b"") + crew.answer(b"q") + crew.close(1000, ""))
    assert joined(read(protocol, out, cut)) == [
        Said(0, data), Said(4, b"{}"), Asked(b"p"), Said(1, b""), Answered(b"q"), Over(1000, "")]


def test_an_end_of_one_stream() -> None:
    crew = make(V5, True)
    assert read(V5, crew.say(0, b"x") + crew.end(0)) == [Said(0, b"x"), Ended(0)]
    assert make(V5).end(1) == b""
    assert make(V4, True).end(0) == b""
    with pytest.raises(RemoteProtocolError, match="channel 255"):
        read(V4, crew.end(0))


@pytest.mark.parametrize("wrong", [b"\xff", b"\xff\x00\x00", b"\xff\x05", b"\xff\xff", b"\x05x", b"\x80"])
def test_messages_for_no_channel(wrong: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read(V5, WebSocket(True).message(wrong))


@pytest.mark.parametrize("wrong",
    ["5QQ==", "/QQ==", "0Q", "0QQ=", "0Q Q=", "0QQ==QQ==", "0====", "0=QQQ", "0QUJD\n", "0Ü"])
def test_what_is_no_base64(wrong: str) -> None:
    for cut in (0, 1):
        with pytest.raises(RemoteProtocolError):
            read(BASE64, WebSocket(True).message(wrong.encode(), True), cut)


def fragments(*parts: bytes) -> bytes:
    """One message."""
    out = b""
    for number, part in enumerate(parts):
        first, last = not number, number == len(parts) - 1
        out += bytes((last << 7 | (2 if first else 0), 128 | len(part), 0, 0, 0, 0)) + part
    return out


def test_a_fragment_is_no_message_of_its_own() -> None:
    """Servers take it for one: what comes behind its channel would be for the channel that its first byte names."""
    found = joined(read(V4, fragments(b"\x00ec", b"\x04ho", b"\x03!")))
    assert found == [Said(0, b"ec\x04ho\x03!")]
    written = b"".join(make(V4, True).say(one.stream, one.data) for one in found if isinstance(one, Said))
    assert joined(read(V4, written)) == found
    assert written[0] == 0x82                  # whole
    assert joined(read(V4, fragments(b"", b"", b"\x00", b"x"))) == [Said(0, b"x")]
    assert read(V4, fragments(b"", b"")) == []


def test_long_output_goes_in_messages_that_anybody_reads() -> None:
    socket = WebSocket(True)
    out = make(V4).say(1, bytes(PIECE * 2 + 1))
    sizes: list[int] = []
    for one in socket.receive(out):
        if getattr(one, "first", False):
            sizes.append(0)
        sizes[-1] += len(one.data)  # type: ignore[union-attr]
    assert sizes == [PIECE + 1, PIECE + 1, 2]


@given(st.sampled_from([V4, V5, BASE64]), st.lists(st.binary(max_size=40), max_size=5), st.integers(0, 5))
def test_garbage(protocol: bytes, said: list[bytes], cut: int) -> None:
    socket = WebSocket(True)
    try:
        read(protocol, b"".join(socket.message(one) for one in said), cut)
    except ProtocolError:
        pass
