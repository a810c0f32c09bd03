"""What exec and attach say on their streams, whichever protocol carries them."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from enforcer.words.errors import RemoteProtocolError

# Channels of the WebSocket protocols, and by which names SPDY's streams have them (k8s.io/api/core/v1, StreamType).
STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
NAMES: Final = (b"stdin", b"stdout", b"stderr", b"error", b"resize")
TO_SERVER: Final = frozenset((STDIN, RESIZE))
TO_CREW: Final = frozenset((STDOUT, STDERR, ERROR))


@dataclass(frozen=True, slots=True)
class Opened:
    """The crew wants this stream.  `last`: and says nothing on it."""

    stream: int
    last: bool = False


@dataclass(frozen=True, slots=True)
class Accepted:
    stream: int


@dataclass(frozen=True, slots=True)
class Said:
    stream: int
    data: bytes                       # may be empty: a server says so that it has begun


@dataclass(frozen=True, slots=True)
class Ended:
    stream: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """Neither side says more on it."""

    stream: int
    status: int


@dataclass(frozen=True, slots=True)
class Asked:
    """Whether the other is there, of which only it can know."""

    token: bytes


@dataclass(frozen=True, slots=True)
class Answered:
    token: bytes


@dataclass(frozen=True, slots=True)
class Over:
    """Its peer says nothing more at all."""

    code: int = 1000                  # of WebSocket
    reason: str = ""


Word = Opened | Accepted | Said | Ended | Dropped | Asked | Answered | Over


def join_words(words: Iterator[Word]) -> Iterator[Word]:
    """The same, with what follows each other on one stream in one, and of questions and answers that follow each other
    the last (RFC 6455 5.5.3): each may come as a message of a few bytes, and what is passed on costs more than those.
    What stands before an error comes before it."""
    last, pieces = None, list[bytes]()
    try:
        for word in words:
            if last is not None and not _goes_on(last, word):
                yield _joined(last, pieces)
                pieces = []
            last = word
            if isinstance(word, Said):
                pieces.append(word.data)
    except RemoteProtocolError as wrong:
        if last is not None:
            yield _joined(last, pieces)
        raise wrong
    if last is not None:
        yield _joined(last, pieces)


def _goes_on(last: Word, word: Word) -> bool:
    if isinstance(last, Said):
        return isinstance(word, Said) and word.stream == last.stream
    return isinstance(last, Asked | Answered) and type(word) is type(last)


def _joined(last: Word, pieces: list[bytes]) -> Word:
    return Said(last.stream, b"".join(pieces)) if isinstance(last, Said) else last


class Wire(Protocol):
    """One side's protocol.  What it renders is b"" where there is nothing to say."""

    def receive(self, data: bytes) -> Iterator[Word]:
        """Raises RemoteProtocolError."""
        ...

    def open(self, stream: int, last: bool) -> bytes: ...

    def accept(self, stream: int) -> bytes: ...

    def say(self, stream: int, data: bytes) -> bytes: ...

    def end(self, stream: int) -> bytes: ...

    def drop(self, stream: int, status: int) -> bytes: ...

    def ask(self, token: bytes) -> bytes: ...

    def answer(self, token: bytes) -> bytes: ...

    def close(self, code: int, reason: str) -> bytes: ...
