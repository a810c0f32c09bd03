"""Pure: known_hosts files (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT): which hosts a line is for, and what crews are shown.

Plain lines, one a name, for paramiko and asyncssh read nothing else in every version.  A line of a crew's own that is
for a host of Weir's goes, for a client that finds another key first refuses Weir's; where a pattern has other hosts too
it stays, and says that it is not for Weir's.
"""
from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

PORT: Final = 22                      # RFC 4253, 4
AUTHORITY, REVOKED = "@cert-authority", "@revoked"
_MARKERS: Final = (AUTHORITY, REVOKED)
_HASHED: Final = "|1|"


@dataclass(frozen=True)
class Line:
    marker: str                       # of _MARKERS, or empty
    hosts: str                        # patterns with commas between them, or one hashed name
    key: str                          # type, base64 and what follows


def name_of(host: str, port: int) -> str:
    """As clients look a host up (sshd(8)); of an address without brackets."""
    return host if port == PORT else f"[{host}]:{port}"


def parse_line(line: str) -> Line | None:
    """None where it is none: empty, a comment, or not understood."""
    words = line.split(None, 3 if line.lstrip().startswith("@") else 2)
    if not words or words[0].startswith("#"):
        return None
    marker = words.pop(0) if words[0].startswith("@") else ""
    if len(words) < 3 or marker not in ("", *_MARKERS):
        return None
    return Line(marker, words[0], " ".join(words[1:]).rstrip())


def render_line(line: Line) -> str:
    return " ".join(filter(None, (line.marker, line.hosts, line.key)))


def render_lines(names: Iterable[str], keys: Collection[str]) -> str:
    """`keys`: as in a .pub file."""
    return "".join(f"{name} {' '.join(key.split()[:2])}\n" for name in dict.fromkeys(names) for key in keys)


def is_for(line: Line, name: str) -> bool:
    """Whether a client that looks for this name would take the line."""
    return _hashed(line.hosts, name) if line.hosts.startswith(_HASHED) else _listed(line.hosts, name)


def _hashed(hosts: str, name: str) -> bool:
    """HMAC-SHA1 of the name under the salt, both base64."""
    parts = hosts.split("|")
    try:
        salt, wanted = (base64.b64decode(part, validate=True) for part in parts[2:4])
    except (ValueError, binascii.Error):
        return False
    return len(parts) == 4 and hmac.compare_digest(hmac.digest(salt, name.encode(), "sha1"), wanted)


def _listed(hosts: str, name: str) -> bool:
    """ssh_config(5), PATTERNS: one that is negated and fits decides."""
    patterns = hosts.lower().split(",")
    if any(matches(one[1:], name) for one in patterns if one.startswith("!")):
        return False
    return any(matches(one, name) for one in patterns if not one.startswith("!"))


def matches(pattern: str, name: str) -> bool:
    """`*` stands for anything, `?` for one character.  Without backtracking over more than one `*`: a crew may have
    written the pattern."""
    at = here = 0
    star, resume = -1, 0
    while here < len(name):
        if at < len(pattern) and pattern[at] == "*":
            star, resume, at = at, here, at + 1
        elif at < len(pattern) and pattern[at] in ("?", name[here]):
            at, here = at + 1, here + 1
        elif star >= 0:
            resume += 1
            at, here = star + 1, resume
        else:
            return False
    return not pattern[at:].strip("*")


def without(content: str, names: Collection[str]) -> str:
    """The file, with no line that is for one of these; other hosts' stay, and so does what is no line of a host."""
    return "".join(_kept(content, frozenset(names)))


def _kept(content: str, names: frozenset[str]) -> Iterator[str]:
    for text in re.findall(r"[^\n]*\n|[^\n]+", content):
        line = parse_line(text)
        if line is None or not any(is_for(line, name) for name in names):
            yield text
        elif (rest := _rest(line, names)) is not None:
            yield render_line(rest) + "\n"


def _rest(line: Line, names: frozenset[str]) -> Line | None:
    """What of a line is for others; None: nothing is."""
    if line.hosts.startswith(_HASHED):
        return None
    patterns = [one for one in line.hosts.split(",") if one.lower() not in names]
    if not any(one and not one.startswith("!") for one in patterns):
        return None
    left = replace(line, hosts=",".join(patterns))
    return replace(left, hosts=",".join((*patterns, *(f"!{name}" for name in sorted(names) if is_for(left, name)))))


def merge(own: bytes, weirs: bytes) -> bytes:
    """What shows in place of a file of the crew's: its own, but for the hosts that Weir's lines name."""
    lines = filter(None, map(parse_line, weirs.decode("ascii").splitlines()))
    # Bytes of any kind stay what they are: comments need not be UTF-8.
    kept = without(own.decode("ascii", "surrogateescape"), {line.hosts for line in lines})
    return kept.encode("ascii", "surrogateescape") + (b"\n" if kept and not kept.endswith("\n") else b"") + weirs
