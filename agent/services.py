"""Enforcer and recorder as the agent's children: started unprivileged, started again when they end, ended in order."""
from __future__ import annotations

import array
import asyncio
import itertools
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from agent.channel import Answer, ChannelError, EnforcerChannel, SilenceError
from agent.contract import messages
from agent.contract.control import ServiceView
from agent.contract.ledger import (
    HEADER,
    LIMIT,
    PAGES,
    AskLedger,
    AskRecording,
    LedgerAnswer,
    RecordingAnswer,
    parse_answer,
    render_frame,
)
from agent.contract.native_journal import stream
from agent.network.networks import Network
from agent.processes import ENVIRONMENT, python_module, unprivileged

LOG = logging.getLogger("weir.services")

FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0   # seconds before the next start; doubled each time
PROVEN: Final = 30.0                  # seconds up after which a start counts as good, and the wait begins anew
LONGEST_START: Final = 8              # times its usual time that a start may take, where those before ran out of theirs
PING_EVERY: Final = 1.0               # seconds
HANG: Final = 5.0                     # seconds without an answer: killed
PAGE_WAIT: Final = 15.0               # seconds for a page of the recording
RECORDER_HANG: Final = 60.0           # the same for the recorder, which may be erasing or closing a large file
CONFIGURE: Final = 60.0               # seconds that policies may take to load
DRAIN: Final = 15.0                   # seconds that a service may take to end in order
AHEAD: Final = -5                     # nice of the enforcer: busy crews must not slow the path that all of them share


Tell = Callable[[str, dict[str, object]], None]
Render = Callable[[int], messages.Configure]


class Service:
    """`tell(name, detail)` records; `changed` is called whenever `up` or `error` changes; below `writes`, directories,
    and nowhere else, it makes files."""

    name = "service"                  # of a row of agent.confined.roles

    def __init__(
        self, user: str, cgroup: Path, tell: Tell, changed: Callable[[], None], writes: Sequence[Path] = (),
    ) -> None:
        self._user, self._cgroup, self._tell, self._changed = user, cgroup, tell, changed
        self._writes = tuple(map(str, writes))
        self.up, self.error, self.began = False, "not started", 0      # CLOCK_BOOTTIME nanoseconds of the last start
        self._process: asyncio.subprocess.Process | None = None
        self._since = self._starts = 0
        self._slack = 1               # times its usual time that the next start may take
        self._up_at = 0.0             # monotonic seconds; 0: this start did not come up
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    def view(self) -> ServiceView:
        pid = self._process.pid if self._process and self._process.returncode is None else 0
        return ServiceView(pid, self._since, max(0, self._starts - 1), self.error)

    def start(self) -> None:
        self._stopping = False
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """In order where it can, by SIGKILL where it takes longer than DRAIN."""
        self._stopping = True
        process = self._process
        if process is not None and process.returncode is None:
            await self._ask_to_end(process)
            with suppress(TimeoutError):
                async with asyncio.timeout(DRAIN):
                    await process.wait()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        end_all(self._cgroup)
        self._set(False, "stopped")

    async def _ask_to_end(self, process: asyncio.subprocess.Process) -> None:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)

    async def _life(self) -> str:
        """From start to end; why it ended."""
        raise NotImplementedError

    async def _run(self) -> None:
        wait = FIRST_WAIT
        while True:
            self._up_at = 0.0
            try:
                reason = await self._life()
            except (OSError, ChannelError) as wrong:
                reason = str(wrong)
            except Exception as wrong:         # it is started again, and not taken for one that runs
                LOG.error("the %s cannot be spoken with", self.name, exc_info=True)
                reason = f"the agent could not speak with it: {type(wrong).__name__}"
            finally:
                await self._kill()
            self._set(False, reason)
            if self._stopping:
                return
            LOG.error("the %s ended: %s", self.name, reason)
            self._tell(f"{self.name}.ended", {"reason": reason})
            if self._up_at and time.monotonic() - self._up_at > PROVEN:
                wait, self._slack = FIRST_WAIT, 1
            else:
                wait = min(wait * 2, LONGEST_WAIT)
            await asyncio.sleep(wait)

    async def _begin(self, configure: Callable[[float], Awaitable[str]], usual: float) -> str:
        """Its first configuration, in the `usual` seconds; what is wrong, or empty.  Each start that runs out of
        time gives the next more: on a busy host, starts for nothing would make it busier."""
        try:
            return await configure(usual * self._slack)
        except SilenceError:
            self._slack = min(self._slack * 2, LONGEST_START)
            raise

    async def _spawn(
        self, command: Sequence[str], keep: Sequence[int] = (), dies_with_parent: bool = False, nice: int = 0,
    ) -> None:
        end_all(self._cgroup)
        self._cgroup.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):       # somebody froze the one before: the next would stand still, too
            (self._cgroup / "cgroup.freeze").write_text("0")
        down = unprivileged(
            command, self._user, cgroup=self._cgroup, keep=keep, dies_with_parent=dies_with_parent, nice=nice,
            variables=stream() | self._variables(), role=self.name, writes=self._writes)
        self._process = await asyncio.create_subprocess_exec(
            *down, stdin=asyncio.subprocess.DEVNULL, pass_fds=tuple(keep), env=ENVIRONMENT, cwd="/",
            start_new_session=True)   # without a way to the terminal that the agent was started on (ioctl_tty(2))
        self._since, self._starts = time.time_ns(), self._starts + 1
        self.began = time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def _variables(self) -> dict[str, str]:
        return {}

    async def _kill(self) -> None:
        process = self._process
        if process is None:
            return
        end_all(self._cgroup)
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    def _set(self, up: bool, error: str) -> None:
        if up:
            self._up_at = time.monotonic()
        if (up, error) != (self.up, self.error):
            self.up, self.error = up, error
            self._changed()

    def _ended(self) -> str:
        code = self._process.returncode if self._process else None
        if code is None:
            return "ended"
        return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


