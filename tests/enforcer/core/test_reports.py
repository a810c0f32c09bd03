"""Reports as bytes: cut anywhere, bounded, made printable; what is none is said to be none."""
from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.core.reports import CALLS, LIMIT, TEXT, Frames, parse_report
from enforcer.words.reported import Call, say


def body(*calls: list[str]) -> bytes:
    return json.dumps({"calls": calls}).encode()


def frame(content: bytes) -> bytes:
    return struct.pack("<I", len(content)) + content


def test_the_calls_in_order() -> None:
    assert parse_report(body(["shop", "Analyst", "t1", "sql"], ["", "", "", "other"])) == (
        Call("shop", "Analyst", "t1", "sql"), Call("", "", "", "other"))
    assert parse_report(b'{"calls":[],"later":"fields are not an error"}') == ()


def test_texts_are_printable_and_bounded() -> None:
    [one] = parse_report(body(["\x1b[2J", "a\nb\u202e", "x" * 1000, "\x00"]))
    assert one == Call("?[2J", "a?b?", "x" * TEXT, "?")


@pytest.mark.parametrize("content", [
    b"", b"{", b"null", b"[]", b"{}", b'{"calls":1}', b'{"calls":[["a","b","c"]]}', b'{"calls":[["a","b","c",1]]}',
    b"\xff", b"[" * 50_000, body(*[["a", "b", "c", "d"]] * (CALLS + 1)),
], ids=range(11))
def test_what_is_no_report(content: bytes) -> None:
    with pytest.raises(ValueError, match="none"):
        parse_report(content)


@given(st.lists(st.binary(max_size=300), max_size=8), st.data())
def test_frames_may_be_cut_anywhere(bodies: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(map(frame, bodies))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    frames, count, last = Frames(), 0, None
    for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        number, found = frames.feed(whole[begin:end])
        count, last = count + number, last if found is None else found
    assert (count, last) == (len(bodies), bodies[-1] if bodies else None)


def test_half_a_frame_is_none_yet_and_a_long_one_is_refused_by_its_length() -> None:
    frames = Frames()
    assert frames.feed(frame(b"x" * 100)[:-1]) == (0, None)
    assert frames.feed(b"x") == (1, b"x" * 100)
    assert Frames().feed(struct.pack("<I", LIMIT)) == (0, None)
    with pytest.raises(ValueError, match="limit"):
        Frames().feed(struct.pack("<I", LIMIT + 1))


def test_for_people() -> None:
    one, other = Call("shop", "Analyst", "t1", "sql"), Call("", "", "", "other")
    assert say(()) == ""
    assert say((one,)) == "tool sql of agent Analyst in task t1 of crew shop"
    assert say((one, other)) == f"one of 2 calls at once: {one}; tool other"
    assert say((Call("", "", "", ""),)) == "a tool call without a name"
    assert len(say((one,) * 16, 100)) == 100
