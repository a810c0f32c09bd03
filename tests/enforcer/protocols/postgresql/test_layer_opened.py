"""A session is on record before its backend runs anything: whatever is killed, the server's log finds its session."""
from __future__ import annotations

from scripted import LOGIN, Scripted

from enforcer.words import commands as words
from enforcer.words import events, inputs


class Asking(Scripted):
    """Killed while it asks what names mean."""

    script = LOGIN[:1]

    def until_ready(self, count: int = 1) -> list[tuple[bytes, bytes]]:
        self.step()
        return []


class Blind(Scripted):
    """The catalogue cannot be read."""

    def do(self, commands: list[words.Command]) -> None:
        for command in commands:
            if isinstance(command, words.LoadCatalogue):
                self.tell(inputs.CatalogueReady(command.database, None, "away"))
            else:
                super().do([command])


def names(session: Scripted) -> list[str]:
    return [type(record.event).__name__ for record in session.records]


def test_it_is_opened_before_its_first_statement() -> None:
    session = Asking()
    assert names(session)[-2:] == ["SessionOpened", "Intent"]
    (opened,) = session.events(events.SessionOpened)
    assert isinstance(opened, events.SessionOpened)
    assert opened.backend == 7


def test_what_fails_after_that_is_closed_as_well() -> None:
    session = Blind()
    assert names(session).count("SessionOpened") == 1
    assert names(session)[-2:] == ["Refused", "SessionClosed"]
