"""The enforcer as a process: what it refuses to be, and its life from Configure to Drain."""
from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import dns.message
import dns.rcode
import msgspec
import pytest
from sources import copy_sources

from agent.contract import messages
from agent.contract.journal import END, EVENT, HEADER
from agent.contract.owner import Owner, Process
from agent.contract.target import Egress, Names, Target
from enforcer import app
from enforcer.core.gate import CedarGate
from enforcer.policy.cedar import load_policies
from enforcer.words.errors import RecordingError
from enforcer.words.events import CONFIGURED

UID = 65534
OTHER = ["setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups"]
BARE = [*OTHER, "--inh-caps", "-all", "--bounding-set", "-all"]
SECRET = "hunter2"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user: run as root")


@pytest.fixture(scope="module")
def sources() -> Iterator[Path]:
    """The two packages where another user can read them."""
    directory = Path(tempfile.mkdtemp(prefix="weir-app-"))
    directory.chmod(0o755)
    yield copy_sources(directory / "code")
    shutil.rmtree(directory)


@pytest.fixture
def journal() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="weir-app-journal-"))
    os.chown(directory, UID, UID)
    yield directory
    shutil.rmtree(directory)


def command(sources: Path, *options: str) -> list[str]:
    start = f"import sys; sys.path.insert(0, {str(sources)!r}); from enforcer.app import main; sys.exit(main())"
    return [sys.executable, "-I", "-c", start, *options]


class Agent:
    """Stands where the agent stands: starts the enforcer and answers whois."""

    def __init__(self, sources: Path, journal: Path) -> None:
        self.sources, self.journal = sources, journal
        self.owner: Owner | None = None
        self.answers: asyncio.Queue[messages.FromEnforcer] = asyncio.Queue()

    async def start(self) -> None:
        mine, theirs = socket.socketpair()
        listening, names = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
        self.port, self.dns = listening.getsockname()[1], names.getsockname()[1]
        numbers = [one.fileno() for one in (theirs, listening, names)]
        options = (word for pair in zip(("--channel", "--listeners", "--dns"), map(str, numbers), strict=True)
                   for word in pair)
        self.process = await asyncio.create_subprocess_exec(
            *BARE, *command(self.sources, *options), pass_fds=numbers, stderr=subprocess.PIPE, cwd="/")
        for one in (theirs, listening, names):
            one.close()
        self.reader, self.writer = await asyncio.open_unix_connection(sock=mine)
        self.listening = asyncio.create_task(self.listen())

    async def listen(self) -> None:
        while True:
            try:
                size = messages.parse_length(await self.reader.readexactly(4))
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            message = messages.parse_from_enforcer(await self.reader.readexactly(size))
            if isinstance(message, messages.Whois):
                self.say(messages.WhoisAnswer(message.number, self.owner, "" if self.owner else "nobody's"))
            else:
                self.answers.put_nowait(message)

    def say(self, message: messages.Message) -> None:
        self.writer.write(messages.render_frame(message))

    async def ask(self, message: messages.Message) -> messages.FromEnforcer:
        self.say(message)
        return await asyncio.wait_for(self.answers.get(), 20)

    def configuration(self, number: int = 1, **more) -> messages.Configure:
        wanted = {"targets": (), "egress": (), "policies": {}, "journal": str(self.journal), "reserve": 1 << 20, **more}
        return messages.Configure(number, "weir", forwarded_key=SECRET.encode().ljust(32, b"."), **wanted)

    async def ended(self) -> tuple[int, str]:
        _, error = await asyncio.wait_for(self.process.communicate(), 20)
        return self.process.returncode or 0, error.decode()

    async def close(self) -> None:
        self.writer.close()
        if self.process.returncode is None:
            code, error = await self.ended()
            assert code == 1, error
        await self.listening


@pytest.fixture
async def agent(sources: Path, journal: Path) -> AsyncIterator[Agent]:
    one = Agent(sources, journal)
    await one.start()
    yield one
    await one.close()


