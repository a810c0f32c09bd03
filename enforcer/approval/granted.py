"""Which held operation of which session goes under which ticket, or will.  Pure."""
from __future__ import annotations


class Granted:
    """One session may hold many operations at once, and a ticket that stands may let several of them through."""

    def __init__(self) -> None:
        self._all: dict[str, dict[int, str]] = {}      # session -> held operation -> ticket

    def give(self, session: str, held: int, ticket: str) -> None:
        self._all.setdefault(session, {})[held] = ticket

    def get(self, session: str, held: int) -> str:
        """"": it has none."""
        return self._all.get(session, {}).get(held, "")

    def take(self, session: str, held: int) -> str:
        """The same; it has none from here on."""
        mine = self._all.get(session, {})
        ticket = mine.pop(held, "")
        if not mine:
            self._all.pop(session, None)
        return ticket

    def of(self, session: str) -> tuple[int, ...]:
        """Its held operations."""
        return tuple(self._all.get(session, ()))

    def tickets(self, session: str = "") -> frozenset[str]:
        """Of this session; of all."""
        chosen = (self._all.get(session, {}),) if session else self._all.values()
        return frozenset(ticket for mine in chosen for ticket in mine.values())

    def __len__(self) -> int:
        return sum(map(len, self._all.values()))
