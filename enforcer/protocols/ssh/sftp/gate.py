"""The gate of one SFTP channel: bytes of both sides in, bytes for both sides out; draft-ietf-secsh-filexfer-02.

    begin     nothing came           INIT of the client          -> greeted   INIT 3 to the server
    greeted   VERSION is awaited     VERSION of the server       -> lost      VERSION 3 to the client, REALPATH "."
    lost      home is not known      the answer                  -> ready
    ready     requests of the client; what came earlier waited

A request that names a path: its turn (order.py) -> real paths (resolver.py) -> the desk -> the server -> answer.
A request that names a handle: handles.py.  Everything is answered once, with the id that the client gave it.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from agent.contract.target import ContentLabel
from enforcer.protocols.ssh.desk import Ask, Desk, Verdict
from enforcer.protocols.ssh.sftp.exchange import Exchange
from enforcer.protocols.ssh.sftp.framing import Framing
from enforcer.protocols.ssh.sftp.handles import EXTENSIONS as OF_HANDLES
from enforcer.protocols.ssh.sftp.handles import HANDLES, Handles, masked
from enforcer.protocols.ssh.sftp.messages import (
    ATTRS,
    BAD_MESSAGE,
    CLOSE,
    EXTENDED,
    EXTENDED_REPLY,
    EXTENSIONS,
    FAILURE,
    FLAG_APPEND,
    FLAGS,
    FSETSTAT,
    FSTAT,
    HANDLE,
    INIT,
    LSTAT,
    NAME,
    NO_SUCH_FILE,
    OP_UNSUPPORTED,
    OPEN,
    OPENDIR,
    PERMISSION_DENIED,
    READ,
    READDIR,
    READLINK,
    REALPATH,
    STATUS,
    VERSION,
    VERSION_3,
    WRITE,
    Fields,
    Status,
    parse_attributes,
    parse_names,
    parse_status,
    parse_version,
    render,
    render_limits,
    render_name,
    string,
)
from enforcer.protocols.ssh.sftp.order import Order, Step
from enforcer.protocols.ssh.sftp.paths import Labels, absolute, join, normal, shown, split
from enforcer.protocols.ssh.sftp.requests import (
    ENTRY,
    EXPAND,
    EXTENDED_FORMS,
    FORMS,
    TARGET,
    Form,
    Wish,
    body,
    parse_wish,
    sent,
    tell,
    whole,
)
from enforcer.protocols.ssh.sftp.resolver import Found, Resolver
from enforcer.words.errors import RemoteProtocolError

BEGIN, GREETED, LOST, READY, OVER = range(5)
PENDING: Final = 1024                 # requests that wait for a decision or for others
BY_HANDLE: Final = frozenset((CLOSE, READ, WRITE, FSTAT, FSETSTAT, READDIR))
LIMITS, NAMES_BY_ID = b"limits@openssh.com", b"users-groups-by-id@openssh.com"
MOVED: Final = "the path led elsewhere by the time it was opened"


class Visit:
    """A request that names paths, on its way."""

    __slots__ = ("answer", "client", "failure", "found", "originals", "owed", "reals", "step", "wish")

    def __init__(self, client: int, wish: Wish, originals: tuple[bytes, ...]) -> None:
        self.client, self.wish, self.originals = client, wish, originals      # as the client meant them, absolute
        self.reals = list(originals)
        self.failure: Status | None = None     # a path has no real one: only to be told to whom policy permits it
        self.owed = 0
        self.answer: memoryview | None = None  # of OPEN and OPENDIR,
        self.found: Found | None = None        # and where the path led to after it
        self.step: Step


class Gate:
    """`to_client` and `to_server` are called with whole packets; `finished` once, when the client has sent its end and
    nothing of it waits any more: then the server may be told the end.  `say`: a line for the client's user (of a
    denial, of a hold), where the channel has a place for it; not more than a hundred in a session."""

    def __init__(
        self, desk: Desk, to_client: Callable[[bytes], None], to_server: Callable[[bytes], None],
        labels: tuple[ContentLabel, ...] = (), payload: str = "none", finished: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._to_client, self._to_server, self._finished = to_client, to_server, finished
        self._exchange = Exchange(desk, to_client, to_server, say)
        self._exchange.after = self._run
        self._labels = Labels(labels)
        self._handles = Handles(self._exchange, self._labels.of, payload == "content")
        self._resolver, self._order = Resolver(self._exchange), Order()
        self._client, self._server = Framing(), Framing()
        self._phase, self._home = BEGIN, b""
        self._offered: set[bytes] = set()      # extensions of the server
        self._opening = 0                      # OPEN and OPENDIR that are not answered
        self._ended = self._running = False

    @property
    def client_backlog(self) -> int:
        """Bytes of the client that were neither sent nor answered."""
        return self._client.waiting + self._handles.waiting

    @property
    def server_backlog(self) -> int:
        """Bytes of the server that are no whole packet yet: never more than one of them."""
        return self._server.waiting

    @property
    def backlog(self) -> int:
        return self.client_backlog + self.server_backlog

    # --- what comes ---

    def from_client(self, data: bytes) -> None:
        if self._phase == OVER:
            return
        self._client.feed(data)
        self._run()

    def from_server(self, data: bytes) -> None:
        if self._phase == OVER:
            return
        self._server.feed(data)
        while self._phase != OVER and (packet := self._server.next()) is not None:
            self._hear(packet)
        self._run()

    def client_eof(self) -> None:
        """What it sent before is still done."""
        self._ended = True
        self._run()

    def server_eof(self) -> None:
        """Nothing is answered any more."""
        self.closed()

    def closed(self) -> None:
        """The channel is gone: book what is open.  Nothing is sent after it."""
        if self._phase == OVER:
            return
        self._phase = OVER
        self._handles.close()
        self._exchange.close()

    def _run(self) -> None:
        if self._running:
            return
        self._running = True
        try:
            while not self._stalls() and (packet := self._client.next()) is not None:
                self._take(packet)
        finally:
            self._running = False
        if self._ended and not self._stalls() and not len(self._order) and not self._handles.queued:
            self._ended, self._exchange.sealed = False, True
            self._finished()

    def _stalls(self) -> bool:
        waits = len(self._order) + self._handles.queued >= PENDING
        return waits or self._exchange.full or self._phase not in (BEGIN, READY)

    # --- the beginning ---

    def _begin(self, packet: memoryview) -> None:
        if packet[4] != INIT:
            raise RemoteProtocolError(f"the client begins with type {packet[4]}")
        parse_version(packet)
        self._phase = GREETED
        done = self._exchange.own("init", b"init")
        self._to_server(render(INIT, VERSION_3))
        done(None)

    def _greet(self, packet: memoryview) -> None:
        """What the server offers and Weir knows is offered to the client (section 4)."""
        if packet[4] != VERSION:
            raise RemoteProtocolError(f"the server begins with type {packet[4]}")
        version, pairs = parse_version(packet)
        if version != VERSION_3:
            raise RemoteProtocolError(f"the server speaks version {version} of SFTP")
        known = [(name, value) for name, value in pairs if EXTENSIONS.get(name) == value]
        self._offered = {name for name, _ in known}
        self._phase = LOST
        self._to_client(render(VERSION, VERSION_3, *(string(name) + string(value) for name, value in known)))
        done = self._exchange.own("resolve", b"realpath .")
        self._exchange.ask(REALPATH, string(b"."), (NAME, STATUS), partial(self._arrive, done))

    def _arrive(self, done: Callable[[Status | None], None], kind: int, packet: memoryview) -> None:
        """Where relative paths begin; without it there are none."""
        done(parse_status(packet) if kind == STATUS else None)
        names = parse_names(packet) if kind == NAME else []
        if len(names) == 1 and names[0].startswith(b"/") and b"\0" not in names[0]:
            self._home = normal(names[0])
        self._phase = READY

    def _hear(self, packet: memoryview) -> None:
        if self._phase == GREETED:
            self._greet(packet)
            return
        if self._phase == BEGIN:
            raise RemoteProtocolError("the server speaks first")
        if len(packet) < 9:
            raise RemoteProtocolError("the server's packet has no id")
        flight = self._exchange.land(packet)
        if flight.then is None:
            self._handles.arrived(flight, packet)
        else:
            flight.then(packet[4], packet)

    # --- requests ---

    def _take(self, packet: memoryview) -> None:
        if self._phase == BEGIN:
            self._begin(packet)
            return
        if len(packet) < 9:
            raise RemoteProtocolError("the client's packet has no id")
        kind, client = packet[4], int.from_bytes(packet[5:9], "big")
        if kind == INIT:
            raise RemoteProtocolError("the client begins twice")
        self._exchange.claim(client)
        if kind in BY_HANDLE:
            self._handles.take(client, packet)
        elif kind == EXTENDED:
            self._extended(client, packet)
        elif (form := FORMS.get(kind)) is not None:
            self._visit(client, parse_wish(form, Fields(packet)))
        else:
            self._exchange.refuse(client, OP_UNSUPPORTED, f"requests of type {kind} are not known")

    def _extended(self, client: int, packet: memoryview) -> None:
        fields = Fields(packet)
        name = bytes(fields.view())
        if name not in self._offered:
            self._exchange.refuse(client, OP_UNSUPPORTED, "this extension is not offered")
        elif name in OF_HANDLES or name == b"copy-data":
            self._handles.line_up(client, packet)
        elif name == LIMITS:
            fields.end()
            self._limits(client)
        elif name == NAMES_BY_ID:
            self._names(client, fields)
        else:
            self._visit(client, parse_wish(EXTENDED_FORMS[name], fields))

    def _limits(self, client: int) -> None:
        """Nothing of the server's files: no question of policy."""
        done = self._exchange.own("limits", b"limits")

        def arrived(kind: int, packet: memoryview) -> None:
            done(parse_status(packet) if kind == STATUS else None)
            if kind == STATUS:
                self._exchange.relay(client, packet)
            else:
                self._exchange.reply(client, render_limits(client, packet, HANDLES))

        self._exchange.forward(client, EXTENDED, string(LIMITS), (EXTENDED_REPLY, STATUS), arrived)

    def _names(self, client: int, fields: Fields) -> None:
        """Names of users and groups are what the files of them list."""
        ids = [fields.view(), fields.view()]
        fields.end()
        if any(len(some) % 4 for some in ids):
            raise RemoteProtocolError("ids of users or groups end within one")
        form = Form("users-groups-by-id", (), (("sftp:list", 0), ("sftp:list", 1)), (EXTENDED_REPLY, STATUS),
                    extension=NAMES_BY_ID)
        rest = b"".join(string(bytes(some)) for some in ids)
        visit = Visit(client, Wish(form, (), rest), (b"/etc/passwd", b"/etc/group"))
        visit.step = Step((), False, partial(self._judge, visit))
        self._order.enter(visit.step)

    def _visit(self, client: int, wish: Wish) -> None:
        if refusal := self._impossible(wish):
            self._exchange.refuse(client, *refusal)
            return
        visit = Visit(client, wish, tuple(
            path if way == EXPAND else absolute(self._home or b"/", path)
            for way, path in zip(wish.form.ways, wish.paths, strict=True)
        ))
        if TARGET in wish.form.ways:           # the text of a link means what it means where the link is
            visit.originals = (absolute(split(visit.originals[1])[0], wish.paths[0]), visit.originals[1])
        visit.step = Step(tuple(map(normal, visit.originals)), wish.mutates, partial(self._resolve, visit))
        if wish.form.kind in (OPEN, OPENDIR):
            self._opening += 1
        self._order.enter(visit.step)

    def _impossible(self, wish: Wish) -> tuple[int, str] | None:
        """What needs no decision: no server could do it."""
        empty = wish.form.kind == REALPATH or EXPAND in wish.form.ways
        if any(b"\0" in path for path in wish.paths):
            return BAD_MESSAGE, "a path has a NUL in it"
        if not all(wish.paths) and not empty:
            return NO_SUCH_FILE, "a path is empty"
        if wish.flags & ~FLAGS:
            return OP_UNSUPPORTED, "flags that are not known"
        if not self._home and EXPAND not in wish.form.ways and not all(path[:1] == b"/" for path in wish.paths):
            return FAILURE, "the server does not say where relative paths begin"
        if wish.form.kind in (OPEN, OPENDIR) and len(self._handles) + self._opening >= HANDLES:
            return FAILURE, "too many files are open"
        return None

    # --- real paths ---

    def _resolve(self, visit: Visit) -> None:
        ways = visit.wish.form.ways
        visit.owed = len(ways) - (TARGET in ways)
        for index, (way, path) in enumerate(zip(ways, visit.originals, strict=True)):
            if way == EXPAND:
                self._resolver.expand(visit.wish.form.extension, path, partial(self._found, visit, index, b""))
            elif way != TARGET and whole(way, path):
                self._resolver.resolve(path, partial(self._found, visit, index, b""))
            elif way != TARGET:
                parent, name = split(path)
                self._resolver.resolve(parent, partial(self._found, visit, index, name), False)

    def _found(self, visit: Visit, index: int, name: bytes, found: Found) -> None:
        original = visit.originals[index]
        if isinstance(found, Status):
            visit.failure = visit.failure or found
            visit.reals[index] = normal(absolute(self._home or b"/", original))
        else:
            visit.reals[index] = join(found, name) if name else found
        visit.owed -= 1
        if visit.owed:
            return
        if TARGET in visit.wish.form.ways and visit.failure is None:
            self._lead(visit)
        else:
            self._judge(visit)

    def _lead(self, visit: Visit) -> None:
        """Where a link would lead to; what is not there may come later."""
        target = absolute(split(visit.reals[1])[0], visit.wish.paths[0])

        def arrived(found: Found) -> None:
            visit.reals[0] = normal(target) if isinstance(found, Status) else found
            self._judge(visit)

        self._resolver.resolve(target, arrived)

    # --- the decision ---

    def _judge(self, visit: Visit) -> None:
        """A rename may take a directory along, with labels on what is in it: only then it matters what it is."""
        if visit.wish.form.ways == (ENTRY, ENTRY) and visit.failure is None and self._matters(visit):
            done = self._exchange.own("resolve", b"lstat " + shown(visit.reals[0]))
            then = partial(self._weigh, visit, done)
            self._exchange.ask(LSTAT, string(visit.reals[0]), (ATTRS, STATUS), then)
        else:
            self._ask(visit, self._labels.of)

    def _matters(self, visit: Visit) -> bool:
        return any(self._labels.of(real) != self._labels.below(real) for real in visit.reals)

    def _weigh(self, visit: Visit, done: Callable[[Status | None], None], kind: int, packet: memoryview) -> None:
        directory = kind == ATTRS and parse_attributes(Fields(packet)).is_directory is not False
        done(parse_status(packet) if kind == STATUS else None)
        self._ask(visit, self._labels.below if directory else self._labels.of)

    def _ask(self, visit: Visit, find: Callable[[bytes], tuple[str, ...]]) -> None:
        wish, reals = visit.wish, visit.reals
        requests = tuple(self._handles.request(action, reals[index]) for action, index in wish.actions)
        exact = wish.form.verb.encode() + b"\0" + body(wish, tuple(reals[:len(wish.paths)]))
        carried = (label for real in reals for label in find(real)) if wish.leaks or wish.reads else ()
        labels = tuple(dict.fromkeys(carried))
        ask = Ask(wish.form.verb, tell(wish, reals), requests, exact, labels, wish.mutates)
        self._exchange.decide(ask, partial(self._decided, visit))

    def _decided(self, visit: Visit, verdict: Verdict) -> None:
        if not verdict.permitted:
            self._end(visit, PERMISSION_DENIED, verdict.reason)
        elif visit.failure is not None:
            self._exchange.finish(verdict.number, visit.failure)
            self._end(visit, visit.failure.code, visit.failure.message.decode("utf-8", "backslashreplace"))
        elif verdict.masked and visit.wish.leaks:
            self._exchange.done(verdict.number, "denied", error=masked(verdict).encode())
            self._exchange.tell(masked(verdict))
            self._end(visit, PERMISSION_DENIED, masked(verdict))
        elif visit.wish.form.answered:
            self._exchange.reply(visit.client, render_name(visit.client, visit.reals[0]))
            self._exchange.finish(verdict.number, None)
        else:
            self._forward(visit, verdict)
        self._order.leave(visit.step)

    def _end(self, visit: Visit, code: int, reason: str) -> None:
        if visit.wish.form.kind in (OPEN, OPENDIR):
            self._opening -= 1
        self._exchange.refuse(visit.client, code, reason)

    def _forward(self, visit: Visit, verdict: Verdict) -> None:
        wish, form = visit.wish, visit.wish.form
        paths = tuple(
            path if way == TARGET else sent(way, original, real) for way, path, original, real in
            zip(form.ways, wish.paths, visit.originals, visit.reals, strict=False)
        )
        opens = form.kind in (OPEN, OPENDIR)
        then = partial(self._opened if opens else self._answered, visit, verdict)
        self._exchange.forward(visit.client, form.kind, body(wish, paths), form.answers, then)
        if opens:
            self._resolver.resolve(visit.reals[0], partial(self._looked, visit, verdict))
        elif wish.mutates:
            self._resolver.forget()

    # --- answers ---

    def _answered(self, visit: Visit, verdict: Verdict, kind: int, packet: memoryview) -> None:
        status = parse_status(packet) if kind == STATUS else None
        if kind == ATTRS:
            fields = Fields(packet)
            parse_attributes(fields)
            fields.end()
        elif kind == NAME and visit.wish.form.kind == READLINK and len(parse_names(packet)) != 1:
            raise RemoteProtocolError("the server names more than one target of a link")
        self._exchange.finish(verdict.number, status if status is not None and status.code else None)
        self._exchange.relay(visit.client, packet)

    def _opened(self, visit: Visit, verdict: Verdict, kind: int, packet: memoryview) -> None:
        visit.answer = memoryview(bytes(packet))
        self._hand_out(visit, verdict)

    def _looked(self, visit: Visit, verdict: Verdict, found: Found) -> None:
        visit.found = found
        self._hand_out(visit, verdict)

    def _hand_out(self, visit: Visit, verdict: Verdict) -> None:
        """Both are there: what the server opened, and that the path still leads there."""
        packet, found = visit.answer, visit.found
        if packet is None or found is None or self._exchange.closed:
            return
        if packet[4] != HANDLE:
            self._exchange.finish(verdict.number, parse_status(packet))
            self._opening -= 1
            self._exchange.relay(visit.client, packet)
            return
        handle = self._handles.open(packet, verdict.number, visit.reals[0], visit.wish.form.kind == OPENDIR)
        if found != visit.reals[0]:
            self._handles.drop(handle)
            self._exchange.done(verdict.number, "error", error=MOVED.encode())
            self._end(visit, PERMISSION_DENIED, MOVED)
            return
        self._opening -= 1
        handle.reads, handle.writes = visit.wish.reads, visit.wish.writes
        handle.appends = bool(visit.wish.flags & FLAG_APPEND)
        handle.masks = bool(verdict.masked)
        self._exchange.relay(visit.client, packet)

