"""An exec with a terminal is recorded as one, whoever speaks first."""
from __future__ import annotations

from typing import Any

import pytest

from enforcer.protocols.kubernetes.streams.command import CommandPassage
from enforcer.protocols.kubernetes.streams.words import RESIZE, STDIN, STDOUT, Said
from enforcer.recording.tapes import parse_size
from enforcer.words.commands import CLIENT, SERVER

SIZE = Said(RESIZE, b'{"Width":120,"Height":40}')
PROMPT, TYPED = Said(STDOUT, b"$ "), Said(STDIN, b"ls\r")


class Wire:
    """Says nothing, and reads words as they are."""

    def receive(self, word: Any) -> list[Any]:
        return [word]

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: b""


class Outlet:
    """And its desk: which streams came, in their order."""

    def __init__(self) -> None:
        self.streams: list[tuple[str, bytes]] = []
        self.desk = self

    def note(self, number: int, stream: str, content: bytes) -> None:
        self.streams.append((stream, content))

    def piece(self, number: int, stream: str, data: bytes, keep: bool = True) -> None:
        self.streams.append((stream, data))

    def typed(self, number: int, size: int) -> None:
        self.streams.append(("typed", b""))

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: 0.0


def recorded(query: tuple[tuple[str, str], ...], *words: tuple[int, Any]) -> list[tuple[str, bytes]]:
    outlet = Outlet()
    passage = CommandPassage(outlet, 1, Wire(), Wire(), query, frozenset(), True)  # type: ignore[arg-type]
    for peer, word in words:
        passage.receive(peer, word)
    return outlet.streams


TTY = (("tty", "true"), ("stdin", "true"), ("stdout", "true"))


@pytest.mark.parametrize("first", [(SERVER, PROMPT), (CLIENT, TYPED)], ids=["printed", "typed"])
def test_what_comes_before_the_size(first: tuple[int, Any]) -> None:
    found = recorded(TTY, first, (CLIENT, SIZE), (SERVER, PROMPT))
    assert found[0][0] == "size"
    assert [parse_size(content) for stream, content in found if stream == "size"] == [(80, 24), (120, 40)]


def test_a_size_that_comes_first_is_the_only_one() -> None:
    found = recorded(TTY, (CLIENT, SIZE), (SERVER, PROMPT), (CLIENT, TYPED))
    assert [content for stream, content in found if stream == "size"] == [b"120x40"]
    assert found[0] == ("size", b"120x40")


def test_without_a_terminal_there_is_none() -> None:
    assert "size" not in dict(recorded(TTY[1:], (SERVER, PROMPT), (CLIENT, TYPED)))
