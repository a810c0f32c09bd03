"""SSH: the layer that the edge runs.

Theory: Weir is the crew's server and the server's client.  The crew authenticates by attribution; once it has, its user
name decides what it is asked as (`connect`), which credential is fetched, and the server is dialled and logged into
before the crew is told that it is in.  From then on messages go through `Mux`, which decides each channel.

Both transports are asyncssh's (wire.py), which has tasks and timers: what these write is `push`ed.  Everything that is
said, bytes and records alike, stands in one queue and leaves in its order.
"""
from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from agent.contract.credential import Credential
from enforcer.core.book import Book
from enforcer.core.context import Context
from enforcer.core.hiding import hide
from enforcer.core.sessions import refused, session_opened
from enforcer.protocols.ssh import wire
from enforcer.protocols.ssh.joining import join
from enforcer.protocols.ssh.manner import SshManner
from enforcer.protocols.ssh.mux import Mux
from enforcer.protocols.ssh.wire import BY_APPLICATION, PROTOCOL, CrewWire, ServerWire
from enforcer.words import commands as words
from enforcer.words import events, inputs
from enforcer.words.commands import CLIENT, SERVER, CloseConnection, Command, Record, SendData
from enforcer.words.decisions import PERMIT
from enforcer.words.errors import AuthenticationError, ProtocolError
from enforcer.words.operations import Request

LOG = logging.getLogger("weir.ssh")
LONGEST: Final = 256                  # characters of what a client calls itself that are recorded
_THROUGH: Final = (inputs.ThroughOpened, inputs.ThroughRefused, inputs.ThroughDials, inputs.ThroughData,
                   inputs.ThroughFull, inputs.ThroughEnded, inputs.ThroughClosed)


