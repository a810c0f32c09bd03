"""Paths of files on the far side, as policies see them.  Pure."""
from __future__ import annotations

from typing import Final

HOME: Final = "~"


def canonical(path: str) -> str:
    """Absolute, or from the account's home: /a/b, ~, ~/a; empty where it cannot be told.

    A name is taken out by ".." only where it cannot be a link: /var/run/../x is /x on many systems, and "~/.." is
    wherever homes are.  So what goes up from anything but the root is not told at all."""
    if not path or "\0" in path:
        return ""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if parts or path[0] != "/":
                return ""
        elif part not in ("", "."):
            parts.append(part)
    if path[0] == "/":
        return "/" + "/".join(parts)
    return "/".join((HOME, *parts))


def canonical_at_home(path: str) -> str:
    """Of "~" and "~/a", with the shell's tilde."""
    return canonical("." + path[1:])