def owner(port: int) -> Owner:
    process = Process(4711, "/usr/bin/python3", "", ("python3",))
    return Owner("crew", 1000, "crew", "local:crew", (), process, "/crew", 9, "127.0.0.1", port, "mark", "", "model")


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


def last_record(journal: Path) -> int:
    """Kind of the last record of the enforcer's only journal file."""
    [path] = journal.glob("enforcer0-*.journal")
    raw, kind = path.read_bytes(), 0
    while raw:
        kind, size, _ = HEADER.unpack_from(raw)
        raw = raw[HEADER.size + size:]
    return kind


def test_root_is_refused(sources: Path) -> None:
    done = subprocess.run(
        command(sources, "--channel", "0", "--listeners", "0"), capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 1
    assert "never runs as root" in done.stderr


def test_a_capability_is_refused(sources: Path) -> None:
    done = subprocess.run(
        [*OTHER, "--inh-caps", "+net_bind_service", "--ambient-caps", "+net_bind_service",
         *command(sources, "--channel", "0", "--listeners", "0")],
        capture_output=True, text=True, check=False, cwd="/",
    )
    assert done.returncode == 1
    assert "capabilities" in done.stderr


async def test_life(agent: Agent) -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    upstream = server.sockets[0].getsockname()[1]
    egress = (Egress("model", ("127.0.0.1",), (upstream,)),)
    assert await agent.ask(messages.Ping(7)) == messages.Pong(7)
    assert await agent.ask(agent.configuration(1, egress=egress)) == messages.Configured(1)
    agent.owner = owner(upstream)
    reader, writer = await asyncio.open_connection("127.0.0.1", agent.port)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    answer = await agent.ask(messages.ListSessions(2))
    assert [(one.workload, one.state, one.target) for one in answer.sessions] == [("crew", "flow", "model")]
    assert (await agent.ask(messages.AskStatistics(3))).values["flows"] == 1
    assert await agent.ask(messages.EndSession(4, answer.sessions[0].session, "enough")) == messages.SessionEnded(
        4, answer.sessions[0])
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    agent.owner = None
    reader, writer = await asyncio.open_connection("127.0.0.1", agent.port)
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    assert await agent.ask(messages.Drain(5)) == messages.Done(5)
    code, error = await agent.ended()
    assert code == 0
    assert SECRET not in error
    assert last_record(agent.journal) == END
    server.close()


async def test_it_shows_nothing_of_itself_to_its_own_user(agent: Agent) -> None:
    await agent.ask(messages.Ping(1))
    assert Path(f"/proc/{agent.process.pid}/environ").stat().st_uid == 0       # not dumpable
    limits = Path(f"/proc/{agent.process.pid}/limits").read_text().splitlines()
    [core] = [line for line in limits if line.startswith("Max core file size")]
    assert core.split()[4:6] == ["0", "0"]
    status = Path(f"/proc/{agent.process.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status


async def test_what_is_wrong_with_a_configuration(agent: Agent) -> None:
    unknown = Target("t", "gopher", ("h",), 1, ())
    answer = await agent.ask(agent.configuration(1, targets=(unknown,)))
    assert "no protocol 'gopher'" in answer.error
    answer = await agent.ask(agent.configuration(2, policies={"x.cedar": "permit (principal"}))
    assert answer.error.startswith("x.cedar:")
    answer = await agent.ask(agent.configuration(3, journal="/nonexistent"))
    assert "/nonexistent" in answer.error
    answer = await agent.ask(agent.configuration(3, modes={"crew": "permissive"}))
    assert "a mode of egress is one of enforce, shadow, record" in answer.error
    assert await agent.ask(agent.configuration(4)) == messages.Configured(4)
    answer = await agent.ask(agent.configuration(5, journal="/elsewhere"))
    assert "only with a restart" in answer.error
    answer = await agent.ask(agent.configuration(6, policies={"x.cedar": "permit (principal"}))
    assert answer.error
    assert await agent.ask(agent.configuration(7)) == messages.Configured(7)


@pytest.mark.parametrize("halves", [(), (False,)])
async def test_before_it_is_ready_connections_wait(agent: Agent, halves: tuple[bool, ...]) -> None:
    """Not configured, or configured while names are still being asked for."""
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    upstream = server.sockets[0].getsockname()[1]
    agent.owner = owner(upstream)
    await agent.ask(messages.Ping(1))
    for number, ready in enumerate(halves, 2):
        await agent.ask(agent.configuration(number, ready=ready))
    reader, writer = await asyncio.open_connection("127.0.0.1", agent.port)
    writer.write(b"hello")
    await agent.ask(messages.Ping(8))
    assert (await agent.ask(messages.AskStatistics(9))).values["arriving"] == 0
    await agent.ask(agent.configuration(10, egress=(Egress("model", ("127.0.0.1",), (upstream,)),)))
    assert await asyncio.wait_for(reader.readexactly(5), 20) == b"hello"
    writer.close()
    server.close()


async def test_before_it_knows_names_questions_wait(agent: Agent) -> None:
    """Each would be refused, and recorded as refused."""
    reader, writer = await asyncio.open_connection("127.0.0.1", agent.dns)
    question = dns.message.make_query("db.example", "A").to_wire()
    writer.write(len(question).to_bytes(2, "big") + question)
    for number in range(1, 4):
        assert await agent.ask(messages.Ping(number)) == messages.Pong(number)
    names = Names(None, ("db.example",))
    assert await agent.ask(agent.configuration(4, names=names, ready=False)) == messages.Configured(4)
    asked = await asyncio.wait_for(agent.answers.get(), 20)
    assert isinstance(asked, messages.WhoAsks)
    agent.say(messages.AskerAnswer(asked.number, "crew"))
    recorded = await asyncio.wait_for(agent.answers.get(), 20)
    assert isinstance(recorded, messages.NameAsked)
    assert recorded.verdict == "failed", "it is permitted, and there is no resolver"
    agent.say(messages.NameRecorded(recorded.number))
    said = dns.message.from_wire(await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big")))
    assert said.rcode() == dns.rcode.SERVFAIL
    writer.close()


async def test_without_its_agent_it_ends(agent: Agent) -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    upstream = server.sockets[0].getsockname()[1]
    await agent.ask(agent.configuration(1, egress=(Egress("model", ("127.0.0.1",), (upstream,)),)))
    agent.owner = owner(upstream)
    reader, writer = await asyncio.open_connection("127.0.0.1", agent.port)
    writer.write(b"x")
    await reader.readexactly(1)
    agent.writer.close()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    code, error = await agent.ended()
    assert (code, "the agent is gone" in error) == (1, True)
    assert last_record(agent.journal) == END
    server.close()


async def test_sigterm_drains(agent: Agent) -> None:
    await agent.ask(agent.configuration(1))
    agent.process.send_signal(signal.SIGTERM)
    assert (await agent.ended())[0] == 0
    assert last_record(agent.journal) == END


async def test_garbage_on_the_channel_ends_it(agent: Agent) -> None:
    agent.writer.write(b"\xff" * 8)
    assert (await agent.ended())[0] == 1


async def test_holds_that_could_not_be_expired_once_are_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:
    """A failed sync ended the ticking: from then on nothing that was in force for a while ended."""
    ended = asyncio.Event()

    class Failing:
        times = 0

        def next_deadline(self) -> int:
            return 0

        def expire(self) -> None:
            self.times += 1
            if self.times < 3:
                raise RecordingError(SECRET)
            ended.set()

    monkeypatch.setattr(app, "TICK", 0.01)
    enforcer = app.Enforcer(asyncio.get_running_loop())
    enforcer.edge.holds = Failing()  # type: ignore[assignment]
    ticking = asyncio.create_task(enforcer._tick())
    await asyncio.wait_for(ended.wait(), 5)
    ticking.cancel()
    assert "RecordingError" in caplog.text
    assert SECRET not in caplog.text


async def test_other_policies_are_told_to_what_was_approved(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Told:
        times = 0

        def renew(self) -> None:
            self.times += 1
            raise RecordingError(SECRET)

        def lock_out(self, why: object) -> None:
            pass

    enforcer, told = app.Enforcer(asyncio.get_running_loop()), Told()
    configure = messages.Configure(1, "weir", (), (), {}, str(journal), forwarded_key=b"k" * 32)
    monkeypatch.setattr(app.masks, "set_key", lambda key: None)
    first, other = load_policies({}), load_policies({"a.cedar": PERMITS})
    enforcer._gate = CedarGate(first)
    enforcer.edge.holds = told  # type: ignore[assignment]
    for policies, times in ((first, 0), (other, 1), (other, 1), (first, 2)):
        enforcer._take(configure, policies, (frozenset(), 0))
        assert told.times == times
        assert enforcer._gate.policies is policies


def configured(journal: Path) -> list[tuple[str, dict[str, str]]]:
    """Digest and files of each `configured` event."""
    [path] = journal.glob("enforcer0-*.journal")
    raw, found = path.read_bytes(), []
    while raw:
        kind, size, _ = HEADER.unpack_from(raw)
        body, raw = raw[HEADER.size:HEADER.size + size], raw[HEADER.size + size:]
        if kind == EVENT and (event := msgspec.msgpack.decode(body))[0] == CONFIGURED:
            found.append((event[3], event[4]))
    return found


PERMITS = '@id("in") permit (principal in Group::"data", action == Action::"elevate", resource == Target::"t");'


async def test_what_is_prepared_counts_when_it_is_put_in_force(agent: Agent, journal: Path) -> None:
    """The recording has which one is, once for each, before anything that it decides."""
    target = (Target("t", "postgresql", ("db.example",), 5432, ("192.0.2.1",)),)
    said = {"targets": target, "digest": "a" * 64, "files": {"/etc/weir/weir.toml": "b" * 64}}
    asked = messages.AskElevation(9, "local:zoë", "zoë", 1000, ("data",), "t", 60)

    assert await agent.ask(messages.PutInForce(1, frozenset(), 1)) == messages.Done(1, "nothing is prepared")
    assert await agent.ask(agent.configuration(2, **said)) == messages.Configured(2)
    assert await agent.ask(agent.configuration(3, **said)) == messages.Configured(3), "names changed"
    more = said | {"policies": {"a.cedar": PERMITS}, "digest": "c" * 64}
    assert await agent.ask(agent.configuration(4, **more, prepare=True)) == messages.Configured(4)
    old = await agent.ask(asked)
    assert isinstance(old, messages.ElevationAsked)
    assert old.error, "nothing permits it yet"
    assert await agent.ask(messages.PutInForce(7, frozenset(), 1)) == messages.Done(7)
    answer = await agent.ask(asked)
    assert isinstance(answer, messages.KeepTicket), "it is permitted, and is to be kept"
    while isinstance(answer, messages.KeepTicket):
        answer = await agent.ask(messages.TicketKept(answer.number))
    assert (type(answer), answer.error) == (messages.ElevationAsked, "")
    assert (await agent.ask(messages.PutInForce(10, frozenset(), 1))).error == "nothing is prepared"
    wrong = {"policies": {"a.cedar": PERMITS[:-1]}, "digest": "d" * 64}
    assert "a.cedar:1:" in (await agent.ask(agent.configuration(11, **said | wrong, prepare=True))).error
    assert (await agent.ask(messages.PutInForce(12, frozenset(), 1))).error == "nothing is prepared"
    await agent.ask(messages.Drain(13))
    assert (await agent.ended())[0] == 0
    assert configured(journal) == [("a" * 64, said["files"]), ("c" * 64, said["files"])]