class Recorder(Service):
    name = "recorder"

    def __init__(
        self, user: str, cgroup: Path, tell: Tell, changed: Callable[[], None],
        options: Sequence[str], question: Callable[[int], AskLedger], told: Callable[[LedgerAnswer], Awaitable[None]],
        writes: Sequence[Path] = (),
    ) -> None:
        """`told` is given the answers to `question`; in the first of `writes` SQLite sorts what is large."""
        super().__init__(user, cgroup, tell, changed, writes)
        self._options, self._question, self._told = options, question, told
        self._writer: asyncio.StreamWriter | None = None
        self._pages: dict[int, asyncio.Future[RecordingAnswer]] = {}
        self._numbers = itertools.count(1)

    def _variables(self) -> dict[str, str]:
        return {"SQLITE_TMPDIR": self._writes[0]} if self._writes else {}

    async def page(self, question: AskRecording) -> RecordingAnswer:
        """Of the recording, whatever `number` the question has; one that says why there is none where the recorder does
        not give it in time."""
        if self._writer is None or len(self._pages) >= PAGES:
            return RecordingAnswer(0, wrong="the recorder is not running" if self._writer is None
                                   else "too many ask for the recording: try again")
        number = next(self._numbers)
        coming: asyncio.Future[RecordingAnswer] = asyncio.get_running_loop().create_future()
        self._pages[number] = coming
        self._writer.write(render_frame(msgspec.structs.replace(question, number=number)))
        try:
            async with asyncio.timeout(PAGE_WAIT):
                return await coming
        except TimeoutError:
            return RecordingAnswer(number, wrong="the recorder has much to do: try again")
        finally:
            del self._pages[number]

    async def _life(self) -> str:
        ours, theirs = socket.socketpair()
        with ours:
            # Ends with the agent, or a second agent's recorder would wait for this one's lock for ever.
            with theirs:
                command = [*python_module("enforcer.recording.recorder"), *self._options, "--ledger",
                           str(theirs.fileno())]
                await self._spawn(command, (theirs.fileno(),), dies_with_parent=True)
            assert self._process is not None
            self._set(True, "")
            ended = asyncio.get_running_loop().create_task(self._process.wait())
            try:
                reason = await self._ask(ours, ended)
                await asyncio.wait({ended}, timeout=DRAIN if self._stopping else 0.5)
                return reason if not ended.done() else self._ended()
            finally:
                ended.cancel()

    async def _ask(self, sock: socket.socket, ended: asyncio.Task[int]) -> str:
        """Again and again; why no more.  One that does not answer hangs."""
        reader, writer = await asyncio.open_connection(sock=sock, limit=LIMIT)
        answers: asyncio.Queue[LedgerAnswer | None] = asyncio.Queue()
        hearing = asyncio.get_running_loop().create_task(self._hear(reader, answers))
        self._writer, number = writer, 0
        try:
            while not ended.done():
                await asyncio.wait({ended}, timeout=PING_EVERY)
                if ended.done() or self._stopping:
                    continue
                number += 1
                writer.write(render_frame(self._question(number)))
                async with asyncio.timeout(RECORDER_HANG):
                    answer = await answers.get()
                if answer is None:
                    return await hearing
                await self._told(answer)
        except TimeoutError:
            return f"did not answer within {RECORDER_HANG:.0f} s"
        except (OSError, ValueError) as reason:
            return f"it cannot be asked: {reason}"
        finally:
            self._writer = None
            hearing.cancel()
            writer.close()
        return self._ended()

    async def _hear(self, reader: asyncio.StreamReader, answers: asyncio.Queue[LedgerAnswer | None]) -> str:
        """What it says, each to whom it belongs; why no more, and None in its place."""
        try:
            while True:
                (size,) = HEADER.unpack(await reader.readexactly(HEADER.size))
                if size > LIMIT:
                    return f"an answer of {size} bytes"
                answer = parse_answer(await reader.readexactly(size))
                if isinstance(answer, LedgerAnswer):
                    answers.put_nowait(answer)
                elif (waits := self._pages.get(answer.number)) is not None and not waits.done():
                    waits.set_result(answer)
        except (OSError, EOFError, msgspec.MsgspecError) as reason:
            return f"its answers ended: {reason}"
        finally:
            answers.put_nowait(None)


