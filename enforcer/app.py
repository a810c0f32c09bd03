"""The enforcer's composition root: the one place where parts are put together.

    python -I -m enforcer.app --channel FD --doors FD --listeners FD,FD --dns FD,FD --local FD:TARGET

The agent starts it as an unprivileged user with these descriptors inherited; it refuses to run with any privilege.
Exit: 0 after Drain or SIGTERM, 1 where it may not run or the agent is gone (docs/decisions/0003).
"""
from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import uvloop

from agent.contract.logs import log_to_stderr
from agent.contract.messages import REPORTS, Configure, PutInForce
from agent.contract.people import People
from agent.contract.target import MODES
from enforcer import protocols
from enforcer.approval.holds import Holds
from enforcer.core.gate import CedarGate
from enforcer.dns.server import Server
from enforcer.dns.service import Service
from enforcer.edge import clock
from enforcer.edge.catalogue import Catalogues
from enforcer.edge.channel import Channel, open_channel
from enforcer.edge.commit import GroupCommit
from enforcer.edge.edge import Configuration, Edge
from enforcer.edge.flows import Flow
from enforcer.edge.keeping import Keeper
from enforcer.edge.listener import listen, listen_local
from enforcer.edge.plans import Plans
from enforcer.edge.reporters import Reporters
from enforcer.edge.running import is_there
from enforcer.networks import Networks
from enforcer.policy import masks
from enforcer.policy.cedar import PolicySet, load_policies
from enforcer.privileges import check_privileges, harden
from enforcer.recording.journal import JournalWriter
from enforcer.recording.signing import name_key
from enforcer.words import events
from enforcer.words.errors import ConfigError, PlatformError, RecordingError

LOG = logging.getLogger("weir.app")

WRITER: Final = "enforcer0"
DRAIN: Final = 8.0                    # seconds that sessions get to say their last words
TICK: Final = 1.0                     # seconds between looks at the holds' deadlines


