"""Payload: what the client got, readable; cut anywhere, hostile anywhere."""
from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from enforcer.recording.payload import parse_payload


def row(*values: bytes | None) -> bytes:
    body = len(values).to_bytes(2, "big") + b"".join(
        b"\xff\xff\xff\xff" if value is None else len(value).to_bytes(4, "big") + value for value in values)
    return b"D" + (len(body) + 4).to_bytes(4, "big") + body


COPIED = b"d" + (4 + 6).to_bytes(4, "big") + b"1\tone\n"


def test_rows_and_copied_lines() -> None:
    content = row(b"1", None, "ä".encode()) + row(b"\x00\x00\x00\x07") + COPIED
    assert list(parse_payload(content)) == [["1", None, "ä"], ["\\x00000007"], ["1\tone"]]


def test_what_is_cut_is_left_out() -> None:
    content = row(b"1") + row(b"22")
    for end in range(len(content)):
        assert list(parse_payload(content[:end])) == [["1"]][:end >= len(row(b"1"))]


@given(st.binary(max_size=200))
def test_garbage_ends_it(content: bytes) -> None:
    for found in parse_payload(content):
        assert all(value is None or isinstance(value, str) for value in found)