class Enforcer(Service):
    """`configure` renders the Configure of now; `answer` answers what the enforcer asks."""

    name = "enforcer"

    def __init__(
        self, user: str, cgroup: Path, tell: Tell, changed: Callable[[], None],
        listeners: Sequence[int], dns: Sequence[int], local: Mapping[str, int], configure: Render, answer: Answer,
        networks: Callable[[], Iterable[Network]] = tuple, unused: Callable[[int], None] = lambda lease: None,
        writes: Sequence[Path] = (),
    ) -> None:
        """`networks`: what it has to serve besides the host's; `unused`: Credentials.unused."""
        super().__init__(user, cgroup, tell, changed, writes)
        self._dns, self._local, self._networks, self._unused = dns, local, networks, unused
        self._doors: socket.socket | None = None
        self._withdrawing: set[asyncio.Task[None]] = set()
        self._listeners, self._render, self._answer = listeners, configure, answer
        self._channel: EnforcerChannel | None = None
        self._configuring = asyncio.Lock()
        self.first = asyncio.get_running_loop().create_future()     # error of the first Configure, "" where it is right

    @property
    def channel(self) -> EnforcerChannel:
        """Raises ChannelError where it is not running."""
        if self._channel is None:
            raise ChannelError("the enforcer is not running")
        return self._channel

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Nobody else configures it meanwhile; one that starts waits."""
        async with self._configuring:
            yield

    def put_down(self) -> None:
        """It is ended at once, and started again."""
        end_all(self._cgroup)
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def configure(self, render: Render | None = None, seconds: float = CONFIGURE) -> str:
        """Send the configuration of now, or another; what is wrong with it, or empty.  Raises ChannelError."""
        async with self._configuring:
            done = await self.channel.ask(render or self._render, messages.Configured, seconds)
        return done.error

    async def give(self, network: Network) -> None:
        """Have it serve a network.  Where it does not run, it is given it when it does.  Raises ChannelError where it
        does not take it."""
        if self._channel is None or self._doors is None:
            return
        sending = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", network.descriptors()))]
        doors = self._doors

        def send(number: int) -> messages.OpenNetwork:
            # Both at once: the packets come in the order of the messages.
            doors.sendmsg([b"\0"], sending)
            return messages.OpenNetwork(number, network.cookie, len(network.listeners), len(network.dns))

        try:
            done = await self._channel.ask(send, messages.Done)
        except OSError as reason:
            raise ChannelError(f"the enforcer cannot be given a network: {reason}") from None
        if done.error:
            raise ChannelError(f"the enforcer does not take the network: {done.error}")

    async def _give_all(self) -> None:
        """One that it does not take is cut off; the others are served."""
        for network in self._networks():
            try:
                await self.give(network)
            except ChannelError as reason:
                LOG.error("%s", reason)
                self._tell("network.refused", {"reason": str(reason)})

    def withdraw(self, netns: int) -> None:
        """Have it let one go; it need not have it."""
        if self._channel is not None:
            task = asyncio.get_running_loop().create_task(self._withdraw(self._channel, netns))
            self._withdrawing.add(task)
            task.add_done_callback(self._withdrawing.discard)

    @staticmethod
    async def _withdraw(channel: EnforcerChannel, netns: int) -> None:
        with suppress(ChannelError):  # then it ends, and what it had ends with it
            await channel.ask(lambda number: messages.CloseNetwork(number, netns), messages.Done)

    async def _ask_to_end(self, process: asyncio.subprocess.Process) -> None:
        try:
            await self.channel.ask(messages.Drain, messages.Done, DRAIN)
        except ChannelError:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)

    async def _life(self) -> str:
        ours, theirs = socket.socketpair()
        self._doors, doors = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._doors.setblocking(False)
        try:
            with theirs, doors:
                command = [*python_module("enforcer.app"), "--channel", str(theirs.fileno()), "--doors",
                           str(doors.fileno()), "--listeners", ",".join(map(str, self._listeners)), "--dns",
                           ",".join(map(str, self._dns)), "--local",
                           ",".join(f"{fd}:{name}" for name, fd in self._local.items())]
                keep = (theirs.fileno(), doors.fileno(), *self._listeners, *self._dns, *self._local.values())
                await self._spawn(command, keep, nice=AHEAD)
            self._channel = await EnforcerChannel.open(ours, self._answer, self._unused)
            return await self._serve(self._channel)
        finally:
            if self._channel is not None:
                self._channel.close()
                self._channel = None
            self._doors.close()
            self._doors = None
            ours.close()

    async def _serve(self, channel: EnforcerChannel) -> str:
        assert self._process is not None
        ended = asyncio.get_running_loop().create_task(self._process.wait())
        try:
            error = await self._begin(lambda seconds: self.configure(seconds=seconds), CONFIGURE)
            if not self.first.done():
                self.first.set_result(error)
            if error:
                return f"its configuration: {error}"
            await self._give_all()
            self._set(True, "")
            while not ended.done() and not channel.closed.is_set():
                await asyncio.wait({ended}, timeout=PING_EVERY)
                if not ended.done():
                    await channel.ask(messages.Ping, messages.Pong, HANG)
            await asyncio.wait({ended}, timeout=DRAIN if self._stopping else 0.5)
            return self._ended()
        except ChannelError as reason:
            # Its exit code says more, where it has one; while it drains it may close the channel first.
            await asyncio.wait({ended}, timeout=DRAIN if self._stopping else 0.5)
            return f"{reason} ({self._ended()})" if ended.done() else str(reason)
        finally:
            ended.cancel()


def end_all(cgroup: Path) -> None:
    """Kill whatever is in a cgroup of Weir's own, which only its children can be."""
    try:
        (cgroup / "cgroup.kill").write_text("1")
        return
    except FileNotFoundError:
        pass                          # no such cgroup, or a kernel before 5.14
    with suppress(OSError):
        for pid in (cgroup / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


async def wait_empty(cgroup: Path, seconds: float) -> bool:
    """Whether nothing is left in it, after at most that long.  kernfs tells of changes of cgroup.events by POLLPRI,
    which asyncio does not know: looked at often instead."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if not (cgroup / "cgroup.procs").read_text().strip():
                return True
        except OSError:
            return True
        await asyncio.sleep(0.02)
    return False
