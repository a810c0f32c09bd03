"""A session's channel: a command, a shell or a subsystem (RFC 4254 6), decided before the server hears of it."""
from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from agent.contract.target import Target
from enforcer.core.desk import Ask, Verdict
from enforcer.protocols.ssh.channels.channel import Channel, Line
from enforcer.protocols.ssh.channels.courses import Course, Streams, choose
from enforcer.protocols.ssh.messages import STDERR, Fields, Open, Request, show_printable
from enforcer.protocols.ssh.wanted import (
    COPIES,
    FILES,
    Wanted,
    want_command,
    want_shell,
    want_subsystem,
    want_terminal,
    want_variable,
)
from enforcer.words.commands import CLIENT, SERVER
from enforcer.words.decisions import DENY, PERMIT
from enforcer.words.errors import RemoteProtocolError
from enforcer.words.operations import Request as Asked

WAITING: Final = 64                   # requests that may wait behind one that is being decided,
ROOM: Final = 256 << 10               # and their bytes
VARIABLES: Final = 64
VALUES: Final = 128 << 10             # bytes of them all
UNREAD: Final = 64 << 10              # bytes that a client has no window for: then its user is told nothing more
TOLD: Final = 3.0                     # seconds that a client has, however busy its host is, to show its user why
LONGEST: Final = 256 << 10            # bytes of a command
NUMBER: Final = 4
COLUMNS: Final = 80                   # of a terminal whose client does not say
BEHIND: Final = 256 << 10             # bytes that may wait for a side before the other gets no more room