class Enforcer:
    """Everything that lives as long as the process."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.channel = Channel(self.configure, self.drain, self._resolve, self.force)
        self.edge = self.channel.edge = Edge(loop, self.channel)
        self._reporters = self.edge.reports = Reporters(self.edge)
        self._dns = Service(self.channel, loop.time, self.edge.count, self.edge.families.give,
                            lambda workload: self.edge.locked.why(workload=workload))
        self.edge.barring = self._dns.ask_anew
        self.edge.on_holds, self.edge.on_live = self.channel.changes.holds, self.channel.changes.sessions
        self._resolver = Server(self._dns)
        self._loop = loop
        self._listeners = self._dns_doors = tuple[int, ...]()
        self._local: dict[str, int] = {}
        self._journal: Path | None = None
        self._servers: list[asyncio.AbstractServer] = []
        self._gate: CedarGate | None = None
        self._policies: tuple[dict[str, str], PolicySet] | None = None     # of what was read last: texts, and the set
        self._prepared: tuple[Configure, PolicySet] | None = None
        self._warm: set[str] = set()  # protocols
        self._recorded = ""           # digest of the configuration that the journal says is in force, and its key
        self.ended = asyncio.Event()
        self.code = 1

    async def run(
        self, channel: int, listeners: tuple[int, ...], dns: tuple[int, ...] = (), local: dict[str, int] | None = None,
        doors: int = -1,
    ) -> int:
        """Until drained or the agent is gone.  Gives the exit code.  `local`: listeners on Unix sockets, by target;
        `doors`: where those of other networks come in."""
        self._networks = self.channel.networks = Networks(self.edge, self._resolver, doors)
        self._loop.add_signal_handler(signal.SIGTERM, lambda: self._loop.create_task(self.drain()))
        self._listeners, self._local, self._dns_doors = listeners, local or {}, dns
        await open_channel(channel, self.channel)
        ticking = self._loop.create_task(self._tick())
        closed = self._loop.create_task(self.channel.closed.wait())
        ended = self._loop.create_task(self.ended.wait())
        await asyncio.wait({closed, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not self.ended.is_set():
            LOG.error("the agent is gone: the enforcer ends")
            await self._end("Weir's agent ended")
        for task in (ticking, closed, ended):
            task.cancel()
        return self.code

    async def configure(self, message: Configure) -> str:
        """Put it in force, or with `prepare` only have it ready; what is wrong with it, and then what was in force
        stays."""
        self._prepared = None
        try:
            self._check(message)
            policies = await self._load(message)
            self._open_journal(message, policies)
            if message.prepare:
                self._prepared = message, policies
                return ""
            before = self.edge.configuration
            self._take(message, policies, (before.standing, before.horizon) if before else (frozenset(), 0))
        except ConfigError as error:
            return str(error)
        except RecordingError as error:
            return f"{message.journal}:0:0: {error}"
        await self._open_doors(message)
        return ""

    async def force(self, message: PutInForce) -> str:
        """What `configure` has prepared last.  As that; nothing is awaited before it is in force."""
        prepared, self._prepared = self._prepared, None
        if prepared is None:
            return "nothing is prepared"
        configure, policies = prepared
        try:
            self._take(configure, policies, (message.standing, message.horizon))
        except RecordingError as error:
            return f"{configure.journal}:0:0: {error}"
        await self._open_doors(configure)
        return ""

    def _take(self, message: Configure, policies: PolicySet, standing: tuple[frozenset[int], int]) -> None:
        """In one pass.  Raises RecordingError: it cannot be said in the recording, and nothing has changed."""
        self._record(message)
        assert self._gate is not None
        if self._gate.policies is not policies:
            self._gate.replace(policies)
            self._renew_approvals()
        self.edge.know(People(message.people))
        self.edge.put_in_force(Configuration(
            {target.name: target for target in message.targets}, {entry.name: entry for entry in message.egress},
            self._gate, message.forwarded_key, message.max_sessions, message.durable, message.modes, *standing,
        ))
        self.edge.lock(message.locks)
        for one in tuple(self.edge.live.values()):
            if isinstance(one, Flow):
                one.reconsider()
        # Equal values look equal under the `hash` mask for as long as this key lives.
        masks.set_key(message.mask_key or blake2b(b"masks", digest_size=32, key=message.forwarded_key).digest())
        if self.edge.holds is not None and message.approval_key:
            with suppress(RecordingError):     # then every session ends for it
                self.edge.holds.rekey(message.approval_key)
        self._dns.configure(message.names, message.modes, [host for one in message.targets for host in one.hosts])
        LOG.info("configured: %d targets, %d egress entries", len(message.targets), len(message.egress))
        gc.freeze()                   # what is loaded stays: the collector need not walk it again and again

    def _record(self, message: Configure) -> None:
        key = name_key(message.forwarded_key)
        if not message.digest or self._recorded == f"{message.digest} {key}":
            return
        assert self.edge.commit is not None
        files = dict(sorted(message.files.items()))
        self.edge.commit.append(events.Configured(
            events.CONFIGURED, clock.now(), clock.monotonic(), message.digest, files, key))
        self._recorded = f"{message.digest} {key}"

    async def _open_doors(self, message: Configure) -> None:
        dns, self._dns_doors = self._dns_doors, ()
        await self._resolver.open(dns)         # not before: every name would be refused, and recorded so
        if message.ready and self._listeners:
            listeners, self._listeners = self._listeners, ()
            if (reports := self._local.pop(REPORTS, -1)) >= 0:
                self._reporters.listen(reports)
            self._servers = [*await listen(self.edge, listeners), *await listen_local(self.edge, self._local)]
            await self._networks.ready()

    async def _resolve(self, name: str) -> tuple[tuple[str, ...], int]:
        return await self._dns.resolve(name)

    def _check(self, message: Configure) -> None:
        for target in message.targets:
            protocols.find(target.protocol)
        if self._journal is not None and Path(message.journal) != self._journal:
            raise ConfigError("weir.toml", 0, 0, "the journal's directory can be changed only with a restart")
        if len(message.forwarded_key) != 32 or message.durable not in ("writes", "all", "none"):
            raise ConfigError("weir.toml", 0, 0, "forwarded_key has 32 bytes; durable is writes, all or none")
        if not set(message.modes.values()) <= set(MODES):
            raise ConfigError("weir.toml", 0, 0, f"a mode of egress is one of {', '.join(MODES)}")

    async def _load(self, message: Configure) -> PolicySet:
        """Beside what runs: it may take seconds.  The same texts are not read again."""
        for name in sorted({target.protocol for target in message.targets} - self._warm):
            await asyncio.to_thread(protocols.find(name).warm)
            self._warm.add(name)
        if self._policies is None or self._policies[0] != message.policies:
            found = await asyncio.to_thread(load_policies, message.policies, checked=message.prepare)
            self._policies = message.policies, found
        return self._policies[1]

    def _open_journal(self, message: Configure, policies: PolicySet) -> None:
        if self._journal is not None:
            return
        journal = JournalWriter(
            Path(message.journal), WRITER, os.urandom(8).hex(), limit=message.journal_limit, reserve=message.reserve,
        )
        edge, gate = self.edge, CedarGate(policies)
        edge.commit = GroupCommit(self._loop, journal, message.journal_limit, edge.recording_failed, edge.press)
        edge.keeper = Keeper(self._loop, self.channel.keep, edge.commit.write_now)
        edge.holds = Holds(
            clock.now, clock.monotonic, os.urandom, edge.answer_hold, edge.hold_changed, edge.keeper.keep,
            message.approval_key, gate.elevate, clock.boot(), is_there)
        edge.holds.restore(message.kept)
        edge.catalogues, edge.plans = Catalogues(edge), Plans(edge)
        self._journal, self._gate = Path(message.journal), gate

    def _renew_approvals(self) -> None:
        if self.edge.holds is not None:
            with suppress(RecordingError):     # then every session ends for it
                self.edge.holds.renew()

    async def drain(self) -> None:
        """Accept nothing more, end sessions with the protocol's own error, close the journal."""
        await self._end("Weir is stopping")
        self.code = 0
        self.ended.set()

    async def _end(self, reason: str) -> None:
        if self.edge.draining:
            await self.ended.wait()
            return
        self.edge.draining = True
        self._listeners = ()
        self._resolver.close()
        self._reporters.end()
        self._networks.end()
        for server in self._servers:
            server.close()
        for one in tuple(self.edge.live.values()):
            one.end(reason)
        try:
            async with asyncio.timeout(DRAIN):
                while self.edge.live:
                    await self.edge.idle.wait()
        except TimeoutError:
            LOG.warning("%d sessions did not end in time", len(self.edge.live))
        self.edge.tell()
        if self.edge.commit is not None:
            try:
                self.edge.commit.close()
            except RecordingError as error:
                LOG.error("the journal could not be closed in order: %s", error)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            holds = self.edge.holds
            if holds is not None and holds.next_deadline() is not None:
                _expire(holds)


