from __future__ import annotations

import pytest

from agent.contract.target import ContentLabel
from enforcer.protocols.ssh.sftp import paths


@pytest.mark.parametrize(("path", "told"), [
    (b"/", b"/"), (b"//a//b/", b"/a/b"), (b"/a/./b/../c", b"/a/c"), (b"/../..", b"/"), (b"/a/...", b"/a/..."),
])
def test_normal(path: bytes, told: bytes) -> None:
    assert paths.normal(path) == told


@pytest.mark.parametrize(("path", "told"), [
    (b"/", (b"/", b"")), (b"/a", (b"/", b"a")), (b"/a/b/", (b"/a", b"b")), (b"/a//b//", (b"/a/", b"b")),
    (b"/a/..", (b"/a", b"..")), (b"/a/.", (b"/a", b".")),
])
def test_split(path: bytes, told: tuple[bytes, bytes]) -> None:
    assert paths.split(path) == told


def test_what_lies_within() -> None:
    assert paths.within(b"/a/b", b"/a")
    assert paths.within(b"/a", b"/a")
    assert paths.within(b"/a", b"/")
    assert not paths.within(b"/ab", b"/a")


@pytest.mark.parametrize(("pattern", "path", "told"), [
    ("/a", "/a", True), ("/a", "/ab", False), ("/a/*", "/a/b/c", True), ("*.key", "/x/y.key", True),
    ("/a*a", "/a", False),
    ("/a*b*c", "/axxbyyc", True), ("/a*b*c", "/acb", False), ("*", "", True), ("**", "x", True),
    ("/a*bc*c", "/abc", False),
    ("/a/*", "/a/", True), ("/a/*", "/a", False), ("/?", "/a", False), ("/[ab]", "/a", False),
])
def test_patterns(pattern: str, path: str, told: bool) -> None:
    assert paths.matches(pattern, path) is told


@pytest.mark.parametrize(("pattern", "directory", "told"), [
    ("/a/b/c", "/a", True), ("/a/b/c", "/a/b", True), ("/a/b/c", "/a/b/c", False), ("/a/b/c", "/x", False),
    ("*.key", "/x", True), ("/a/*.key", "/a", True), ("/a/*/k", "/a/x/y", True), ("/a/*", "/b", False),
    ("/a/b*", "/a/bc", True), ("/a", "/", True), ("/a/b*", "/a/c", False),
])
def test_what_a_pattern_reaches(pattern: str, directory: str, told: bool) -> None:
    assert paths.reaches(pattern, directory) is told


def test_labels() -> None:
    labels = paths.Labels((
        ContentLabel("key", path="/k/*"), ContentLabel("key", path="*.pem"), ContentLabel("log", path="/k/log"),
        ContentLabel("other", command="cat *"),
    ))
    assert labels.of(b"/k/a.pem") == ("key",)
    assert labels.of(b"/k/log") == ("key", "log")
    assert labels.of(b"/x") == ()
    assert labels.below(b"/x") == ("key",)               # *.pem may be in it
    assert labels.below(b"/k") == ("key", "log")
    for path in (b"/proc/7/mem", b"/dev/sda", b"/proc"):
        assert labels.of(path) == ("key", "log")         # what any file holds may be in it
    assert labels.of(b"/dev/null") == labels.of(b"/dev/shm/x") == labels.of(b"/process") == ()


def test_how_it_is_shown() -> None:
    assert paths.text(b"/a\xffb\n\xc3\xa4") == "/a\\xffb\nä"
    assert paths.shown(b"/a\xffb\n\x1b[2J\xc3\xa4\xe2\x80\xae") == "/a\\xffb\\n\\x1b[2Jä\\u202e".encode()