class SessionChannel(Channel):
    def __init__(self, line: Line, number: int, opened: Open) -> None:
        super().__init__(line, number, CLIENT, opened)
        self._inbox: deque[Request] = deque()              # what came while it is decided
        self._kept = bytearray()                           # data before anything runs
        self._ended = False
        self._deciding: Callable[[Verdict], None] | None = None
        self._operation = 0           # that runs
        self._course: Course | None = None
        self._tag = ""
        self._terminal: tuple[str, bytes] | None = None    # its name, "COLUMNSxROWS"
        self._variables: list[str] = []
        self._carried: list[Asked] = []                    # asked before, and held: the command asks for them too
        self._telling: Callable[[], None] | None = None

    # The crew

    def request(self, peer: int, request: Request) -> None:
        if peer == SERVER:
            self._from_server(request)
        elif self._deciding is not None or self._telling is not None:
            self._inbox.append(request)
            if len(self._inbox) > WAITING or sum(len(one.rest) for one in self._inbox) > ROOM:
                raise RemoteProtocolError("too many requests before the answer to one that waits")
        else:
            self._from_crew(request)

    def _from_crew(self, request: Request) -> None:
        known = _REQUESTS.get(request.name)
        if known is not None and (self._course is None or request.name in _WHILE):
            known(self, request)
        else:
            self.answer(CLIENT, request, False)

    def _pty(self, request: Request) -> None:
        if self._terminal is not None:         # a server has only one: its first
            self.answer(CLIENT, request, False)
            return
        fields = Fields(request.rest)
        name, columns, rows = fields.text(256), fields.number(), fields.number()
        if self._may(Ask("terminal", name.encode(), want_terminal(*self._place, name), request.rest), request):
            self._terminal = name, b"%dx%d" % (columns, rows)
            self.pass_request(CLIENT, request)

    def _env(self, request: Request) -> None:
        fields = Fields(request.rest)
        name, value = fields.text(1024), fields.text(32 << 10)
        if len(self._variables) >= VARIABLES or sum(map(len, self._variables)) + len(request.rest) > VALUES:
            self.answer(CLIENT, request, False)
            return
        wanted = want_variable(*self._place, name, value)
        if self._may(Ask("env", f"{name}={value}".encode(), wanted, request.rest), request):
            self._variables.append(f"{name}={value}")
            self.pass_request(CLIENT, request)

    def _may(self, ask: Ask, request: Request) -> bool:
        """What comes before a command: where it is held, the command is."""
        if b"\0" in ask.text:
            self.line.book.refuse(ask, *_NUL, lambda verdict: self.answer(CLIENT, request, False))
            return False
        decision = self.line.book.permits(ask)
        if decision.outcome == DENY:
            self.line.book.ask(ask, lambda verdict: self.answer(CLIENT, request, False))
            return False
        if decision.outcome != PERMIT:
            self._carried += [one for one in ask.requests if one not in self._carried]
        return True

    def _exec(self, request: Request) -> None:
        self._start(request, want_command(*self._place, Fields(request.rest).string(LONGEST)))

    def _shell(self, request: Request) -> None:
        self._start(request, want_shell(*self._place))

    def _subsystem(self, request: Request) -> None:
        self._start(request, want_subsystem(*self._place, Fields(request.rest).text(256)))

    def _start(self, request: Request, wanted: Wanted) -> None:
        requests = wanted.requests + tuple(self._carried)
        if self._terminal is not None and wanted.verb != "subsystem":
            requests += (self._asked("ssh:terminal", "Account"),)
        parameters = list(self._variables)
        if self._terminal is not None:
            parameters.append(f"terminal {self._terminal[0]} {self._terminal[1].decode()}")
        ask = Ask(wanted.verb, wanted.text, tuple(dict.fromkeys(requests)), request.name + b"\0" + request.rest,
                  wanted.labels, True, tuple(parameters))

        def decided(verdict: Verdict) -> None:
            self._deciding = None
            if self.server.closing:
                self.line.book.done(verdict.number, "cancelled")
            elif verdict.permitted and wanted.whole and verdict.masked:        # since it was approved
                reason = _unmaskable(verdict.masked)
                self.line.book.done(verdict.number, "denied", "", reason.encode())
                self._deny(request, f"permission denied: {reason}")
            elif verdict.permitted:
                self._run(request, wanted, verdict)
                self._go_on()
            else:
                self._deny(request, verdict.reason)

        self._deciding = decided
        why_not = self._why_not(wanted)
        if not why_not and wanted.whole and (masked := self.line.book.permits(ask).masked):
            why_not = "strict-masking", _unmaskable(masked)
        if why_not:
            self.line.book.refuse(ask, *why_not, decided)
        else:
            self.line.book.ask(ask, decided, self._tell)

    def _why_not(self, wanted: Wanted) -> tuple[str, str] | None:
        """What no policy permits: (rule, reason)."""
        if b"\0" in wanted.text and wanted.verb == "subsystem":
            return _NUL
        # A terminal edits what passes it, by rules that its client has set: the server would read other requests than
        # those that were decided.
        if self._terminal is not None and wanted.course in (FILES, COPIES):
            return "files-on-terminal", "files are not transferred on a terminal: ask for none (ssh -T)"
        return None

    @property
    def _place(self) -> tuple[Target, str]:
        return self.line.book.context.target, self.line.book.account

    def _asked(self, action: str, kind: str) -> Asked:
        return Asked(action, kind, (self.line.book.target, self.line.book.account))

    def _run(self, request: Request, wanted: Wanted, verdict: Verdict) -> None:
        self._operation = verdict.number
        streams = Streams(self.line.book, verdict.number, self.crew, self.server, self._terminal is not None,
                          lambda seconds: self.line.timer(self, seconds), self._fail, self._tell)
        columns = int(self._terminal[1].partition(b"x")[0]) or COLUMNS if self._terminal is not None else 0
        self._course = choose(streams, wanted, verdict, columns)
        if self._terminal is not None:
            self.line.book.note(verdict.number, "size", self._terminal[1])
        slot = self.owed[CLIENT].slot() if request.wants_reply else None

        def answered(success: bool, rest: bytes) -> None:
            if not success:
                self._stop("error", "the server refused it")
                self._course = None
            if slot is not None:
                self.owed[CLIENT].answer(slot, self._verdict(CLIENT, success))

        self.ask(SERVER, Request(request.name, True, request.rest), answered)

    def _fail(self, reason: str) -> None:
        self._tell(reason)
        self._tag = self._tag or "ended by Weir"
        self.ask(CLIENT, Request(b"exit-status", False, (1).to_bytes(NUMBER, "big")), None)
        self._stop("error", reason)
        self.end()

    def _stop(self, status: str, error: str = "") -> None:
        """Nothing of it runs any more."""
        if self._course is not None:
            self._course.closed()
        if self._operation:
            self.line.book.done(self._operation, status, self._tag, error.encode())
        self._operation = 0

    def _go_on(self) -> None:
        """With what came meanwhile, in its order."""
        if self._kept and self._course is not None:
            kept, self._kept = bytes(self._kept), bytearray()
            self._from_client(kept)
        while self._inbox and self._deciding is None and self._telling is None:
            self._from_crew(self._inbox.popleft())
        if self._ended and self._deciding is None and self._course is not None:
            self._ended = False
            self._course.ended(CLIENT)

    def _tell(self, line: str) -> None:
        """The client's user."""
        if self.crew.queued < UNREAD:
            self.crew.put(f"weir: {show_printable(line)}\r\n".encode(), STDERR)

    def _deny(self, request: Request, reason: str) -> None:
        """OpenSSH's client ends as soon as it reads the failure: first it shows why.  Its input is nobody's."""
        size = len(self._kept)
        self._kept.clear()
        self.settle(CLIENT, size)
        self._tell(reason)
        if not request.wants_reply:
            self.ask(CLIENT, Request(b"exit-status", False, (126).to_bytes(NUMBER, "big")), None)
            self.end()
            return

        def told() -> None:
            if self._telling is told:
                self._telling = None
                self.line.timer(self, 0)
                self.answer(CLIENT, request, False)
                self._go_on()

        self._telling = told
        self.line.timer(self, TOLD)
        self.ask(CLIENT, Request(b"keepalive@openssh.com", True, b""), lambda success, rest: told())

    def _change(self, request: Request) -> None:
        fields = Fields(request.rest)
        size = b"%dx%d" % (fields.number(), fields.number())
        if self._operation:
            self.line.book.note(self._operation, "size", size)
        if self._terminal is not None:
            self._terminal = self._terminal[0], size
            if self._course is not None:
                self._course.resize(int(size.partition(b"x")[0]) or COLUMNS)
        self.pass_request(CLIENT, request)

    def _signal(self, request: Request) -> None:
        named = Fields(request.rest).string(64) if request.name == b"signal" else b"break"
        if self._operation:
            self.line.book.note(self._operation, "signal", named)
        self.pass_request(CLIENT, request)

    def _pass(self, request: Request) -> None:
        self.pass_request(CLIENT, request)

    def _agent(self, request: Request) -> None:
        self._forward(request, "agent", "ssh:agent", b"auth-agent@openssh.com")

    def _x11(self, request: Request) -> None:
        self._forward(request, "x11", "ssh:x11", b"x11")

    def _forward(self, request: Request, verb: str, action: str, kind: bytes) -> None:
        def decided(verdict: Verdict) -> None:
            self._deciding = None
            if self.server.closing:
                self.line.book.done(verdict.number, "cancelled")
                return
            if verdict.permitted:
                self.line.book.done(verdict.number, "ok")
                self.line.expect(kind)
                self.pass_request(CLIENT, request)
            else:
                self._tell(verdict.reason)
                self.answer(CLIENT, request, False)
            self._go_on()

        self._deciding = decided
        self.line.book.ask(Ask(verb, verb.encode(), (self._asked(action, "Account"),), request.rest), decided,
                           self._tell)

    # Streams

    def received(self, peer: int, kind: int, data: bytes) -> None:
        if peer == SERVER:
            if self._course is None:
                raise RemoteProtocolError("the server sends data where nothing runs")
            self._course.from_server(data, kind == STDERR)
            self.settle(SERVER, len(data))
            self.settle(CLIENT)
        elif kind:
            raise RemoteProtocolError("a client sends no extended data")
        elif self._deciding is not None or self._telling is not None or self._course is None:
            self._kept += data            # bounded by the window, which is not given back
        else:
            self._from_client(data)

    def _from_client(self, data: bytes) -> None:
        assert self._course is not None
        self._course.from_client(data)
        self.settle(CLIENT, len(data))

    def settle(self, peer: int, size: int = 0) -> None:
        waiting = self.halves[1 - peer].queued
        if self._course is not None and peer == CLIENT:
            waiting += self._course.backlog + (self.crew.queued if self._course.answers else 0)
        keeps_up = waiting < BEHIND and not self.line.behind(1 - peer)
        self.halves[peer].give_back(size, keeps_up)

    def adjust(self, peer: int, amount: int) -> None:
        super().adjust(peer, amount)
        if peer == CLIENT:
            self.settle(CLIENT)

    def received_end(self, peer: int) -> None:
        if self._course is not None and (peer == SERVER or (self._deciding is None and not self._inbox)):
            self._course.ended(peer)
        elif peer == CLIENT:
            self._ended = True
        else:
            self.crew.end()

    def close(self, peer: int) -> None:
        if peer != CLIENT or not self._awaits_status:
            super().close(peer)
            return
        # A client closes once both sides have said all, and still hears how it ended: a server says that, and closes.
        self.crew.closed = True
        self.crew.forget()
        self.server.close()

    @property
    def _awaits_status(self) -> bool:
        return bool(self._operation and self.server.ended and not self._tag
                    and not self.server.closed and not self.crew.closed)

    def received_close(self, peer: int) -> None:
        if self._deciding is not None:
            self.line.book.withdraw(self._deciding)
        self._inbox.clear()
        self._kept.clear()
        self._telling = None
        self.line.timer(self, 0)
        self._stop("ok" if peer == SERVER or self._tag else "cancelled")

    def fired(self) -> None:
        if self._telling is not None:
            self._telling()
        elif self._course is not None:
            self._course.fired()

    # The server

    def _from_server(self, request: Request) -> None:
        if request.name == b"exit-status":
            self._tag = f"exit {Fields(request.rest).number()}"
            self._behind(request)
        elif request.name == b"exit-signal":
            self._tag = f"signal {show_printable(Fields(request.rest).text(64))}"
            self._behind(request)
        elif request.name in (b"xon-xoff", b"eow@openssh.com", b"keepalive@openssh.com"):
            self.pass_request(SERVER, request)
        else:
            self.answer(SERVER, request, False)

    def _behind(self, request: Request) -> None:
        """How it ended is said behind all that it said."""
        if self._course is not None:
            self._course.flush()
        self.pass_request(SERVER, request)

    def lost(self) -> None:
        if self._course is not None and self._operation:
            self._course.lost()

    def kill(self) -> None:
        """What runs is told to end: a server goes on with a command whose channel is lost (RFC 4254 6.9)."""
        if self._operation and not self.server.sent_close:
            self.line.book.note(self._operation, "signal", b"KILL")
            self.ask(SERVER, Request(b"signal", False, (4).to_bytes(NUMBER, "big") + b"KILL"), None)


# Servers in C end a text there: policy would see another name than they do.
_NUL: Final = "nul-in-name", "a name with a NUL in it"


def _unmaskable(labels: tuple[str, ...]) -> str:
    return f"what it moves may hold {', '.join(labels)}, which cannot be masked in it"


_REQUESTS: Final[dict[bytes, Callable[[SessionChannel, Request], None]]] = {
    b"pty-req": SessionChannel._pty,
    b"env": SessionChannel._env,
    b"exec": SessionChannel._exec,
    b"shell": SessionChannel._shell,
    b"subsystem": SessionChannel._subsystem,
    b"window-change": SessionChannel._change,
    b"signal": SessionChannel._signal,
    b"break": SessionChannel._signal,
    b"auth-agent-req@openssh.com": SessionChannel._agent,
    b"x11-req": SessionChannel._x11,
    b"eow@openssh.com": SessionChannel._pass,
    b"keepalive@openssh.com": SessionChannel._pass,
}
# What may come once something runs.
_WHILE: Final = frozenset((
    b"window-change", b"signal", b"break", b"eow@openssh.com", b"keepalive@openssh.com",
    b"auth-agent-req@openssh.com"))
