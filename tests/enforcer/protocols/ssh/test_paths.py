"""Paths of files on the far side: one spelling for one file, or none where it cannot be told."""
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.protocols.ssh.paths import canonical, canonical_at_home


@pytest.mark.parametrize(("path", "wanted"), [
    ("/", "/"), ("//", "/"), ("/a/b", "/a/b"), ("//a///b/", "/a/b"), ("/./a/.", "/a"), ("/../a", "/a"),
    ("/../../a/../b", ""), ("/a/..", ""), ("/var/run/../x", ""), (".", "~"), ("./", "~"), ("a", "~/a"),
    ("./a//b/.", "~/a/b"), ("..", ""), ("../a", ""), ("a/../b", ""), ("", ""), ("/a\0", ""), ("~", "~/~"),
    ("~/a", "~/~/a"), ("~root/a", "~/~root/a"), ("/...", "/..."), ("..a", "~/..a"), ("/a b", "/a b"),
])
def test_canonical(path: str, wanted: str) -> None:
    assert canonical(path) == wanted


@pytest.mark.parametrize(("path", "wanted"), [
    ("~", "~"), ("~/", "~"), ("~/a", "~/a"), ("~/../a", ""), ("~//./a", "~/a")])
def test_canonical_at_home(path: str, wanted: str) -> None:
    assert canonical_at_home(path) == wanted


@given(st.lists(st.sampled_from(["a", "b", ".", "..", "", "~", "/"]), max_size=8).map("/".join))
def test_what_is_told_is_absolute_or_of_the_home_and_told_again_alike(path: str) -> None:
    found = canonical(path)
    if found:
        assert ".." not in found.split("/")
        assert (found[0] == "/") == (path[0] == "/")
        assert canonical(found if found[0] == "/" else "." + found[1:]) == found
