"""The legacy scp protocol on the channel of an exec (`scp -f`, `scp -t`), decoded in passing.  Source: OpenSSH's scp.c
(source, rsource, sink, response).

The source sends records, each a line, and the sink answers each: NUL, or 1 or 2 and a line that says what is wrong.

    start    the sink's first answer                    -> record
    record   T   times of what comes next: kept, and answered by Weir; sent once that is permitted
             C   a file: asked                          -> asked -> (timed) -> answer -> data -> trailer -> result
             D   a directory: asked                     -> asked -> (timed) -> answer -> record, inside of it
             E   out of it                              -> answer -> record
             1, 2  what the source could not read: passed on
    denied   the source is answered 1 and the reason, so that it sends no bytes of it; a client that is the sink reads
             the same as a record.  The transfer goes on with the next.

This protocol has no way to ask the server where a path leads to.  `resolve` asks elsewhere (an SFTP channel of Weir's
own); without it paths are judged as they are written, and on a target with labels on paths every file carries all of
them, because a link could lead to any.  `scp -t PATH` writes to PATH, or into it where that is a directory, and only
the server knows which: both are asked, except where PATH ends with "/" or -d says that it is one.
"""
from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Final

from agent.contract.target import ContentLabel
from enforcer.core.desk import Ask, Desk, Verdict
from enforcer.protocols.ssh.sftp.paths import Labels, absolute, join, normal, shown, split, text
from enforcer.protocols.ssh.sftp.pieces import Pieces, Room
from enforcer.words.errors import RemoteProtocolError
from enforcer.words.operations import Request

LINE_LIMIT: Final = 4096
DEPTH: Final = 256                    # directories in each other
MASK: Final = bytes(byte if byte == 0x0A else 0x2A for byte in range(256))
START, RECORD, ASKED, TIMED, ANSWER, DATA, TRAILER, RESULT, OVER = range(9)
# do_times and sink: "T<mtime> <usec> <atime> <usec>", "C<mode> <size> <name>", "D<mode> 0 <name>"
_TIMES: Final = re.compile(rb"T\d{1,20} \d{1,6} \d{1,20} \d{1,6}", re.ASCII)
_ITEM: Final = re.compile(rb"([CD])([0-7]{4}) (\d{1,19}) ([^/\x00-\x1f\x7f]{1,1024})", re.ASCII | re.DOTALL)
UNSAID: Final = b"the connection ended before the transfer was whole"
Resolve = Callable[[bytes, Callable[[bytes | None], None]], None]


@dataclass(frozen=True, slots=True)
class Call:
    """A command line of scp's server side."""

    source: bool                      # -f: the server sends
    operands: tuple[bytes, ...]       # one, where it is the sink
    recursive: bool = False
    directory: bool = False           # -d: the operand must be one


def parse_call(words: tuple[bytes, ...]) -> Call | None:
    """Of words without any expansion but names of files.  None: it is no server side of scp, or not one of which Weir
    can tell where its files are."""
    if not words or words[0].rpartition(b"/")[2] != b"scp":
        return None
    flags, rest = b"", list(words[1:])
    while rest and rest[0].startswith(b"-") and len(rest[0]) > 1:
        flag = rest.pop(0)
        if flag == b"--":
            break
        flags += flag[1:]
    known = not set(flags) - set(b"ftrpdvq")
    if not known or (b"f" in flags) == (b"t" in flags) or not rest or (b"t" in flags and len(rest) != 1):
        return None
    for operand in rest:                  # the server names what `*` found, but not in which directories
        directory = operand.rstrip(b"/").rpartition(b"/")[0]
        if set(operand if b"t" in flags else directory) & set(b"*?["):
            return None
    return Call(b"f" in flags, tuple(rest), b"r" in flags, b"d" in flags)


@dataclass(frozen=True, slots=True)
class Item:
    """A C or D line."""

    line: bytes                       # with its end
    directory: bool
    mode: bytes
    size: int
    name: bytes


