"""Unpredictable bytes for salts and nonces, taken from the kernel by the page: a statement needs several."""
from __future__ import annotations

import os
from typing import Final

PAGE: Final = 4096                    # bytes


class Salts:
    """Each byte is given once."""

    def __init__(self) -> None:
        self._page, self._at = b"", 0

    def take(self, size: int) -> bytes:
        if size > PAGE:
            return os.urandom(size)
        if self._at + size > len(self._page):
            self._page, self._at = os.urandom(PAGE), 0
        begin, self._at = self._at, self._at + size
        return self._page[begin:self._at]
