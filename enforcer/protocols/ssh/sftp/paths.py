"""Paths of a server: how they are taken apart, shown, and which labels are on them."""
from __future__ import annotations

from typing import Final

from agent.contract.target import ContentLabel

ROOT: Final = b"/"
DOTS: Final = (b"", b".", b"..")
RAW: Final = (b"/proc", b"/dev")      # /proc/PID/mem of the server, disks
PLAIN: Final = (b"/dev/shm", b"/dev/null", b"/dev/zero", b"/dev/full", b"/dev/random", b"/dev/urandom")


def absolute(home: bytes, path: bytes) -> bytes:
    """Nothing is taken out: what `..` means depends on links."""
    return path if path.startswith(ROOT) else home.rstrip(ROOT) + ROOT + path


def normal(path: bytes) -> bytes:
    """An absolute path without `.`, `..` and `//`, as if nothing in it were a link."""
    names: list[bytes] = []
    for name in path.split(ROOT):
        if name == b"..":
            del names[-1:]
        elif name not in DOTS:
            names.append(name)
    return ROOT + ROOT.join(names)


def prefixes(path: bytes) -> list[bytes]:
    """Of a normal path: "/a", "/a/b"; the root is none."""
    names = [name for name in path.split(ROOT) if name]
    return [ROOT + ROOT.join(names[:count]) for count in range(1, len(names) + 1)]


def split(path: bytes) -> tuple[bytes, bytes]:
    """An absolute path as (its directory, last name); the last name is b"", b"." or b".." where it names none of a
    directory.  Slashes at the end do not count."""
    parent, _, name = path.rstrip(ROOT).rpartition(ROOT)
    return parent or ROOT, name


def join(parent: bytes, name: bytes) -> bytes:
    return parent.rstrip(ROOT) + ROOT + name


def within(path: bytes, other: bytes) -> bool:
    """Is `path` the other, or does it lie in it?"""
    return path == other or path.startswith(other.rstrip(ROOT) + ROOT)


def text(path: bytes) -> str:
    """As policies see it: bytes that are no UTF-8 are written "\\xff"."""
    return path.decode("utf-8", "backslashreplace")


def shown(path: bytes) -> bytes:
    """As it is recorded, on one line."""
    told = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text(path))
    return told.encode()


def matches(pattern: str, path: str) -> bool:
    """`*` stands for any characters, "/" too, as `like` has it in policies."""
    first, *parts = pattern.split("*")
    if not parts:
        return path == pattern
    last = parts.pop()
    if len(path) < len(first) + len(last) or not path.startswith(first) or not path.endswith(last):
        return False
    at, end = len(first), len(path) - len(last)
    for part in parts:
        found = path.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def reaches(pattern: str, directory: str) -> bool:
    """Could the pattern match something below the directory?"""
    below = directory.rstrip("/") + "/"
    return any(matches(pattern[:size], below) for size in range(1, len(pattern) + 1))


class Labels:
    """The labels of a target that are on paths.  Memory and disks may hold what any file holds, so they carry all."""

    __slots__ = ("_known", "all")

    def __init__(self, labels: tuple[ContentLabel, ...]) -> None:
        self._known = tuple((one.label, one.path) for one in labels if one.path)
        self.all = tuple(dict.fromkeys(label for label, _ in self._known))

    def of(self, path: bytes) -> tuple[str, ...]:
        if any(within(path, root) for root in RAW) and not any(within(path, plain) for plain in PLAIN):
            return self.all
        told = text(path)
        return tuple(dict.fromkeys(label for label, pattern in self._known if matches(pattern, told)))

    def below(self, path: bytes) -> tuple[str, ...]:
        """On it or on anything that it could hold, were it a directory."""
        told = text(path)
        return tuple(dict.fromkeys((
            *self.of(path), *(label for label, pattern in self._known if reaches(pattern, told)))))