def parse_item(line: bytes) -> Item:
    """Names that lead out of where they belong are what a hostile server sends (CVE-2019-6111)."""
    match = _ITEM.fullmatch(line)
    if match is None or match[4] in (b".", b"..") or int(match[3]) >= 1 << 63:
        raise RemoteProtocolError("a record of scp is not what it must be")
    return Item(line + b"\n", match[1] == b"D", match[2], int(match[3]), match[4])


class Scp:
    """As `sftp.Gate`; `finished`: the client's end may be told to the server."""

    def __init__(
        self, desk: Desk, to_client: Callable[[bytes], None], to_server: Callable[[bytes], None], call: Call,
        labels: tuple[ContentLabel, ...] = (), payload: str = "none", finished: Callable[[], None] = lambda: None,
        home: bytes = b"", resolve: Resolve | None = None,
    ) -> None:
        self._desk, self._call, self._keep = desk, call, payload == "content"
        self._to_client, self._finished, self._home, self._resolve = to_client, finished, home, resolve
        self._to_source, self._to_sink = (to_server, to_client) if call.source else (to_client, to_server)
        self._labels = Labels(labels)
        self._all = self._labels.all if resolve is None else ()
        self._source, self._sink = bytearray(), bytearray()      # what came and waits
        self._state, self._times = START, b""
        self._inside: list[tuple[bytes, ...]] = []               # candidates for the real path of each directory
        self._item: Item | None = None         # None: E
        self._paths: tuple[bytes, ...] = ()    # of the item
        self._left = self._number = 0          # bytes of the file that are to come; the operation, 0: none
        self._masks = self._ended = self._running = False
        self._pieces: Pieces | None = None
        self._trouble = b""
        self._asking: Callable[[Verdict], None] | None = None

    @property
    def backlog(self) -> int:
        return len(self._source) + len(self._sink)

    # --- what comes ---

    def from_client(self, data: bytes) -> None:
        self._from_sink(data) if self._call.source else self._from_source(data)

    def from_server(self, data: bytes) -> None:
        self._from_source(data) if self._call.source else self._from_sink(data)

    def client_eof(self) -> None:
        self._ended = True
        self._run()

    def server_eof(self) -> None:
        self.closed()

    def closed(self) -> None:
        if self._state == OVER and not self._number and self._asking is None:
            return
        self._state = OVER
        if self._asking is not None:
            self._desk.withdraw(self._asking)
        if self._number:
            self._trouble = self._trouble or UNSAID
            self._book()

    def _from_source(self, data: bytes) -> None:
        if self._state == DATA and not self._source:
            taken = self._pass(data)
            data = data[taken:]
        if self._state != OVER:
            self._source += data
            self._run()

    def _from_sink(self, data: bytes) -> None:
        if self._state != OVER:
            self._sink += data
            self._run()
            if len(self._sink) > LINE_LIMIT:
                raise RemoteProtocolError("scp answers what it was not asked")

    def _run(self) -> None:
        if self._running:                      # a loop, not a recursion: a verdict may be there at once
            return
        self._running = True
        try:
            while self._step():
                pass
        finally:
            self._running = False
        waits = self._state in (ASKED, TIMED) or (self._state in (START, ANSWER, RESULT) and self._source)
        if self._ended and not waits:
            self._ended = False
            self._finished()

    def _step(self) -> bool:
        """False: more bytes are needed."""
        if self._state == RECORD:
            return self._record()
        if self._state == DATA:
            taken = self._pass(bytes(self._source))
            del self._source[:taken]
            return taken > 0
        if self._state == TRAILER:
            return self._trailer()
        if self._state in (START, TIMED, ANSWER, RESULT):
            answer = _answer(self._sink)
            if answer:
                self._answered(answer)
            return bool(answer)
        return False

    # --- records ---

    def _record(self) -> bool:
        line = _line(self._source)
        if line is None:
            return False
        if line[:1] in (b"\1", b"\2"):
            self._to_sink(line + b"\n")
            self._state = OVER if line[:1] == b"\2" else RECORD
        elif line[:1] == b"T":
            if _TIMES.fullmatch(line) is None:
                raise RemoteProtocolError("times of scp are not what they must be")
            self._times = line + b"\n"
            self._to_source(b"\0")
        elif line == b"E":
            self._leave()
        else:
            self._begin(parse_item(line))
        return True

    def _leave(self) -> None:
        if not self._inside:
            raise RemoteProtocolError("scp leaves a directory that it is not in")
        self._inside.pop()
        self._item, self._state = None, ANSWER
        self._to_sink(b"E\n")

    def _begin(self, item: Item) -> None:
        if item.directory and (not self._call.recursive or len(self._inside) >= DEPTH):
            raise RemoteProtocolError("scp sends a directory that nobody asked for")
        self._item, self._state = item, ASKED
        self._look(list(self._candidates(item.name)), [])

    def _candidates(self, name: bytes) -> tuple[bytes, ...]:
        """Where it may lie on the server."""
        if self._inside:
            return tuple(join(parent, name) for parent in self._inside[-1])
        if not self._call.source:
            operand = self._call.operands[0]
            inside = join(operand, name)
            known = self._call.directory or operand.rpartition(b"/")[2] in (b"", b".", b"..", b"~")
            return tuple(map(self._absolute, (inside,) if known else (operand, inside)))
        found = tuple(
            self._absolute(join(parent, name) if parent else name)
            for parent, last in map(_taken_apart, self._call.operands)
            if last == name or fnmatchcase(text(name), text(last))
        )
        if not found:
            raise RemoteProtocolError("the server sends a file that nobody asked for")
        return tuple(dict.fromkeys(found))

    def _absolute(self, path: bytes) -> bytes:
        """What is relative to a home that is not known stays so, and matches no rule for absolute paths."""
        if path == b"~" or path.startswith(b"~/"):
            path = path[2:] or b"."
        if path.startswith((b"/", b"~")):
            return path
        return absolute(self._home, path) if self._home else b"./" + path

    def _look(self, paths: list[bytes], found: list[bytes]) -> None:
        """The real paths, one after the other."""
        while paths and (self._resolve is None or not paths[0].startswith(b"/")):
            path = paths.pop(0)
            found.append(normal(path) if path.startswith(b"/") else path)
        if paths and self._resolve is not None:
            self._resolve(paths[0], partial(self._found, paths, found))
        else:
            self._ask(tuple(dict.fromkeys(found)))

    def _found(self, paths: list[bytes], found: list[bytes], real: bytes | None) -> None:
        if self._state != ASKED:
            return
        if real is None:
            self._deny(f"the server does not say where {text(paths[0])} is")
            self._run()
        else:
            self._look(paths[1:], [*found, real])

    # --- decisions ---

    def _ask(self, paths: tuple[bytes, ...]) -> None:
        item = self._item
        assert item is not None
        self._paths = paths
        name = "read" if self._call.source else "write"
        target, account = self._desk.target, self._desk.account
        requests = tuple(
            Request(f"scp:{name}", "File", (target, account, text(path)), (("path", text(path)),)) for path in paths)
        what = b"a directory" if item.directory else b"%d bytes" % item.size
        told = b"scp %s %s, mode %s, %s" % (name.encode(), b" or ".join(map(shown, paths)), item.mode, what)
        exact = b"\0".join((b"scp", name.encode(), *paths, self._times, item.line))
        labels = self._all or tuple(dict.fromkeys(label for path in paths for label in self._labels.of(path)))
        self._asking = self._decided
        self._desk.ask(Ask(f"scp-{name}", told, requests, exact, () if item.directory else labels,
                           not self._call.source), self._asking)

    def _decided(self, verdict: Verdict) -> None:
        self._asking = None
        if self._state == OVER:
            if verdict.permitted:
                self._desk.done(verdict.number, "cancelled")
            return
        if not verdict.permitted:
            hint = "; write / behind a directory" if len(self._paths) > 1 and not self._call.source else ""
            self._deny(verdict.reason + hint)
        elif verdict.masked and not self._call.source:
            reason = f"this would change what is masked for you: {', '.join(verdict.masked)}"
            self._desk.done(verdict.number, "denied", error=reason.encode())
            self._deny(reason)
        else:
            self._permit(verdict)
        self._run()

    def _permit(self, verdict: Verdict) -> None:
        item, self._number, self._masks = self._item, verdict.number, bool(verdict.masked)
        assert item is not None
        desk, number, keep, stream = self._desk, verdict.number, self._keep, "out" if self._call.source else "in"
        self._pieces = Pieces(Room(), lambda data: desk.piece(number, stream, data, keep))
        self._trouble, self._left = b"", item.size
        if self._times:
            self._to_sink(self._times)
            self._times, self._state = b"", TIMED
        else:
            self._to_sink(item.line)
            self._state = ANSWER

    def _deny(self, reason: str) -> None:
        """As the sink would: then the source sends no bytes.  A client that is the sink counts it as an error."""
        line = b"\1scp: " + shown(" ".join(reason.split()).encode()) + b"\n"
        self._times, self._state = b"", RECORD
        self._to_source(line)
        if self._call.source:
            self._to_client(line)

    # --- answers ---

    def _answered(self, answer: bytes) -> None:
        good, state, item = answer == b"\0", self._state, self._item
        if answer[:1] == b"\2":
            self._to_source(answer)
            self._trouble = answer[1:].strip()
            self.closed()
            self._state = OVER
        elif state == TIMED and good:
            assert item is not None
            self._state = ANSWER
            self._to_sink(item.line)
        else:
            self._to_source(answer)
            if not good and state != START:
                self._trouble = answer[1:].strip()
            self._go_on(state, good)

    def _go_on(self, state: int, good: bool) -> None:
        item = self._item
        if state == ANSWER and good and item is not None and not item.directory:
            self._state = DATA if item.size else TRAILER
            return
        if state == ANSWER and good and item is not None:
            self._inside.append(self._paths)
        if self._number:
            self._book()
        self._state = RECORD

    def _book(self) -> None:
        item, pieces = self._item, self._pieces
        assert item is not None
        assert pieces is not None
        whole = pieces.tag("read" if self._call.source else "wrote") or ("" if item.directory else "0 bytes")
        self._desk.done(self._number, "error" if self._trouble else "ok", whole, self._trouble)
        self._number = 0

    # --- content ---

    def _pass(self, data: bytes) -> int:
        """How many bytes of it belong to the file."""
        piece = data if len(data) <= self._left else data[:self._left]
        if piece:
            self._left -= len(piece)
            taken = piece.translate(MASK) if self._masks else piece
            assert self._pieces is not None
            self._pieces.append(taken)
            self._to_sink(taken)
        if not self._left:
            self._state = TRAILER
        return len(piece)

    def _trailer(self) -> bool:
        """Whether the source could read the whole file."""
        answer = _answer(self._source)
        if not answer:
            return False
        self._to_sink(answer)
        self._trouble = answer[1:].strip()
        self._state = RESULT
        return True


def _taken_apart(operand: bytes) -> tuple[bytes, bytes]:
    """An operand as (directory, last name); a directory of "" is where it begins."""
    stripped = operand.rstrip(b"/")
    if stripped.startswith(b"/"):
        return split(stripped)
    parent, _, name = stripped.rpartition(b"/")
    return parent, name


def _line(waiting: bytearray) -> bytes | None:
    """Takes a line, without its end."""
    end = waiting.find(b"\n", 0, LINE_LIMIT)
    if end < 0:
        if len(waiting) >= LINE_LIMIT:
            raise RemoteProtocolError("a line of scp does not end")
        return None
    line = bytes(waiting[:end])
    del waiting[:end + 1]
    return line


def _answer(waiting: bytearray) -> bytes:
    """Takes an answer (response()); b"" if it is not whole."""
    if not waiting:
        return b""
    if waiting[0] == 0:
        del waiting[:1]
        return b"\0"
    if waiting[0] > 2:
        raise RemoteProtocolError("an answer of scp is none")
    line = _line(waiting)
    return b"" if line is None else line + b"\n"
