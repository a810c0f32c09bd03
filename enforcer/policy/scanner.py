"""Which of some expressions are somewhere in a text: Hyperscan, one pass for all of them."""
from __future__ import annotations

import hyperscan


class Scanner:
    """`expressions`: (expression, number that stands for it).  "$" and "." are as in one line that holds everything."""

    def __init__(self, expressions: list[tuple[bytes, int]]) -> None:
        self._database: hyperscan.Database | None = None
        self._found: set[int] = set()
        if expressions:
            self._database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
            self._database.compile(
                expressions=[one for one, _ in expressions], ids=[number for _, number in expressions],
                elements=len(expressions), flags=[hyperscan.HS_FLAG_SINGLEMATCH | hyperscan.HS_FLAG_DOTALL] * len(
                    expressions))

    def scan(self, text: bytes) -> set[int]:
        """Numbers of those that are in it."""
        if self._database is None:
            return set()
        self._found = set()
        self._database.scan(text, self._matched)
        return self._found

    def _matched(self, expression: int, start: int, end: int, flags: int, context: object) -> None:
        self._found.add(expression)