class SshLayer:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._out: list[Command] = []
        self._depth = 0                        # of calls that will take what is said
        self.book = Book(context, self._say, SshManner())
        self._mux = Mux(self.book, self._send, self._say, self._behind)
        shared: dict[object, Any] = {} if context.shared is None else context.shared
        if "ssh" not in shared:
            shared["ssh"] = wire.crew_options(context.target)
        self._methods = wire.methods(context.target)
        self._crew = CrewWire(CLIENT, self, shared["ssh"], self._methods)
        self._server: ServerWire | None = None
        self._credential: Credential | None = None
        self._address = ""
        self._entry: Callable[[str], None] = _nobody       # is told once the server has let Weir in, or why not
        self._opened = self._denied = self._over = False
        self._login = 0                        # the operation
        self._ending: inputs.Ended | None = None
        self._bug: Exception | None = None

    @property
    def state(self) -> str:
        if not self._opened:
            return "login"
        return "held" if self.book.held else "active" if self.book.busy else "idle"

    @property
    def operations(self) -> int:
        return self.book.operations

    # core.layer.Layer

    def start(self) -> list[Command]:
        self._depth += 1
        self._crew.open()
        return self._take()

    def receive(self, peer: int, data: bytes) -> list[Command]:
        self._depth += 1
        side = self._crew if peer == CLIENT else self._server
        if side is not None and not self._over:
            side.feed(data)
        self._check()
        self._finish()
        return self._take()

    def handle(self, event: inputs.Input) -> list[Command]:
        self._depth += 1
        if not self._over:
            self._happened(event)
            self._finish()
        return self._take()

    def _finish(self) -> None:
        """Where it is to end once what runs has.  A client that reads its goodbye shows nothing of what came before."""
        if self._ending is not None and not self.book.busy and not self._mux.ending and not self._over:
            self._end(self._ending.reason)

    def refuse(self, error: Exception) -> list[Command]:
        self._depth = 1
        if isinstance(error, ProtocolError):
            self._close(str(error), f"protocol error: {error}", PROTOCOL)
        else:
            self._close("internal error of Weir: nothing more is forwarded", "bug")
        return self._take()

    def _happened(self, event: inputs.Input) -> None:
        if isinstance(event, inputs.CredentialReady):
            if event.credential.user == self.book.account and _is_cut(self.book.account):
                self._fail(f"{self.book.account}: servers take what is before : or / for the account; where it is one, "
                           "a credential has to name it as its user")
                return
            self._credential = event.credential
            self._say(words.OpenConnection())  # not before: the server speaks first, and somebody must hear it
        elif isinstance(event, inputs.Connected):
            self._address = event.address
            self._reach()
        elif isinstance(event, inputs.CredentialFailed):
            self._fail(f"no credential for {self.book.account}: {event.reason}")
        elif isinstance(event, inputs.ConnectFailed):
            self._fail(f"target {self.book.target}: {event.reason}")
        elif isinstance(event, inputs.ConnectionLost):
            self._lost(event)
        elif isinstance(event, inputs.HoldOpened):
            self.book.opened(event)
        elif isinstance(event, inputs.HoldAnswered):
            self.book.answered(event)
            self._mux.settle()        # what waited for it may have gone on
        elif isinstance(event, inputs.TimerFired):
            self.book.fired(event.name)
            self._mux.fired(event.name)
        elif isinstance(event, _THROUGH):
            self._mux.carried(event)
        elif isinstance(event, inputs.Ended):
            self._ended(event)
        elif isinstance(event, inputs.RecordingFailed):
            self._close(f"nothing can be recorded, so nothing is forwarded: {event.reason}", "recording failed")

    # What is said, in order

    def _say(self, command: Command) -> None:
        self._out.append(command)
        if not self._depth:
            self._context.push(self._drain())

    def _take(self) -> list[Command]:
        self._depth -= 1
        return self._drain()

    def _drain(self) -> list[Command]:
        out, self._out = self._out, []
        return join(out)

    def _send(self, peer: int, message: bytes) -> None:
        side = self._crew if peer == CLIENT else self._server
        if side is not None:
            side.send(message)

    def _behind(self, peer: int) -> bool:
        side = self._crew if peer == CLIENT else self._server
        return side is not None and side.behind

    # wire.Events

    def written(self, peer: int, data: bytes, answers: bool) -> None:
        self._say(SendData(peer, data, answers))

    def message(self, peer: int, payload: bytes) -> None:
        self._mux.message(peer, payload)

    def full(self, peer: int, on: bool) -> None:
        self._say(words.PauseReading(peer) if on else words.ResumeReading(peer))

    def relieved(self, peer: int) -> None:
        self._mux.settle()

    def admit(self, account: str, then: Callable[[str], None]) -> None:
        """Decide, log in at the server; what comes is told by events."""
        self.book.account = account
        context = self._context
        decision = context.gate.decide(
            context.principal, (Request("connect", "Account", (context.target.name, account)),))
        if decision.outcome != PERMIT:
            reason = decision.reason or f"connecting as {account} is held, and a connection cannot wait"
            self._refused(reason, decision.rules)
            then(f"weir: permission denied: {reason}")
            return
        self._entry = then
        self._say(words.Login("", account))

    def ready(self, peer: int) -> None:
        if peer == CLIENT:
            self._say(words.LoginDone())
            return
        self._open()

    def over(self, peer: int, error: Exception | None) -> None:
        if self._over:
            return
        said = wire.explain(error)
        if peer == SERVER and not self._opened:
            self._fail(f"login at target {self.book.target}: {said or 'it closed the connection'}")
        elif peer == SERVER:
            self._close(f"target {self.book.target}: {said or 'it closed the connection'}",
                        f"server lost: {said}" if said else "server closed")
        elif self._mux.carries:                # last words have their way through the server first: `_lost`
            self._say(CloseConnection(CLIENT, said))
        else:
            self._close("", f"client lost: {said}" if said else "client closed")

    def broken(self, error: Exception) -> None:
        self._bug = error
        if not self._depth:                    # nobody is there who could be told
            LOG.error("session %s: %s", self._context.session, type(error).__name__)
            self._close("internal error of Weir: nothing more is forwarded", "bug")

    def _check(self) -> None:
        error, self._bug = self._bug, None
        if error is not None:
            raise error

    # Login

    def _reach(self) -> None:
        if self._credential is None or not self._address or self._server is not None:
            return
        if not self._context.target.known_hosts:
            self._fail(f"target {self.book.target} has no known host keys")
            return
        try:
            options = wire.server_options(self._context.target, self._credential)
        except AuthenticationError as error:
            self._fail(str(error))
            return
        self._server = ServerWire(SERVER, self, options)
        self._server.set_address(self._address.rpartition(":")[0].strip("[]"))
        self._login = self.book.own("login", f"{self._credential.user} at {self._address}".encode())
        self._server.open()

    def _open(self) -> None:
        assert self._server is not None
        self._opened = True
        self._say(Record(self._session_opened()))
        self.book.done(self._login, "ok")
        self._entry("")

    def _fail(self, reason: str) -> None:
        """The server does not let Weir in: the client is told, and it is over."""
        if self._opened or self._denied or self._over:
            return
        self.book.done(self._login, "error", "", reason.encode())
        self._refused(reason)
        self._entry(f"weir: {reason}")

    def _session_opened(self) -> events.SessionOpened:
        assert self._server is not None
        context, server = self._context, self._server
        user = self._credential.user if self._credential else ""
        process = context.principal.owner.process
        return session_opened(
            context, "ssh", self.book.account, client_tls=self._crew.describe(),
            upstream=f"{user}@{self._address} {server.describe()} {server.server[:LONGEST]}",
            application=self._crew.client[:LONGEST], argv=tuple(map(hide, process.argv)) if process else ())

    def _refused(self, reason: str, rules: tuple[str, ...] = ()) -> None:
        """On record, once: the first reason is the one."""
        if self._denied:
            return
        self._denied = True
        self._say(Record(refused(self._context, reason, rules)))

    # The end

    def _lost(self, event: inputs.ConnectionLost) -> None:
        who = "client" if event.peer == CLIENT else "server"
        reason = f"{who} lost: {event.reason}" if event.reason else f"{who} closed"
        if event.peer == CLIENT and self._crew.distrusts:
            # OpenSSH's client closes without a word.
            self._say(words.Count("unknown_host_key"))
            self._refused("the client does not trust Weir's host key")
        if event.peer == SERVER and not self._opened:
            if self._server is None:
                self._lost_at_login(event.reason)
            else:                     # what the server has sent before may say why
                self._server.when_read(lambda: self._lost_at_login(event.reason))
        else:
            self._close("" if event.peer == CLIENT else f"target {self.book.target}: {reason}", reason)

    def _lost_at_login(self, reason: str) -> None:
        if self._opened:              # with the last that came
            self._close(f"target {self.book.target}: it closed the connection", "server closed")
        else:
            why = wire.explain(self._server.why) if self._server is not None else ""
            self._fail(f"login at target {self.book.target}: {why or reason or 'it closed the connection'}")

    def _ended(self, event: inputs.Ended) -> None:
        if event.finish:
            self._ending = event      # `_finish` looks
        else:
            self._mux.kill()
            self._end(event.reason)

    def _end(self, reason: str) -> None:
        self._close(reason, reason)

    def _put_down(self) -> None:
        """What is known of what runs is told: which files were open, what was typed last."""
        try:
            self._mux.lost()
        except Exception as error:             # the end is on record whatever is wrong; what is open is a gap then
            LOG.error("session %s: %s", self._context.session, type(error).__name__)

    def _close(self, words_for_client: str, reason: str, code: int = BY_APPLICATION) -> None:
        """Last words, the end on record, both sides closed."""
        if self._over:
            return
        self._over = True
        try:
            self._conclude(reason)
            if words_for_client:
                self._crew.end(code, f"weir: {words_for_client}")
            self._crew.drop()
            if self._server is not None:
                self._server.end(BY_APPLICATION, "closed")
        finally:                               # whatever goes wrong here
            self._say(CloseConnection(SERVER, reason))
            self._say(CloseConnection(CLIENT, reason))

    def _conclude(self, reason: str) -> None:
        if self._opened:
            self._put_down()
            self.book.closed(reason)
            return
        self.book.done(self._login, "error", "", reason.encode())
        if self._entry is not _nobody:
            self._refused(reason)


def _is_cut(account: str) -> bool:
    """Whether a server may log in as somebody else than policy was asked about: OpenSSH takes "root:x" for root in the
    style x, Debian's "root/x" for root in the role x."""
    return not {":", "/"}.isdisjoint(account)


def _nobody(reason: str) -> None:
    """Nobody waits."""
