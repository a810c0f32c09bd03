"""The requests that name paths: each a visit, from its turn to its answer.

its turn (order.py) -> the real paths (resolver.py) -> the desk -> the server -> the answer
"""
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from enforcer.core.desk import Ask, Verdict
from enforcer.protocols.ssh.sftp.exchange import Exchange
from enforcer.protocols.ssh.sftp.handles import HANDLES
from enforcer.protocols.ssh.sftp.messages import (
    ATTRS,
    BAD_MESSAGE,
    EXTENDED_REPLY,
    FAILURE,
    FLAG_APPEND,
    FLAGS,
    HANDLE,
    LSTAT,
    NAME,
    NO_SUCH_FILE,
    OP_UNSUPPORTED,
    OPEN,
    OPENDIR,
    PERMISSION_DENIED,
    READLINK,
    REALPATH,
    STATUS,
    Fields,
    Status,
    parse_attributes,
    parse_names,
    parse_status,
    render_name,
    string,
)
from enforcer.protocols.ssh.sftp.order import Order, Step
from enforcer.protocols.ssh.sftp.paths import Labels, absolute, join, normal, shown, split
from enforcer.protocols.ssh.sftp.requests import (
    ENTRY,
    EXPAND,
    NAMES_BY_ID,
    TARGET,
    Form,
    Wish,
    body,
    sent,
    tell,
    whole,
)
from enforcer.protocols.ssh.sftp.resolver import Found, Resolver
from enforcer.protocols.ssh.sftp.traffic import Traffic, masked
from enforcer.words.errors import RemoteProtocolError

MOVED: Final = "the path came to lead elsewhere"


class Visit:
    """A request that names paths, on its way."""

    __slots__ = (
        "answer", "before", "client", "failure", "found", "late", "originals", "owed", "reals", "step", "verdict",
        "wish",
    )

    def __init__(self, client: int, wish: Wish, originals: tuple[bytes, ...]) -> None:
        self.client, self.wish, self.originals = client, wish, originals      # as the client meant them, absolute
        self.reals = list(originals)
        self.failure: Status | None = None     # a path has no real one: only to be told to whom policy permits it
        self.owed = 0
        self.late = False                      # people decided; in the meantime paths may have come to lead elsewhere
        self.verdict: Verdict | None = None    # theirs, while that is looked at,
        self.before: tuple[bytes, ...] = ()    # and the real paths that it is about
        self.answer: memoryview | None = None  # of OPEN and OPENDIR,
        self.found: Found | None = None        # and where the path led to after it
        self.step: Step


class Visits:
    __slots__ = ("_exchange", "_labels", "_opening", "_order", "_resolver", "_traffic", "home")

    def __init__(self, exchange: Exchange, traffic: Traffic, labels: Labels) -> None:
        self._exchange, self._traffic, self._labels = exchange, traffic, labels
        self._resolver, self._order = Resolver(exchange), Order()
        self._opening = 0                      # OPEN and OPENDIR that are not answered
        self.home = b""                        # where relative paths begin; b"": not known

    def begin(self) -> None:
        self._resolver.probe()

    def __len__(self) -> int:
        """Those that wait."""
        return len(self._order)

    def names(self, client: int, fields: Fields) -> None:
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

    def take(self, client: int, wish: Wish) -> None:
        if refusal := self._impossible(wish):
            self._exchange.refuse(client, *refusal)
            return
        visit = Visit(client, wish, tuple(
            path if way == EXPAND else absolute(self.home or b"/", path)
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
        if not self.home and EXPAND not in wish.form.ways and not all(path[:1] == b"/" for path in wish.paths):
            return FAILURE, "the server does not say where relative paths begin"
        if wish.form.kind in (OPEN, OPENDIR) and len(self._traffic) + self._opening >= HANDLES:
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
            visit.reals[index] = normal(absolute(self.home or b"/", original))
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
        if visit.verdict is not None:
            self._confirm(visit, visit.verdict)
        elif visit.wish.form.ways == (ENTRY, ENTRY) and visit.failure is None and self._matters(visit):
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
        requests = tuple(self._traffic.request(action, reals[index]) for action, index in wish.actions)
        exact = wish.form.verb.encode() + b"\0" + body(wish, tuple(reals[:len(wish.paths)]))
        carried = (label for real in reals for label in find(real)) if wish.leaks or wish.reads else ()
        labels = tuple(dict.fromkeys(carried))
        ask = Ask(wish.form.verb, tell(wish, reals), requests, exact, labels, wish.mutates)
        self._exchange.decide(ask, partial(self._decided, visit))
        visit.late = True

    def _decided(self, visit: Visit, verdict: Verdict) -> None:
        if visit.late and verdict.permitted and visit.failure is None and visit.wish.paths:
            visit.verdict, visit.before = verdict, tuple(visit.reals)
            self._resolve(visit)
        else:
            self._act(visit, verdict)

    def _confirm(self, visit: Visit, verdict: Verdict) -> None:
        if visit.failure is None and tuple(visit.reals) == visit.before:
            self._act(visit, verdict)
            return
        self._exchange.done(verdict.number, "error", error=MOVED.encode())
        self._end(visit, PERMISSION_DENIED, MOVED)
        self._order.leave(visit.step)

    def _act(self, visit: Visit, verdict: Verdict) -> None:
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
        handle = self._traffic.open(packet, verdict.number, visit.reals[0], visit.wish.form.kind == OPENDIR)
        if found != visit.reals[0]:
            self._traffic.drop(handle)
            self._exchange.done(verdict.number, "error", error=MOVED.encode())
            self._end(visit, PERMISSION_DENIED, MOVED)
            return
        self._opening -= 1
        handle.reads, handle.writes = visit.wish.reads, visit.wish.writes
        handle.appends = bool(visit.wish.flags & FLAG_APPEND)
        handle.masks = bool(verdict.masked)
        self._exchange.relay(visit.client, packet)

