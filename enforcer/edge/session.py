"""One session: runs a layer, carries out its commands, tells it what happened.

Theory: `received` and `tell` give the layer bytes and events; what it answers is carried out in order, what it answers
to events that arise on the way comes after.  Everything towards the server stands in one queue while a barrier is not
fulfilled (see commit.py): nothing overtakes.  What takes time is an errand (errands.py), a task that ends in `tell`.

The end: both transports are lost.  Whoever loses one side, is refused or ended gets a while for last words; then
`abort` closes what is left.  Of a session that is ended at once nothing that waits goes any more, and what its server
is at is cancelled (errands.put_down).
"""
from __future__ import annotations

import asyncio
import logging
import traceback
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Final

from agent.contract.credential import Credential
from agent.contract.logs import about
from agent.contract.messages import SessionView
from agent.contract.owner import Owner
from enforcer.core.context import Context
from enforcer.edge import errands
from enforcer.edge.cancel import Key
from enforcer.edge.edge import Edge
from enforcer.edge.peer import FULL, LAYER, LEAVING, OWN, PRESSED, QUEUED, STARTING, UNREAD, Peer
from enforcer.edge.through import Tunnels
from enforcer.edge.upstream import Road
from enforcer.protocols import Protocol
from enforcer.words import commands as words
from enforcer.words import events
from enforcer.words.commands import CLIENT, SERVER, CloseConnection, Command, Record, SendData
from enforcer.words.decisions import PERMIT
from enforcer.words.errors import LocalProtocolError, ProtocolError, RecordingError, RemoteProtocolError
from enforcer.words.inputs import (
    ConnectionLost,
    Ended,
    HoldAnswered,
    Input,
    RecordingFailed,
    TimerFired,
)
from enforcer.words.reported import say

LOG = logging.getLogger("weir.session")

LOGIN: Final = 30.0                   # seconds from accept to the end of login
GRACE: Final = 5.0                    # seconds that last words may take
FINISH: Final = 600.0                 # seconds that what runs may go on where the session ends after it
LINGER: Final = 30.0                  # seconds that one side may outlive the other
REPORTED: Final = 200                 # characters of what a process reports that are shown of a session
QUEUE: Final = 256 << 10              # bytes towards the server that may wait for the journal


