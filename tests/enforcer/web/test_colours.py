"""Colours add nothing to a statement and take nothing away, whatever it is."""
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.web.colours import colour, mark

SQL = "select 'a''b', \"Ä\", $1, 1.5e3, $$x$$, U&'d' /* c /* n */ */ from t -- e\nwhere x::int = 1;"


def joined(text: str) -> str:
    return "".join(part for _, part in colour(text))


@given(st.text())
def test_nothing_is_left_out_or_added(text: str) -> None:
    assert joined(text) == text


@given(st.text(alphabet=list("ab 1'\"$-/*\n\\é😀E(;U&\0")))
def test_not_even_of_what_looks_like_sql(text: str) -> None:
    assert joined(text) == text


@pytest.mark.parametrize(("part", "kind"), [
    ("select", "keyword"), ("'a''b'", "text"), ('"Ä"', "name"), ("$1", "parameter"), ("1.5e3", "number"),
    ("$$x$$", "text"), ("/* c /* n */ */", "comment"), ("-- e", "comment"), ("where", "keyword"), ("t", "name"),
])
def test_classes(part: str, kind: str) -> None:
    assert (kind, part) in colour(SQL)


def test_what_is_in_a_string_is_no_comment() -> None:
    assert ("text", "'-- DROP TABLE t'") in colour("SELECT '-- DROP TABLE t'")


def test_beyond_the_basic_plane_the_places_still_fit() -> None:
    assert ("keyword", "FROM") in colour("SELECT '😀é' FROM t")


@pytest.mark.parametrize("text", ["SELECT 'cut off... (9000 characters in all, cut here)", "a\0b", "x" * 20_001])
def test_what_does_not_scan_is_plain(text: str) -> None:
    assert colour(text) == [("", text)]


def test_what_cannot_be_seen_is_marked() -> None:
    assert list(mark("a\u202e\x00b\u043e\tß\n")) == [
        ("", "a"), ("unseen", "\\u202e\\x00"), ("", "b"), ("foreign", "\u043e"), ("", "\tß\n")]
