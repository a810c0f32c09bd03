"""What a terminal shows, cut anywhere; held against pyte where it is lines of text."""
from __future__ import annotations

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.policy.visible import BACK, CONTROL, Screen, text_of, whole


def read(raw: bytes, columns: int = 0) -> Screen:
    screen, last = Screen(columns), 0
    for match in CONTROL.finditer(raw):
        screen.push(raw[last:match.start()], last)
        if match[0] == b"\b":
            screen.take_back()
        last = match.end()
    screen.push(raw[last:], last)
    return screen


@pytest.mark.parametrize(("raw", "text"), [
    (b"plain\r\ntext", b"plain\ntext"),
    (b"\x1b[1;31mred\x1b[0m", b"red"),
    (b"\x1b]0;title\x07after\x1b]8;;http://x\x1b\\link", b"afterlink"),
    (b"\x1bP1$r0m\x1b\\x\x1b_apc\x1b\\y\x1b^pm\x1b\\z\x1bXsos\x1b\\", b"xyz"),
    (b"\x1b(B\x1b=\x1b>\x1b7\x1b8\x1bM\x1bctext", b"text"),
    (b"long \rgoes on \r\nline", b"longgoes on \nline"),
    (b"long \bgoes on ", b"longgoes on "),
    (b"a\x00b\x07c\x0ed\x0fe\x7ff\tg", b"abcdef\tg"),
    (b"\x1b[38;2;1;2;3mx\x1b[?2004hy\x1b[6 qz", b"xyz"),
    (b"\x1b[31\nm", b"[31\nm"),
    (b"\x1b]" + b"x" * 5000 + b"\x07", b"]" + b"x" * 5000),
    (b"\xc3\xa9\xe2\x82\xac", b"\xc3\xa9\xe2\x82\xac"),
])
def test_text(raw: bytes, text: bytes) -> None:
    assert text_of(raw) == text
    assert bytes(read(raw).text) == text


def test_backspaces_take_back_in_a_line_and_not_far() -> None:
    assert bytes(read(b"ab\bc\b \bd\ne\b\b\bf").text) == b"ad\nf"
    assert len(read(b"x" * 100 + b"\b" * 100).text) == 100 - BACK
    assert len(read((b"x" * 10 + b"\b" * 30) * 10 + b"y" * 500 + b"\b" * 90).text) >= 500 - BACK


def test_where_it_stands() -> None:
    screen = read(b"ab\x1b[1mcd\x1b[0m\r\nef")
    assert bytes(screen.text) == b"abcd\nef"
    assert [screen.offset(at) for at in range(7)] == [0, 1, 6, 7, 13, 14, 15]
    assert screen.ranges(1, 6) == [(1, 2), (6, 8), (13, 15)]
    screen.passed(3)
    assert (screen.offset(2), screen.offset(3)) == (-1, 7)
    assert (screen.first_offset(3, 99), screen.first_offset(7, 99)) == (7, 99)


def test_what_was_taken_back_lies_under_what_came() -> None:
    screen = read(b"ab\bcX\bd")
    assert bytes(screen.text) == b"acd"
    assert sorted(screen.ranges(1, 3)) == [(1, 2), (3, 4), (4, 5), (6, 7)]
    assert screen.first_offset(2, 99) == 4


def test_lines_that_fill_the_screen_go_on() -> None:
    assert bytes(read(b"0123456789\r\nabc\r\n", 10).text) == b"0123456789abc\n"
    assert bytes(read(b"0123456789\r\nabc\r\n", 11).text) == b"0123456789\nabc\n"
    assert bytes(read(b"\xc3\xa9" * 10 + b"\r\nx", 10).text) == b"\xc3\xa9" * 10 + b"x"
    quick = Screen(10)
    assert not quick.plain(b"0123456789\nabc")
    assert quick.plain(b"01234\n")
    assert quick.plain(b"01234")
    assert not quick.plain(b"56789\n")


@given(st.lists(st.sampled_from((
    b"a", b"1", b" ", b"\r", b"\n", b"\x1b", b"[", b"]", b"3", b"m", b";", b"\\", b"\x07", b"P", b"(", b"?", b"\x18",
    b"\x1b[31m", b"\x1b]0;t\x1b\\"))), st.data())
def test_what_is_whole_is_read_alike_whatever_comes(pieces: list[bytes], data: st.DataObject) -> None:
    raw = b"".join(pieces)
    size = data.draw(st.integers(0, len(raw)))
    head = raw[:size]
    done = whole(head)
    assert text_of(head[:done]) + text_of(raw[done:]) == text_of(raw)
    assert bytes(read(raw).text) == text_of(raw)


@given(st.lists(st.sampled_from((b"abc", b"x", b"\r\n", b"\x1b[1m", b"\x1b]0;t\x07", b"\b", b"\x1b[0;32m", b"long "))))
def test_as_pyte_shows_it(pieces: list[bytes]) -> None:
    raw = b"".join(pieces)
    screen = pyte.Screen(200, 60)
    pyte.ByteStream(screen).feed(raw)
    if raw.count(b"\n") < 60 and b"\b" not in raw:
        shown = [line.rstrip() for line in screen.display[:raw.count(b"\n") + 1]]
        assert shown == [line.rstrip() for line in bytes(read(raw, 200).text).decode().split("\n")]