class Session:
    """`take` gives it the client's transport; everything else comes by events until both sides are lost."""

    __slots__ = (
        "_accounted", "_deadline", "_ending", "_failed", "_finished", "_grace", "_later", "_later_answers",
        "_later_bytes", "_layer", "_leaving", "_need", "_need_synced", "_over", "_putting_down", "_running", "_shown",
        "_since", "_tasks", "_timers", "_tunnels", "_work", "account", "address", "asked_by", "cancelling", "context",
        "credential", "database", "dialling", "edge", "key", "name", "peers", "protocol", "reason", "road", "tally",
    )

    def __init__(self, edge: Edge, context: Context, protocol: Protocol, road: Road | None = None) -> None:
        """`road`: by which it gets to its target, where that is not dialled."""
        self.context = context = replace(context, push=self.push)
        self.name, self.edge, self.protocol = context.session, edge, protocol
        self.tally = edge.tally.of(context.target.name)
        self.peers = (Peer(self, CLIENT), Peer(self, SERVER))
        self.road, self.reason = road, ""              # why it ended
        self._tunnels: Tunnels | None = None           # through it, once there were any
        self._leaving = False         # it ends once these have had their last words
        self.credential: Credential | None = None
        self.asked_by: words.Login | None = None       # what the credential was asked for with
        self.database = self.account = self.address = ""
        self.dialling = self.cancelling = False
        self._layer = protocol.layer(context)
        self._later: deque[tuple[int, int, Command]] = deque()
        self._later_bytes = self._later_answers = self._need = self._need_synced = 0
        self._work: list[Command] = []
        self._running = self._over = self._failed = self._finished = self._accounted = self._putting_down = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self.key: Key | None = None   # once login is complete,
        self._shown = (0, b"")        # and the one that the client knows
        self._since = context.now()
        self._grace: asyncio.TimerHandle | None = None
        self._ending: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = edge.loop.call_later(LOGIN, self._login_timeout)

    def take(self, transport: asyncio.Transport, early: bytes) -> None:
        """The client's connection, and what it has sent until now."""
        client = self.peers[CLIENT]
        client.attach(transport)
        transport.set_protocol(client)
        self.edge.add(self)
        self.edge.count("sessions_total")
        self.tally.sessions += 1
        self._step(self._layer.start)
        if client.stopped(STARTING):
            client.hello = early
            return
        if early and client.early is not None:
            client.early.append(early)
        client.open()

    def inner(self, context: Context, protocol: Protocol, road: Road) -> Session:
        """A session through this one."""
        return Session(self.edge, context, protocol, road)

    @property
    def over(self) -> bool:
        """Its layer is told nothing any more."""
        return self._over

    @property
    def owner(self) -> Owner:
        return self.context.principal.owner

    def about(self) -> dict[str, Any]:
        """Of a line of the log."""
        return about(session=self.name, target=self.context.target.name, workload=self.owner.workload)

    def view(self) -> SessionView:
        owner = self.context.principal.owner
        return SessionView(
            self.name, self._since, owner.subject, owner.workload, owner.process.pid if owner.process else 0,
            self.context.target.name, self.database, self._layer.operations, self._layer.state,
            say(self.context.reported(), REPORTED), self.account[:REPORTED],
        )

    # What happens to it

    def received(self, peer: int, data: bytes) -> None:
        if self._over:
            return
        self.edge.passes += 1
        try:
            commands = self._layer.receive(peer, data)
        except Exception as error:
            commands = self._refuse(error)
        if commands:
            self._run(commands)

    def tell(self, event: Input) -> None:
        if not self._over:
            self._step(lambda: self._layer.handle(event))

    def push(self, commands: list[Command]) -> None:
        """What a layer wants done that answers nothing: it has a transport of its own, which has timers."""
        if not self._finished:
            self.edge.passes += 1
            self._run(commands)

    def gone(self, peer: int, reason: str) -> None:
        """Nothing more will come from this side; the layer is told once, and not where it wanted it."""
        if self._tunnels is not None:
            self._tunnels.lost(peer, reason)
        side = self.peers[peer]
        if not side.told:
            side.told = True
            if peer == CLIENT and self._tunnels is not None:
                self._tunnels.let_pass(lambda: self.tell(ConnectionLost(peer, reason)))
            else:
                self.tell(ConnectionLost(peer, reason))
        self.peers[1 - peer].go_on_reading(FULL)
        if self.peers[peer] is side:
            self._close_soon(LINGER)

    def lost(self) -> None:
        self.settle()

    def full(self, peer: int, on: bool) -> None:
        other = self.peers[1 - peer]
        (other.stop_reading if on else other.go_on_reading)(FULL)
        if peer == CLIENT:            # a server that waits until it is read reads nothing: both would wait
            client = self.peers[CLIENT]
            (client.stop_reading if on else client.go_on_reading)(UNREAD)
        if self._tunnels is not None:
            self._tunnels.full(peer, FULL, on)

    def press(self, on: bool) -> None:
        client = self.peers[CLIENT]
        (client.stop_reading if on else client.go_on_reading)(PRESSED)

    def end(self, reason: str, finish: bool = False) -> None:
        """An operator, a lock, a drain or the agent's end: last words, then both sides are closed.  `finish`: once what
        runs has finished, FINISH later at the latest."""
        if self._tunnels is not None:
            self._tunnels.end(reason, finish)
        if finish:
            if self._ending is None and not self._finished:
                self._ending = self.edge.loop.call_later(FINISH, self.end, reason)
                self.tell(Ended(reason, True))
            return
        if self._over:
            return
        self.reason = self.reason or reason
        if not self._leaving and self._tunnels is not None and self._tunnels.busy:
            self._leaving = True
            self.peers[CLIENT].stop_reading(LEAVING)
            if self.edge.holds is not None:
                self.edge.holds.end_session(self.name, reason)
            self._tunnels.let_pass(lambda: self.end(reason))
            return
        self._drop_queue()
        self._put_down()
        self.tell(Ended(reason))
        self._over = True             # whatever an approver or a peer says now
        if self.edge.holds is not None:
            self.edge.holds.end_session(self.name, reason)
        self._close_soon(GRACE)

    def _put_down(self) -> None:
        """The server may be at something, and finishes what it has been sent, unless it is told to stop, and finds
        nobody to answer."""
        server = self.peers[SERVER]
        if self.key is None or self._layer.state == "idle" or server.transport is None or server.closing:
            return
        try:
            self.record(Record(errands.cancel_intent(self.context, self.name, PERMIT, "", "weir"), (), True))
        except RecordingError as error:
            LOG.error("session %s: what runs of it is not cancelled: %s", self.name, error, extra=self.about())
            return
        self._putting_down = True
        self._spawn(errands.put_down(self))

    def put_down(self) -> None:
        """Its server does nothing more for it."""
        self._putting_down = False
        self.settle()

    def recording_failed(self, reason: str) -> None:
        if self._tunnels is not None:
            self._tunnels.end(reason)
        self._failed = True
        self._drop_queue()
        self.tell(RecordingFailed(reason))
        self._close_soon(GRACE)

    def answered(self, event: HoldAnswered) -> None:
        """What follows waits until the hold's own event is written."""
        self._barrier(self.context.durable != "none")
        self.tell(event)

    def committed(self) -> bool:
        """See commit.Waiting."""
        try:
            return self._let_go()
        except Exception as error:    # one session's trouble is not the others'
            self._bug(error)
            self.abort()
            return True

    def _let_go(self) -> bool:
        commit, later = self.edge.commit, self._later
        if commit is None:
            return True
        while later and later[0][0] <= commit.flushed and later[0][1] <= commit.synced:
            command = later.popleft()[2]
            if type(command) is SendData:
                self._later_bytes -= len(command.data)
                self._later_answers -= len(command.data) if command.answers else 0
                self.peers[SERVER].write(command.data, command.answers)
            else:
                _ORDERS[type(command)](self, command)
        client = self.peers[CLIENT]
        if client.stopped(QUEUED) and self._later_bytes < QUEUE:
            client.go_on_reading(QUEUED)
            if self._tunnels is not None:
                self._tunnels.full(SERVER, QUEUED, False)
        return not later and self._need_synced <= commit.synced

    # Running the layer

    def _step(self, ask: Callable[[], list[Command]]) -> None:
        self.edge.passes += 1
        try:
            commands = ask()
        except Exception as error:
            commands = self._refuse(error)
        if commands:
            self._run(commands)

    def _refuse(self, error: Exception) -> list[Command]:
        """The layer's last words; nothing reaches it afterwards."""
        if not isinstance(error, ProtocolError):
            self._bug(error)
        self._over = True
        self._close_soon(GRACE)
        try:
            return self._layer.refuse(error)
        except Exception as second:
            self._bug(second)
            return [CloseConnection(SERVER), CloseConnection(CLIENT)]

    def _run(self, commands: list[Command]) -> None:
        if self._running:
            self._work += commands
            return
        self._running = True
        try:
            self._carry_out(commands)
            while self._work:
                more, self._work = self._work, []
                self._carry_out(more)
        except RecordingError as error:
            self._work = []
            self.edge.loop.call_soon(self.recording_failed, str(error))
        except Exception as error:
            self._bug(error)
            self.abort()
        finally:
            self._running = False

    def _carry_out(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, SendData):
                if command.peer == CLIENT:
                    self.peers[CLIENT].write(command.data)
                elif self._failed:
                    continue
                elif self._held_back():
                    self._put_off(command, len(command.data))
                    if command.answers:
                        self._put_off_answer(len(command.data))
                else:
                    self.peers[SERVER].write(command.data, command.answers)
            elif isinstance(command, Record):
                self.record(command)
            elif _towards_server(command) and self._held_back():
                self._put_off(command, 0)
            else:
                _ORDERS[type(command)](self, command)

    def _held_back(self) -> bool:
        if self._later:
            return True
        commit = self.edge.commit
        return commit is not None and (self._need > commit.flushed or self._need_synced > commit.synced)

    def _put_off(self, command: Command, size: int) -> None:
        self._later.append((self._need, self._need_synced, command))
        self._later_bytes += size
        if isinstance(command, words.StartTls):
            self.peers[SERVER].stop_reading(STARTING)
        if self._later_bytes > QUEUE:
            self.peers[CLIENT].stop_reading(QUEUED)
            if self._tunnels is not None:
                self._tunnels.full(SERVER, QUEUED, True)

    def _put_off_answer(self, size: int) -> None:
        """Nothing pauses a server that asks."""
        self._later_answers += size
        if self._later_answers > OWN:
            self.peers[SERVER].unread()

    def _drop_queue(self) -> None:
        """What may not be forwarded any more; closing still may."""
        closing = any(type(command) is CloseConnection for _, _, command in self._later)
        self._later.clear()
        self._later_bytes = self._later_answers = self._need = self._need_synced = 0
        if closing:
            self.peers[SERVER].close()

    def record(self, command: Record) -> None:
        commit = self.edge.commit
        if commit is None:
            raise RecordingError("there is no journal")
        commit.append(command.event, command.blobs)
        kind = command.event.kind     # type: ignore[attr-defined]
        if kind == events.INTENT:
            self.tally.decided(command.event)  # type: ignore[arg-type]
        elif kind in _ACCOUNTS:
            self._accounted = True
            if self.road is not None and kind == events.SESSION_OPENED:
                commit.append(self.road.opened())
        if command.barrier or command.durable:
            self._barrier(command.durable)

    def _barrier(self, durable: bool) -> None:
        commit = self.edge.commit
        if commit is None or self._failed:
            return
        self._need = commit.appended
        if durable:
            self._need_synced = commit.appended
        commit.wait(self, durable)

    # Orders: one for each command but SendData and Record

    def _start_tls(self, command: words.StartTls) -> None:
        peer = self.peers[command.peer]
        peer.starting(command.first)
        self._spawn(errands.start_tls(self, peer, command.alpn))

    def _open(self, command: words.OpenConnection) -> None:
        if not self._failed:
            self.dialling = True
            self._spawn(errands.dial(self))

    def _leave_server(self, command: words.LeaveServer) -> None:
        self.peers = (self.peers[CLIENT], self.peers[SERVER].leave())
        self.peers[CLIENT].go_on_reading(FULL)

    def _login(self, command: words.Login) -> None:
        self.database, self.account = command.database, command.role
        self._spawn(errands.fetch_credential(self, command))

    def _close(self, command: CloseConnection) -> None:
        if command.peer == CLIENT and self.cancelling:
            return                    # a canceller waits for the close: it means that the cancel was delivered
        known = self.peers[command.peer].told
        if command.peer == SERVER and self._putting_down:
            self.peers[SERVER].reset()
        else:
            self.peers[command.peer].close()
        self.reason = self.reason or command.reason
        if self._tunnels is not None:
            self._tunnels.lost(command.peer, command.reason)
            if command.peer == CLIENT and not known:
                self._tunnels.let_pass(lambda: self._client_alone(command.reason))
        self.peers[1 - command.peer].go_on_reading(FULL)
        self._close_soon(LINGER)
        self.settle()

    def _client_alone(self, reason: str) -> None:
        if not self.peers[SERVER].told:
            self.tell(ConnectionLost(CLIENT, reason))

    def _pause(self, command: words.PauseReading) -> None:
        self.peers[command.peer].stop_reading(LAYER)

    def _resume(self, command: words.ResumeReading) -> None:
        self.peers[command.peer].go_on_reading(LAYER)

    def _hold(self, command: words.Hold) -> None:
        if self.edge.holds is None:
            self.tell(HoldAnswered(command.operation, "denied", "", "nobody can be asked", ""))
            return
        opened = self.edge.holds.open(self.context, command)
        if isinstance(opened, HoldAnswered):
            self.answered(opened)
        elif opened is not None:
            if command.explain is not None and self.edge.plans is not None:
                self._spawn(self.edge.plans.add(
                    self.context, command.database, self.credential, command.explain, opened.ticket, self.road))
            self.tell(opened)

    def _use_hold(self, command: words.UseHold) -> None:
        """What follows waits until that is on the disk."""
        holds = self.edge.holds
        if holds is None or not holds.use(self.name, command.operation, command.ticket, command.held):
            raise LocalProtocolError("an operation that was not approved")
        self._barrier(self.context.durable != "none")

    def _cancel_hold(self, command: words.CancelHold) -> None:
        if self.edge.holds is not None:
            self.edge.holds.cancel(self.name, command.operation, command.reason)

    def _return_hold(self, command: words.ReturnHold) -> None:
        if self.edge.holds is not None:
            self.edge.holds.give_back(self.name, command.operation)

    def _timer(self, command: words.StartTimer) -> None:
        running = self._timers.pop(command.name, None)
        if running is not None:
            running.cancel()
        if command.seconds > 0:
            self._timers[command.name] = self.edge.loop.call_later(command.seconds, self._fire, command.name)

    def _fire(self, name: str) -> None:
        self._timers.pop(name, None)
        self.tell(TimerFired(name))

    def _catalogue(self, command: words.LoadCatalogue) -> None:
        self._spawn(errands.load_catalogue(self, command))

    def _count(self, command: words.Count) -> None:
        self.edge.count(command.name)
        self.edge.count(f"{command.name}:{self.context.target.name}")
        self.tally.distrusted += command.name == "unknown_host_key"

    def _login_done(self, command: Command) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _registered(self, command: words.Registered) -> None:
        self._login_done(command)
        self.key = Key(self.name, self.owner, self.context.target, self.credential, self.address, command.real_process,
                       command.real_secret, self.road)
        self._shown = (command.process, command.secret)
        self.edge.cancels.register(*self._shown, self.key)

    def _cancel(self, command: words.CancelRequest) -> None:
        self.cancelling = True
        self._spawn(errands.cancel(self, command))

    def _open_through(self, command: words.OpenThrough) -> None:
        if self._tunnels is None:
            self._tunnels = Tunnels(self)
        self._spawn(self._tunnels.open(command))

    def _through(self, command: Command) -> None:
        if self._tunnels is not None:
            self._tunnels.order(command)

    # The end

    def _login_timeout(self) -> None:
        self._deadline = None
        if not self._over:
            self._run(self._refuse(RemoteProtocolError(f"login took more than {LOGIN:.0f} seconds")))

    def _close_soon(self, seconds: float) -> None:
        when = self.edge.loop.time() + seconds
        if self._finished or (self._grace is not None and self._grace.when() <= when):
            return
        if self._grace is not None:
            self._grace.cancel()
        self._grace = self.edge.loop.call_later(seconds, self.abort)

    def abort(self) -> None:
        """Close both sides now, whatever waits."""
        self._over = True
        self._drop_queue()
        self._cancel_tasks()
        self.dialling = self._putting_down = False
        for peer in self.peers:
            peer.abort()
        self.settle()

    def settle(self) -> None:
        """Where both sides are gone and none is coming, the session is over."""
        busy = self.dialling or self._putting_down
        if busy or self._finished or any(peer.transport is not None for peer in self.peers):
            return
        self._finished = self._over = True
        for timer in (*self._timers.values(), self._deadline, self._grace, self._ending):
            if timer is not None:
                timer.cancel()
        self._cancel_tasks()
        if self.key is not None:
            self.edge.cancels.forget(*self._shown)
            self.key = None
        if self.edge.holds is not None:
            self.edge.holds.end_session(self.name, "the session ended")
        self.use(None)
        self._account()
        self.edge.remove(self)
        if self.road is not None:
            self.road.over()

    def use(self, credential: Credential | None) -> None:
        """In place of the one that it had, whose lease it uses no more."""
        before, self.credential = self.credential, credential
        if before is not None:
            self.edge.asking.unused(before)

    def _account(self) -> None:
        """Each connection that was attributed is in the recording once: as a session, or as what did not become one."""
        if not self._accounted:
            owner = self.owner
            what = "a cancel request" if self.cancelling else "it ended before it became a session"
            self.edge.refused(owner, f"{owner.destination} {owner.port}", what)

    @property
    def finished(self) -> bool:
        return self._finished

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.edge.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._bug(error)
            self.abort()

    def _cancel_tasks(self) -> None:
        for task in tuple(self._tasks):
            if task is not asyncio.current_task():
                task.cancel()

    def _bug(self, error: BaseException) -> None:
        """The text of an unexpected error may hold a peer's data: where it arose is enough."""
        where = traceback.extract_tb(error.__traceback__)[-6:]
        LOG.error("session %s: %s at %s", self.name, type(error).__name__, " < ".join(
            f"{frame.name} {frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in reversed(where)
        ), extra=self.about())
        self.edge.count("bugs")


