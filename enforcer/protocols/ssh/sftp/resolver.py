"""The real path of a path, by asking the server itself in band.

OpenSSH's REALPATH (sftp-realpath.c) follows every link, also one whose target is missing, and accepts that the last
name is missing.  Others only take `.` and `..` out.  So as long as a server was not seen to follow a link, LSTAT of
what it calls real must show no link in it; both are asked at once, so that it costs no time.  Most servers have a link
that is known, so that `probe` settles it.  A server that leaves a link in is not believed: its path is refused.  One
that refuses a last name that is missing is asked for its directory.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from enforcer.protocols.ssh.sftp.messages import (
    ATTRS,
    EXTENDED,
    FAILURE,
    LSTAT,
    NAME,
    NO_SUCH_FILE,
    REALPATH,
    STATUS,
    Fields,
    Status,
    parse_attributes,
    parse_names,
    parse_status,
    string,
)
from enforcer.protocols.ssh.sftp.paths import DOTS, ROOT, join, normal, prefixes, shown, split
from enforcer.words.errors import RemoteProtocolError

DEPTH: Final = 128                    # names of a path, while LSTAT is asked for each
LINKS: Final = (b"/proc/self", b"/bin")          # that most servers have
UNKNOWN: Final = Status(FAILURE, b"the server does not say whether a link is in this path")
UNREAL: Final = Status(FAILURE, b"the server calls a path real that has a link in it")
TOO_DEEP: Final = Status(FAILURE, b"the path has too many names")

Found = bytes | Status                # the real path, or why there is none
Answer = Callable[[int, memoryview], None]


class Server(Protocol):
    def ask(self, kind: int, body: bytes, expects: tuple[int, ...], then: Answer) -> None:
        """Send a request of Weir's own."""
        ...

    def own(self, verb: str, text: bytes) -> Callable[[Status | None], None]:
        """Record it before it is sent; call what it gives with how it ended."""
        ...


@dataclass(slots=True)
class _Question:
    """One path, until the server's answers about it are there."""

    path: bytes
    then: Callable[[Found], None]
    may_miss: bool                    # its last name may be missing, so ask its directory where REALPATH does not
    real: Found = b""
    links: dict[bytes, Status | bool | None] | None = None   # prefix: is it a link; why this is not known
    owed: int = 0                     # answers
    proves: bool = False              # a link was taken out of it
    done: Callable[[Status | None], None] | None = None


class Resolver:
    __slots__ = ("_follows", "_server")

    def __init__(self, server: Server) -> None:
        self._server = server
        self._follows = False             # it was seen to follow a link

    def probe(self) -> None:
        """Nobody waits for it."""
        for link in LINKS:
            self.resolve(link, lambda found: None, False)

    def resolve(self, path: bytes, then: Callable[[Found], None], may_miss: bool = True) -> None:
        """Of an absolute path."""
        guess = normal(path)
        wanted = [] if self._follows else prefixes(guess)
        if len(wanted) > DEPTH:
            then(TOO_DEEP)
            return
        self._send(_Question(path, then, may_miss), REALPATH, string(path), wanted, guess)

    def expand(self, extension: bytes, argument: bytes, then: Callable[[Found], None]) -> None:
        """`expand-path@openssh.com` and `home-directory`: the server's answer is a path, and resolved as one."""
        def arrived(found: Found) -> None:
            if isinstance(found, Status):
                then(found)
            else:
                self.resolve(found, then)

        self._send(_Question(argument, arrived, False), EXTENDED, string(extension) + string(argument), [], b"")

    def _send(self, question: _Question, kind: int, body: bytes, wanted: list[bytes], guess: bytes) -> None:
        lines = [b"realpath " + shown(question.path), *(b"lstat " + shown(prefix) for prefix in wanted)]
        question.done = self._server.own("resolve", b"\n".join(lines))
        question.owed, question.links = 1 + len(wanted), {}
        self._server.ask(kind, body, (NAME, STATUS), partial(self._named, question, guess))
        self._look(question, guess, wanted)

    def _look(self, question: _Question, guess: bytes, wanted: list[bytes]) -> None:
        for prefix in wanted:
            self._server.ask(LSTAT, string(prefix), (ATTRS, STATUS), partial(self._seen, question, guess, prefix))

    def _named(self, question: _Question, guess: bytes, kind: int, packet: memoryview) -> None:
        if kind == STATUS:
            question.real = parse_status(packet)
        else:
            question.real = _one_name(packet)
        self._count(question, guess)

    def _seen(self, question: _Question, guess: bytes, prefix: bytes, kind: int, packet: memoryview) -> None:
        assert question.links is not None
        if kind == STATUS:
            question.links[prefix] = parse_status(packet)
        else:
            fields = Fields(packet)
            question.links[prefix] = parse_attributes(fields).is_link
            fields.end()
        self._count(question, guess)

    def _count(self, question: _Question, guess: bytes) -> None:
        question.owed -= 1
        if question.owed:
            return
        assert question.done is not None
        question.done(question.real if isinstance(question.real, Status) else None)
        if isinstance(question.real, Status):
            self._missing(question, question.real)
        elif self._follows or not guess:
            question.then(question.real)
        elif question.real == guess:
            question.then(self._checked(question, guess))
        else:
            self._differs(question, question.real)

    def _differs(self, question: _Question, real: bytes) -> None:
        """Look at what it says; if there is no link in it and one was before, then it follows links."""
        assert question.links is not None
        question.proves = b".." not in question.path.split(ROOT) and True in question.links.values()
        wanted = prefixes(real)
        if not wanted or len(wanted) > DEPTH:
            question.then(TOO_DEEP if wanted else real)      # the root is no link
            return
        question.owed, question.links = len(wanted), {}
        question.done = self._server.own("resolve", b"\n".join(b"lstat " + shown(prefix) for prefix in wanted))
        self._look(question, real, wanted)

    def _checked(self, question: _Question, real: bytes) -> Found:
        assert question.links is not None
        for prefix, link in question.links.items():
            if isinstance(link, Status):
                if prefix != real or link.code != NO_SUCH_FILE:
                    return link
            elif link is not False:
                return UNREAL if link else UNKNOWN
        self._follows = self._follows or question.proves
        return real

    def _missing(self, question: _Question, status: Status) -> None:
        """The server has no real path for it.  What is a link, or may be one, stays without one."""
        assert question.links is not None
        parent, name = split(question.path)
        tricky = question.path.endswith(ROOT) or name in DOTS or b".." in question.path.split(ROOT)
        if status.code != NO_SUCH_FILE or not question.may_miss or tricky:
            question.then(status)
            return
        real = normal(question.path)
        if real not in question.links:                       # it follows links, so that was not asked
            question.real, question.owed = status, 1
            question.done = self._server.own("resolve", b"lstat " + shown(real))
            self._look(question, real, [real])
            return
        link = question.links[real]
        if not isinstance(link, Status) or link.code != NO_SUCH_FILE:
            question.then(status)
            return

        def arrived(found: Found) -> None:
            question.then(found if isinstance(found, Status) else join(found, name))

        self.resolve(parent, arrived, False)


def _one_name(packet: memoryview) -> bytes:
    """Of REALPATH and READLINK: sections 6.9 and 6.10."""
    names = parse_names(packet)
    if len(names) != 1:
        raise RemoteProtocolError(f"the server names {len(names)} paths for one")
    name = names[0]
    if not name.startswith(ROOT) or b"\0" in name:
        raise RemoteProtocolError("the server's real path is none")
    return normal(name)
