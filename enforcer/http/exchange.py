"""What a protocol over HTTP says of the connection and of each request: the layer asks it, and does what it is told."""
from __future__ import annotations

from typing import Protocol

from enforcer.http.messages import Answer, Head
from enforcer.http.passage import Outlet, Passage
from enforcer.words.operations import Request


class Unreadable(Exception):
    """Of an answer: it may hold what must be masked, and cannot be read.  The client is told why, where its head was
    not sent on yet; else the connection is cut."""


class Way(Protocol):
    """What an exchange is given: one of these is called, once, at any time."""

    def forward(self, head: Head, body: bytes, upgrade: bytes = b"") -> None:
        """To the server, with the credential, behind all that was recorded."""
        ...

    def answer(self, answer: Answer, body: bytes, last: bool = False) -> None:
        """From Weir itself; `last`: and the connection ends."""
        ...


class Exchange(Protocol):
    """One request and its answer."""

    @property
    def most(self) -> int:
        """Bytes that the request's body may have; all of it is here before anything is decided."""
        ...

    def ask(self, body: bytes, way: Way) -> None:
        """The request is whole."""
        ...

    def refuse(self, status: int, reason: str, way: Way) -> None:
        """It is no request, or its body is too long: record that, and answer.  Nothing of it goes anywhere."""
        ...

    def answered(self, answer: Answer) -> Answer:
        """The server's head -> the client's.  Raises Unreadable."""
        ...

    @property
    def changes(self) -> bool:
        """Whether the answer's body is another than the server's: its length is not known then."""
        ...

    def piece(self, data: bytes) -> bytes:
        """Of the answer's body, as it comes; b"" while more is needed.  Raises Unreadable."""
        ...

    def done(self) -> bytes:
        """The answer is whole: what is left of it.  Its result is recorded.  Raises Unreadable."""
        ...

    def unanswered(self, reason: str) -> None:
        """The server is gone, or the session ends, before its answer began; its result is recorded."""
        ...

    def lost(self, reason: str) -> None:
        """Nobody waits for it any more, or the answer broke off.  What is held is withdrawn; the result is recorded."""
        ...

    def upgrade(self, answer: Answer, outlet: Outlet) -> Passage:
        """The server has answered 101.  Raises RemoteProtocolError where it did so to nothing."""
        ...


class Service(Protocol):
    """A protocol over HTTP, for one connection."""

    def connect(self) -> tuple[Request, ...]:
        """What is asked by connecting."""
        ...

    def begin(self, head: Head) -> Exchange: ...

    def explain(self, status: int, reason: str) -> tuple[Answer, bytes]:
        """An error in the protocol's own form."""
        ...
