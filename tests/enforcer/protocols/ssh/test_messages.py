"""The codec: whole, cut at every offset, with more than there should be, with lengths that cannot be."""
from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sshtalk import shape

from enforcer.protocols.ssh import messages
from enforcer.protocols.ssh.messages import Fields, Open, Request
from enforcer.words.errors import RemoteProtocolError

WHOLE = Request(b"exec", True, b"\0\0\0\2ls")
OPEN = Open(b"direct-tcpip", 7, 1 << 21, 1 << 15, b"rest")
NUMBERS = st.integers(0, (1 << 32) - 1)


@given(st.binary(max_size=messages.NAME), st.booleans(), st.binary(max_size=50), NUMBERS)
def test_requests_are_read_as_they_were_written(name: bytes, reply: bool, rest: bytes, number: int) -> None:
    asked = Request(name, reply, rest)
    assert messages.parse_global(messages.render_global(asked)) == asked
    written = messages.render_request(number, asked)
    assert messages.parse_request(written) == asked
    assert messages.parse_channel(written) == number


@given(st.binary(max_size=messages.NAME), NUMBERS, NUMBERS, NUMBERS, st.binary(max_size=50))
def test_opens_are_read_as_they_were_written(kind: bytes, sender: int, window: int, packet: int, rest: bytes) -> None:
    written = messages.render_open(kind, sender, window, packet, rest)
    assert messages.parse_open(written) == Open(kind, sender, window, packet, rest)


@given(NUMBERS, st.binary(max_size=100), NUMBERS)
def test_data_is_read_as_it_was_written(number: int, data: bytes, kind: int) -> None:
    fields = Fields(messages.render_data(number, data), 1)
    assert (fields.number(), fields.string()) == (number, data)
    fields.end()
    fields = Fields(messages.render_extended(number, kind, data), 1)
    assert (fields.number(), fields.number(), fields.string()) == (number, kind, data)
    fields.end()


def test_the_bytes_are_those_of_the_specification() -> None:
    """RFC 4254 5.1, 5.2, 5.3, 6.10, by hand."""
    assert messages.render_open(b"session", 1, 2, 3, b"") == b"\x5a\0\0\0\7session\0\0\0\1\0\0\0\2\0\0\0\3"
    assert messages.render_opened(1, 2, 3, 4) == b"\x5b\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0\4"
    assert messages.render_refused(1, 2, "no") == b"\x5c\0\0\0\1\0\0\0\2\0\0\0\2no\0\0\0\2en"
    assert messages.render_adjust(1, 5) == b"\x5d\0\0\0\1\0\0\0\5"
    assert messages.render_data(1, b"ab") == b"\x5e\0\0\0\1\0\0\0\2ab"
    assert messages.render_extended(1, 1, b"ab") == b"\x5f\0\0\0\1\0\0\0\1\0\0\0\2ab"
    assert messages.render_bare(messages.EOF, 1) == b"\x60\0\0\0\1"
    assert messages.render_request(1, Request(b"exit-status", False, b"\0\0\0\2")) == (
        b"\x62\0\0\0\1\0\0\0\x0bexit-status\0\0\0\0\2")
    assert messages.render_global(Request(b"k", True, b"")) == b"\x50\0\0\0\1k\1"


def _data(message: bytes) -> object:
    return messages.parse_channel(message), Fields(message, 5).string()


@pytest.mark.parametrize(("parse", "whole"), [
    (messages.parse_open, messages.render_open(b"session", 1, 2, 3, b"")),
    (messages.parse_global, messages.render_global(Request(b"keepalive", True, b""))),
    (messages.parse_request, messages.render_request(1, Request(b"shell", True, b""))),
    (_data, messages.render_data(1, b"abc")),
], ids=["open", "global", "request", "data"])
def test_cut_anywhere(parse: Callable[[bytes], object], whole: bytes) -> None:
    parse(whole)
    for at in range(1, len(whole)):
        with pytest.raises(RemoteProtocolError):
            parse(whole[:at])


@pytest.mark.parametrize("size", [4, 5, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1])
def test_a_length_beyond_the_message(size: int) -> None:
    with pytest.raises(RemoteProtocolError):
        Fields(struct.pack("!I", size) + b"abc").string()


def test_a_text_longer_than_its_field_may_be() -> None:
    with pytest.raises(RemoteProtocolError):
        Fields(messages.string(b"x" * 65)).string(64)
    with pytest.raises(RemoteProtocolError):
        messages.parse_request(messages.render_request(1, Request(b"x" * (messages.NAME + 1), True, b"")))


def test_more_than_its_fields() -> None:
    fields = Fields(b"\1\0")
    assert fields.flag()
    with pytest.raises(RemoteProtocolError):
        fields.end()
    assert fields.rest() == b"\0"
    fields.end()
    assert Fields(b"\xff").flag()      # RFC 4251 5: all that is not 0


def test_what_is_no_utf8_is_shown_all_the_same() -> None:
    assert messages.show(b"a\xff\xc3\xa9") == "a\\xffé"


@given(st.binary(min_size=1, max_size=60))
def test_any_bytes(message: bytes) -> None:
    for parse in (messages.parse_open, messages.parse_global, messages.parse_request, messages.parse_channel, _data):
        try:
            parse(message)
        except RemoteProtocolError:
            pass


def test_the_shapes_that_transcripts_use() -> None:
    assert shape(messages.render_request(1, WHOLE)) == "request 1 exec ?"
    assert shape(messages.render_open(OPEN.kind, 1, 2, 3, b"")) == "open direct-tcpip 1"
