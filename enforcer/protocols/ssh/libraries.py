"""asyncssh looks for nettle (UMAC) and liboqs by ctypes.util, which asks ldconfig and a compiler; this process starts
no program (agent/confined).  While asyncssh is imported, the libraries' directories are looked at instead."""
from __future__ import annotations

import ctypes.util
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from typing import Final

_PLACES: Final = ("/usr/lib/*-linux-gnu*", "/usr/lib64", "/usr/lib", "/usr/local/lib")
_KNOWN: Final = ("nettle", "oqs")


@contextmanager
def found_by_name() -> Iterator[None]:
    before = ctypes.util.find_library
    ctypes.util.find_library = _find
    try:
        yield
    finally:
        ctypes.util.find_library = before


def _find(name: str) -> str | None:
    """The path of the newest."""
    if name not in _KNOWN:
        return None
    for place in _PLACES:
        if found := glob(f"{place}/lib{name}.so.[0-9]*"):
            return max(found)
    return None