_ACCOUNTS: Final = frozenset((events.SESSION_OPENED, events.REFUSED))


def _towards_server(command: Command) -> bool:
    if isinstance(command, words.StartTls | CloseConnection):
        return command.peer == SERVER
    return isinstance(command, words.OpenConnection)


_ORDERS: Final[dict[type[Command], Callable[[Session, Any], None]]] = {
    words.StartTls: Session._start_tls,
    words.OpenConnection: Session._open,
    words.LeaveServer: Session._leave_server,
    words.Login: Session._login,
    CloseConnection: Session._close,
    words.PauseReading: Session._pause,
    words.ResumeReading: Session._resume,
    words.Hold: Session._hold,
    words.UseHold: Session._use_hold,
    words.CancelHold: Session._cancel_hold,
    words.ReturnHold: Session._return_hold,
    words.StartTimer: Session._timer,
    words.LoadCatalogue: Session._catalogue,
    words.CancelRequest: Session._cancel,
    words.Count: Session._count,
    words.LoginDone: Session._login_done,
    words.Registered: Session._registered,
    words.OpenThrough: Session._open_through,
    words.ThroughConnected: Session._through,
    words.ThroughFailed: Session._through,
    words.SendThrough: Session._through,
    words.EndThrough: Session._through,
    words.CloseThrough: Session._through,
    words.PauseThrough: Session._through,
    words.ResumeThrough: Session._through,
}