def _expire(holds: Holds) -> None:
    """Whatever goes wrong once: what is in force for a while must end, now or the next time."""
    try:
        holds.expire()
    except Exception as error:
        LOG.error("holds could not be expired: %s", type(error).__name__)


def _unexpected(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    LOG.error("unexpected: %s (%s)", context.get("message", ""), type(error).__name__ if error else "no exception")


async def _run(
    channel: int, listeners: tuple[int, ...], dns: tuple[int, ...], local: dict[str, int], doors: int,
) -> int:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_unexpected)
    return await Enforcer(loop).run(channel, listeners, dns, local, doors)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="enforcer.app", description="Started by `weir agent`.")
    parser.add_argument("--channel", type=int, required=True, metavar="FD")
    parser.add_argument("--doors", type=int, default=-1, metavar="FD")
    parser.add_argument("--listeners", required=True, metavar="FD,FD")
    parser.add_argument("--dns", default="", metavar="FD,FD")
    parser.add_argument("--local", default="", metavar="FD:TARGET,FD:TARGET")
    options = parser.parse_args(argv)
    log_to_stderr()
    try:
        check_privileges()
        harden()
    except PlatformError as error:
        LOG.error("%s", error)
        return 1
    listeners, dns = (tuple(int(one) for one in given.split(",") if one) for given in (options.listeners, options.dns))
    local = {name: int(fd) for fd, _, name in (one.partition(":") for one in options.local.split(",") if one)}
    return uvloop.run(_run(options.channel, listeners, dns, local, options.doors))


if __name__ == "__main__":
    sys.exit(main())
