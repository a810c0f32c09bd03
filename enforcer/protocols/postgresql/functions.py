"""Built-in functions: which are harmless, and what the others are to policy.

functions.txt is every name of PostgreSQL 15's pg_catalog but those that read or write files, signal other sessions, run
SQL that they are given or the functions of a type, change settings, sequences or large objects, or show other sessions
(tests make it anew).
"""
from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Final

LARGE_OBJECTS: Final = ("lo_", "loread", "lowrite")


@cache
def harmless() -> frozenset[str]:
    text = resources.files("enforcer.protocols.postgresql").joinpath("functions.txt").read_text("ascii")
    return frozenset(text.split())


def is_large_object(name: str) -> bool:
    """lo_import and lo_export touch the server's files: they are not meant."""
    return name.startswith(LARGE_OBJECTS) and name not in ("lo_import", "lo_export")
