"""`weir agent`: the order of start and stop, and the watch between them.

Start: directories, journal, owner table; the block (probes, then rules) before anything else can open; launcher;
listeners; recorder; enforcer; control socket; names, which the enforcer resolves; trust; self-probe.  Only then
"enforcing".

Stop leaves the block: whatever runs in the slice is cut off.  Only `release` takes it away, when the slice is empty.
A killed agent leaves the same behind as a stopped one, and its launcher goes on to serve what runs; the next agent
adopts that by RUN/owners.json.  The enforcer ends with its agent (docs/decisions/0003).
"""
from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Coroutine, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from agent.actions import Launches, Questions
from agent.block import selfprobe
from agent.block.connects import connect_events
from agent.block.kernel import Kernel, Origin
from agent.block.watch import Watch
from agent.channel import ChannelError
from agent.config import Config
from agent.contract import logs, messages
from agent.contract.control import Answered, Message
from agent.contract.target import ENFORCE, Egress, Names, Target
from agent.control import Control, Groups
from agent.credential import vaults
from agent.credential.credentials import Credentials
from agent.credential.trust import NO_TRUST, Trust, TrustTarget, prepare_trust, publish_trust, resolv_conf, write_public
from agent.credential.vaults import VaultDesk
from agent.journal import Journal, JournalError, backlog, plain
from agent.keys import Keys
from agent.layout import Accounts, find_accounts, make_directories
from agent.metrics.desk import Metrics
from agent.network import local
from agent.network.doors import close_all
from agent.network.handover import Handover
from agent.network.interfaces import OwnAddresses
from agent.network.names import Askers, at_intervals, patterns
from agent.network.netns import current_cookie
from agent.network.networks import Networks
from agent.network.resolve import Known, Places, Resolver, Unresolved
from agent.notify.at_page import AtPage
from agent.notify.notifications import Notifications
from agent.parts import Parts
from agent.people.identities import Identities
from agent.people.locks import Locks
from agent.reconciling import Ledger
from agent.reloading import Reloading, said_of
from agent.rotation import Rotation
from agent.services import Enforcer, Recorder, end_all, wait_empty
from agent.settings.credential_table import KUBERNETES, SSH
from agent.ssh.host_keys import prepare_hosts
from agent.stamps import Stamps
from agent.status import BLOCK, ENFORCING, Health, said_of_mode
from agent.tickets import Tickets
from agent.unit.adopted import Units
from agent.unit.units import tell_systemd
from agent.watching import Watching
from agent.web.page import Web
from agent.whois import Answers
from agent.workload.container import CONTAINER
from agent.workload.container_args import PROFILE
from agent.workload.containers import Containers
from agent.workload.facts import Hashes
from agent.workload.launch import HOST, Ended
from agent.workload.launching import LauncherDoor
from agent.workload.owners import Owners, Start
from agent.workload.seccomp import render_profile
from agent.workload.sharing import Sharing

LOG = logging.getLogger("weir.agent")

WATCH: Final = 1.0                    # seconds between looks at everything but the block
PREDECESSOR: Final = 10.0             # seconds that the enforcer and recorder of a killed agent may take to end
FIRST: Final = 10.0                   # seconds that the start waits for the enforcer to be configured
KILLED: Final = 10.0                  # seconds that killed processes of the slice may take to go
RETRY: Final = 1.0                    # seconds before the launcher is started again
RING_LINES: Final = 100_000           # connects that wait for the journal; more stay in the ring, and then are refused
SHARED: Final = 10.0                  # seconds between looks at who else has the workloads' uids and directories
RECONFIGURE: Final = 5.0              # seconds between configurations because names lead elsewhere
RESOLVED: Final = 15.0                # seconds that the enforcer may take to resolve a name
BOUNDED: Final = {"connect": "connects.bounded", "question": "dns.bounded"}
HELPERS: Final = "helpers"            # cgroup of what gets credentials
OWN: Final = ("enforcer", "recorder", "identity", "web", vaults.BESIDE, "notify", "metrics")       # of other processes
CONTAINERS, NAMES = "containers", "names that lead elsewhere"
PROBE: Final = "weir-self-probe"      # the workload that the self-probe is attributed to


class Agent:
    """Everything that lives as long as the process.  `run` is its life."""

    def __init__(self, config: Config, kernel: Kernel, *, cgroups: Path, handover: Handover) -> None:
        """`cgroups`: the root of cgroup v2."""
        self.config, self.kernel, self.cgroups, self.handover = config, kernel, cgroups, handover
        self.health = Health()
        self.parts = Parts(self.health.failing, self.tell)
        self._untold = 0              # connects of which nobody could tell whose they are, since the last look
        self.since = time.time_ns()
        self.accounts: Accounts = find_accounts(config)
        self.places = Places((), (), Known())
        self._addresses = OwnAddresses()
        self.trust: Trust = NO_TRUST
        self._named = False           # names have been asked for, and trust is prepared for their addresses
        self.own = cgroups / f"{config.runtime.name}.weir"
        self._stop = asyncio.Event()
        self._error = ""              # why the agent ends with 1
        self.reconfigure = asyncio.Event()
        self.looking = asyncio.Lock()         # at the block, or changing it
        self.reloading = asyncio.Lock()
        self.reloads, self.stamps, self.rotation = Reloading(self), Stamps(), Rotation(self)
        self.hurried: set[str] = set()         # targets whose next authority waits for nobody
        self.turn = asyncio.Event()   # not set: one configuration takes another's place, and nobody is attributed
        self.turn.set()
        self.released = self._came_up = False
        self._ring: list[Origin] = []
        self._ring_open = False
        self._shared_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._sockets: asyncio.Task[None] | None = None        # the look at what crews hold

    # life

    async def run(self) -> int:
        """Exit code: 0 after stop or release, 1 where it could not start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        try:
            await self._start()
            loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self._reload_by_signal()))
            await self._stop.wait()
        finally:
            await self._end()
        if self._error:
            LOG.error("%s", self._error)
        return 1 if self._error else 0

    async def _start(self) -> None:
        config = self.config
        make_directories(config, self.accounts)
        self.journal = Journal(config.journal, self.accounts.audit.pw_gid)
        self.tell("agent.started", {"pid": os.getpid(), "config": config.file, "runtime": config.runtime.name,
                                    **said_of(config)})
        self.tell_modes(None, config.egress_modes)
        self.keys, self.tickets = Keys(config.state, self.accounts.audit.pw_gid), Tickets(config.state, self.tell)
        self.owners, self.hashes = Owners(config.run / "owners.json"), Hashes()
        self.sharing = Sharing(lambda: self.config, self.kernel.is_crew, self.owners, self.tell)
        await asyncio.to_thread(self.kernel.install)
        self.locks = Locks(self)      # not before: where its file is broken, the block stands
        await asyncio.to_thread(self.kernel.remark, self.owners.marked())
        self._open_ring()
        self.watch = Watch(self)
        self.watch.open()
        await self._look()
        self.launcher = LauncherDoor(self._command_ended, self._launcher_lost)
        self.launches = Launches(self)
        self.containers = Containers(self, self.cgroups)
        self.units = Units(self)
        self.identities = Identities(self)
        self.questions, self.web, self.metrics = Questions(self), Web(self), Metrics(self)
        self.owners.elsewhere = self.units.find
        await self._start_launcher()
        if self.health.launcher:
            self._spawn(self._restart_launcher())
        self.resolver = Resolver(self._ask_name, self._resolved)
        await self._end_predecessors()
        self.handover.begin(config.runtime.name)
        self.listeners, self.dns = await asyncio.to_thread(
            self.handover.open_doors, current_cookie(), config.enforcer.port, config.dns.listen, self.kernel)
        self.local = local.open_local(
            config.run / local.DIRECTORY, config.targets, (messages.REPORTS,), self.handover.open_local)
        self.networks = Networks(
            self.kernel, config.enforcer.port, config.dns.listen, lambda network: self.enforcer.give(network),
            lambda netns: self.enforcer.withdraw(netns), self.handover)
        self._start_services()
        await self._recover_networks()
        await self.parts.run(CONTAINERS, self.containers.look)
        self.handover.settle()
        self.control = Control(config.control, self.questions, self._groups, self.kernel.is_crew, self.tell)
        self.control.open()
        self._spawn(self._first_configuration())
        await asyncio.wait({self.enforcer.first}, timeout=FIRST)
        await self._first_names()
        await self._probe()
        self.health.starting = False
        self.news()
        self._came_up = True
        tell_systemd("READY=1")
        for work in (self._watch(), at_intervals(self.reconfigure, RECONFIGURE, self._take_names)):
            self._spawn(work)

    def _start_services(self) -> None:
        config = self.config
        self.ledger = Ledger(
            self.kernel, self.owners, config.journal, config.enforcer.port, self.tell, self._alarms_changed,
            lambda: (self.enforcer.began, self.enforcer.up and not self.health.journal))
        self.recorder = Recorder(
            config.runtime.audit_user, self.own / "recorder", self.tell, self._service_changed,
            ["--journal", str(config.journal), "--recording", str(config.recordings), "--checkpoint-seconds",
             str(config.recording.checkpoint), "--rotate-bytes", str(config.recording.rotate)],
            self.ledger.question, lambda answer: self.parts.run("the ledger", lambda: self.ledger.told(answer)),
            (config.recordings, config.journal))
        self.askers = Askers(
            self.kernel, self.owners, self.journal, lambda: self.config, self.resolver.known, self._given,
            self._addresses.has, lambda start: self.identities.barred(start))
        self.vaults = VaultDesk(self.own / vaults.BESIDE, lambda: self.config, self.tell, self.news)
        self.credentials = Credentials(self.own / HELPERS, self.vaults)
        answers = Answers(
            self.kernel, self.owners, self.hashes, self.cgroups, lambda: self.config, lambda: self.places,
            self.ledger.handed, self.askers, self.credentials, self.tickets.keep,
            principal=self.identities.principal, stamp=self.stamps.stamp, settled=self.turn.wait)
        self.enforcer = Enforcer(
            config.runtime.user, self.own / "enforcer", self.tell, self._service_changed,
            [one.fileno() for one in self.listeners], [one.fileno() for one in self.dns],
            {name: one.fileno() for name, one in self.local.items()},
            lambda number: self.render(number, self.config, self.places, self.trust, self._named), answers.answer,
            lambda: self.networks, self.vaults.unused, (config.journal,))
        self.watching = Watching(lambda: self.enforcer.channel)
        self.notifications = Notifications(self)
        at_page = AtPage(self.notifications)
        self.web.links, self.web.parts["slack"] = at_page, at_page.slack
        self.recorder.start()
        self.enforcer.start()
        self.identities.configured()
        self.web.configured()
        self.metrics.configured()
        self.vaults.configured()
        self.notifications.configured()

    def render(
        self, number: int, config: Config, places: Places, trust: Trust, ready: bool = True,
    ) -> messages.Configure:
        """With what is in no file of the operator's: keys, locks, and for an enforcer that starts what is kept for it;
        a later one does not look at that."""
        kept = {} if self.enforcer.up else self.tickets.kept()
        return msgspec.structs.replace(
            render_configure(number, config, places, trust, self.keys.forwarded, ready),
            approval_key=self.keys.approval, mask_key=self.keys.mask, kept=kept, locks=self.locks.rendered())

    async def _end(self) -> None:
        """In order, as far as the start came; everything that was said lies in the recording at the end."""
        self.health.stopping = True
        parts = vars(self)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if "watch" in parts:
            self.watch.close()
        if "web" in parts:
            await self.web.stop()
        if "metrics" in parts:
            await self.metrics.stop()
        if "identities" in parts:
            await self.identities.stop()
        if "notifications" in parts:
            await self.notifications.stop()
        if "enforcer" in parts:
            await self.enforcer.stop()
        if "credentials" in parts:
            await self.credentials.close()
        if "launcher" in parts:
            self.launcher.close()
        if "resolver" in parts:
            await self.resolver.close()
        if "journal" in parts:
            self._close_ring()
            self.tell("agent.stopped", {"reason": self._error or "asked to"})
            self.journal.close()
        if "recorder" in parts:
            await self.recorder.stop()
        if "control" in parts:
            await self.control.close()
        if "hashes" in parts:
            self.hashes.close()
        if self.released or not self._came_up:
            self.handover.give_up()
        if "networks" in parts:
            self.networks.close_all()
        if "askers" in parts:
            self.askers.close()
        close_all((*parts.get("listeners", ()), *parts.get("dns", ()), *parts.get("local", {}).values()))
        remove_own(self.own)

    async def _end_predecessors(self) -> None:
        """The children of an agent that was killed end by themselves; what does not is ended."""
        for name in OWN:
            if not await wait_empty(self.own / name, PREDECESSOR):
                LOG.warning("the %s of the agent before this one did not end: killed", name)
                end_all(self.own / name)
                await wait_empty(self.own / name, KILLED)
        for cgroup in (self.own / HELPERS).glob("*/"):
            end_all(cgroup)

    async def _first_configuration(self) -> None:
        """A configuration that is wrong from the start is no state to be in; the block stays.  A journal that cannot be
        written is one: "blocked", until it can."""
        error = await self.enforcer.first
        if error and not error.startswith(str(self.config.journal)):
            self.handover.give_up()
            self._error = f"the configuration is wrong: {error}"
            self._stop.set()

    def stop(self) -> None:
        self._stop.set()

    # recording

    def tell(self, name: str, detail: Mapping[str, object], workload: str = "") -> None:
        """A host event.  What cannot be recorded makes the state "blocked": it is not lost silently."""
        try:
            self.journal.record(name, workload, detail)
        except JournalError as reason:
            self._journal_failed(reason)
        else:
            self.health.journal = ""
            logs.event(name, workload, detail)

    def _journal_failed(self, reason: JournalError) -> None:
        if not self.health.journal:
            LOG.error("the agent's journal cannot be written: %s", reason)
        self.health.journal = str(reason)
        self._pause_ring()

    def news(self) -> None:
        """Say and record what state this is, where it has changed."""
        if news := self.health.news(time.monotonic()):
            state, reasons = news
            said = ": " + "; ".join(reasons) if reasons else ""
            (LOG.info if state == ENFORCING else LOG.warning)("%s%s", state, said, extra=logs.about(state=state))
            tell_systemd(f"STATUS={state}{plain(said)}")
            self.tell(state, {"reason": "; ".join(reasons)} if reasons else {})

    def tell_modes(self, before: Mapping[str, str] | None, now: Mapping[str, str]) -> None:
        """Egress that is not enforced, and what a reload has changed in that.  `before` None: the agent starts."""
        for workload in sorted({*(before or ()), *now}):
            was, mode = (before or {}).get(workload, ENFORCE), now.get(workload, ENFORCE)
            if was != mode:
                LOG.warning("%s", said_of_mode(workload, mode), extra=logs.about(workload=workload))
                self.tell("egress.mode", {"mode": mode, **({} if before is None else {"before": was})}, workload)

    def _alarms_changed(self) -> None:
        self.health.alarms = self.ledger.alarms()
        self.news()

    def _service_changed(self) -> None:
        self.health.enforcer = "" if self.enforcer.up else self.enforcer.error
        self.health.recorder = "" if self.recorder.up else self.recorder.error
        self.web.enforcer_changed()
        if not self.enforcer.up:
            self.vaults.nobody()
        self.watching.began()
        self.news()

    # the ring of connects

    def _open_ring(self) -> None:
        if not self._ring_open:
            asyncio.get_running_loop().add_reader(self.kernel.ring_fd, self._on_ring)
            self._ring_open = True

    def _pause_ring(self) -> None:
        """What is not taken fills the ring, and then the kernel refuses connects: nothing goes unrecorded."""
        if self._ring_open:
            asyncio.get_running_loop().remove_reader(self.kernel.ring_fd)
            self._ring_open = False

    def _close_ring(self) -> None:
        if self._ring_open and not self.released:
            self._on_ring()
        self._pause_ring()

    def _on_ring(self) -> None:
        with self.parts.part("the ring of connects"):
            self._take_ring()

    def _take_ring(self) -> None:
        try:
            self._ring += self.kernel.drain()
        except OSError as reason:
            self._journal_failed(JournalError(f"the ring of connects cannot be read: {reason}"))
            return
        events, untold = connect_events(self._ring, lambda one: self.owners.whose(one.owner, one.cgroup))
        try:
            self.journal.record_all(events)
        except JournalError as reason:
            self._journal_failed(reason)
        else:
            self._untold += untold
            self._ring.clear()
        if len(self._ring) > RING_LINES:
            self._pause_ring()

    # the watch

    async def _watch(self) -> None:
        ticked = 0.0
        while True:
            await self.watch.wait()
            await self._look()
            await self.parts.run(CONTAINERS, self.containers.look)
            if time.monotonic() - ticked >= WATCH / 2:
                ticked = time.monotonic()
                await self._tick()
            self.news()

    async def _tick(self) -> None:
        for name, work in (
            ("what others have at the same places", self.watch.look_beside),
            ("the crews' sockets", self._look_at_sockets),
            ("Weir's own processes", self._look_at_processes),
            ("who else has the workloads' users and directories", self._look_at_workloads),
            ("ends of workloads", self._sweep),
            ("networks of workloads", self._recover_networks),
            ("what came out of turn", self._tell_bounded),
            ("units", self.units.look),
            ("identities", self.identities.look),
            ("the page", self.web.look),
            ("locks", self.locks.look),
            ("names", self._sweep_names),
            ("authorities", self._look_at_authorities),
            ("the journal", self._watch_journal),
            ("the self-probe", self._probe_again),
        ):
            await self.parts.run(name, work)
        untold, self._untold = self._untold, 0
        self.parts.say("whose connects are", f"of {untold} nobody could tell" if untold else "")

    def _look_at_sockets(self) -> None:
        """Beside the watch: what crews do with their sockets may hold this up, and must not hold that up."""
        if self._sockets is None or self._sockets.done():
            self._sockets = self._spawn(self.parts.run(
                "sockets from elsewhere", lambda: self.ledger.look(self.config.ledger.foreign)))

    def _look_at_processes(self) -> None:
        self.watch.processes({"enforcer": self.enforcer.view().pid, "recorder": self.recorder.view().pid,
                              "launcher": self.launcher.pid})

    def _sweep_names(self) -> None:
        if self.resolver.sweep():
            self.forget()

    async def _probe_again(self) -> None:
        if self.health.probe and not self.health.holes:
            await self._probe()

    async def _look_at_workloads(self) -> None:
        """Who else has their uids and directories."""
        if time.monotonic() >= self._shared_at:
            self._shared_at = time.monotonic() + SHARED
            for start, found in await asyncio.to_thread(self.sharing.look):
                self.sharing.take(start, found)
            self.sharing.forget()

    async def _look(self) -> None:
        """At the block; what was put back is tried."""
        with self.parts.part(BLOCK):
            if await self.watch.look() and not self.health.starting:
                self.news()
                await self._probe()

    def _sweep(self) -> None:
        """Starts of an earlier agent's launcher end without a word."""
        for start in self.owners:
            if start.unit or start.network == CONTAINER:
                continue
            if not self.launches.has(start.owner) and not _populated(Path(start.cgroup)):
                with suppress(OSError):
                    Path(start.cgroup).rmdir()
                self.networks.close(start.owner)
                self.owners.end(start.owner)
                self.tell("exit", {"owner": start.owner, "user": start.user, "code": "not known"}, start.workload)

    async def _recover_networks(self) -> None:
        """Of what was started before this agent."""
        before, self.health.networks = self.health.networks, tuple(await self.networks.recover(self.owners))
        if self.health.networks and self.health.networks != before:
            self.tell("network.lost", {"reason": "; ".join(self.health.networks)})

    async def _tell_bounded(self) -> None:
        """What the kernel refused because a workload was too fast: one event each, of however many."""
        try:
            found = await asyncio.to_thread(self.kernel.bounded)
        except Exception as reason:   # what is wrong with the block is said by the watch
            LOG.warning("what came out of turn could not be read: %s", reason)
            return
        for one in found:
            start = self.owners.whose(one.owner, one.cgroup)
            self.tell(BOUNDED[one.what], {
                "owner": one.owner, "refused": one.refused, "unwritten": one.unwritten,
            }, start.workload if start else self.containers.workload(one.cgroup))

    def _watch_journal(self) -> None:
        config = self.config.recording
        waiting = backlog(self.config.journal, "agent-")
        try:
            disk = os.statvfs(self.config.journal)
            free = disk.f_bavail * disk.f_frsize
        except OSError:
            free = 0
        if waiting > config.journal_limit or free < config.reserve:
            self.health.journal = ("the recorder is too far behind" if free >= config.reserve
                                   else f"less than {config.reserve >> 20} MiB are free on the disk")
            self._pause_ring()
        elif self.health.journal or not self._ring_open:
            self.tell("journal.resumed", {})
            if not self.health.journal:
                self._on_ring()
                self._open_ring()

    async def _probe(self) -> None:
        """Processes in the slice try to get out, in each kind of network that a workload may have."""
        kinds = {HOST, *(one.network for one in self.config.workloads)}
        done = await asyncio.gather(*map(self._probe_in, sorted(kinds)))
        before, self.health.probe = self.health.probe, tuple(one for found in done for one in found)
        if self.health.probe and self.health.probe != before:
            self.tell("probe.failed", {"found": "; ".join(self.health.probe)})

    async def _probe_in(self, network: str) -> list[str]:
        """The verdict is the receiver's."""
        owner, where = 0, -1
        cgroup = self.kernel.slice / selfprobe.name()
        try:
            owner = self.owners.draw()
            self.owners.put(Start(owner, PROBE, selfprobe.NOBODY, "nobody", (), str(cgroup), 0, network=network))
            self.launches.add(owner)
            where = await self.launches.network(owner, PROBE, network)
            return await selfprobe.probe(cgroup, lambda pid: self.kernel.mark(pid, owner), where)
        except Exception as reason:   # whatever it is: what was not tried does not count as closed
            return [f"the self-probe could not be run in {network} network: {reason}"]
        finally:
            if where >= 0:
                os.close(where)
            self.launches.discard(owner)

    # launcher

    async def _start_launcher(self) -> None:
        try:
            await self.launcher.start(str(self.kernel.owners))
        except OSError as reason:
            self.health.launcher = f"could not be started: {reason}"
        else:
            self.health.launcher = ""

    def _command_ended(self, ended: Ended) -> None:
        with self.parts.part("ends of commands"):
            self.launches.ended(ended)

    def _launcher_lost(self) -> None:
        self.health.launcher = "ended"
        self.tell("launcher.ended", {})
        self.news()
        if not self.health.stopping:
            self._spawn(self._restart_launcher())

    async def _restart_launcher(self) -> None:
        while self.health.launcher:
            await asyncio.sleep(RETRY)
            await self._start_launcher()
            self.news()

    # names and configuration

    async def _ask_name(self, name: str) -> tuple[tuple[str, ...], float]:
        """By the enforcer: what a DNS server says is parsed where nothing is lost by it."""
        try:
            found = await self.enforcer.channel.ask(
                lambda number: messages.ResolveName(number, name), messages.NameResolved, RESOLVED)
        except ChannelError as reason:
            raise Unresolved(str(reason)) from None
        if found.error:
            raise Unresolved(plain(found.error))
        return found.addresses, float(found.ttl)

    async def _first_names(self) -> None:
        """Until then the enforcer takes no connection: they wait."""
        await self.resolver.set_names(patterns(self.config))
        places, self.trust = await self._prepare(self.config)
        self._take_places(places)
        self._named = True
        with suppress(ChannelError):  # the next one is configured with it
            if error := await self.enforcer.configure():
                LOG.error("the enforcer refused its configuration: %s", error)

    def _given(self, name: str) -> None:
        """A crew's question has led somewhere new: known before the answer goes out."""
        self.places = self.find_places(self.config)
        if any(name in target.hosts for target in self.config.targets):
            self.reconfigure.set()

    def _resolved(self) -> None:
        """A name of the agent's own asking leads somewhere new."""
        try:
            self._take_places(self.find_places(self.config))
        except (ValueError, OSError) as reason:        # said with the next configuration, which meets it again
            LOG.warning("new addresses could not be taken: %s", reason)
        self.reconfigure.set()

    async def _prepare(self, config: Config) -> tuple[Places, Trust]:
        """For this configuration and the names as they are known now.  Raises ValueError, OSError."""
        places = self.find_places(config)
        trust = await asyncio.to_thread(self._prepare_trust, config, places)
        # Crews ask meanwhile, and what they were given holds.
        return self.find_places(config), trust

    def find_places(self, config: Config) -> Places:
        return Places(config.targets, config.egress, self.resolver.known, self._addresses.has)

    def _prepare_trust(self, config: Config, places: Places) -> Trust:
        trust = self.make_trust(config, places, self.trust)
        self.refresh_files(config)
        return trust

    def make_trust(self, config: Config, places: Places, also: Trust = NO_TRUST) -> Trust:
        """And its files, which have the authorities of `also` as well.  Blocks."""
        wanted = {one: TrustTarget(one.name, one.hosts, places.addresses[one.name], one.trust,
                                   one.port if one.protocol == KUBERNETES else 0)
                  for one in config.targets if one.hosts}
        hosts = prepare_hosts([(trusted, one.port) for one, trusted in wanted.items() if one.protocol == SSH],
                              config.state, config.run)
        trust = prepare_trust(
            [trusted for one, trusted in wanted.items() if one.certified],
            config.state, config.run, running=len(self.owners) > 0, also=also,
            oldest=self.oldest(), now=frozenset(self.hurried), hosts=hosts)
        (config.run / "trust").mkdir(mode=0o755, exist_ok=True)
        return trust

    def oldest(self) -> int:
        """When the first of the workloads that run was started, nanoseconds UTC."""
        return min((start.since for start in self.owners), default=0)

    def _look_at_authorities(self) -> None:
        """One whose time has come."""
        running = len(self.owners) > 0
        if any(not running or one.made < self.oldest() for one in self.trust.waiting):
            self.reconfigure.set()

    def refresh_files(self, config: Config) -> None:
        """What else shows in views."""
        write_public(self.resolv, resolv_conf(config.dns.listen).encode())
        write_public(self.resolv.with_name(PROFILE), render_profile().encode())
        self.units.refresh_files(config)

    def _take_places(self, places: Places) -> None:
        """Raises ValueError, OSError."""
        self.kernel.register(places.all())
        self.places = places

    async def renew(self) -> str | None:
        """Certificates and addresses as they are to be now; what is wrong, None where no enforcer runs: the next one is
        configured with what is known then.  Until the enforcer has them, both authorities are trusted."""
        try:
            (places, trust), before = await self._prepare(self.config), self.trust
            signing = {one.target for one in before.waiting} - {one.target for one in trust.waiting}
            self.trust = trust
            self._take_places(places)
            error: str | None = await self.enforcer.configure()
        except ChannelError:
            error = None
        except (ValueError, OSError) as reason:
            return str(reason)
        publish_trust(self.config.run, self.trust, running=len(self.owners) > 0)
        for target in sorted(signing):
            self.tell("authority.rotated", {"target": target, "of": "servers", "step": "in force"})
        return error

    @property
    def resolv(self) -> Path:
        """What shows as /etc/resolv.conf in a workload's view."""
        return self.config.run / "trust" / "resolv.conf"

    async def _take_names(self) -> None:
        await self.parts.run(NAMES, self._names_changed)
        if NAMES in self.health.failing:
            self.reconfigure.set()   # again, after the pause between two

    async def _names_changed(self) -> None:
        """What crews dial is known already: this is for certificates, and for the addresses that others were given."""
        async with self.reloading:
            if (error := await self.renew()) is None:
                return
            addresses = {name: " ".join(found) for name, found in self.places.addresses.items()}
            self.tell("names.changed", {**addresses, **({"error": error} if error else {})})

    def forget(self) -> None:
        """Names that are no more, or were given too long ago."""
        self.places = self.find_places(self.config)

    async def _reload_by_signal(self) -> None:
        if error := await self.reloads.reload():
            LOG.error("the configuration was not taken over: %s", error)

    # release

    async def release(self, kill: bool) -> Message:
        """Take the block away, where nothing runs in the slice; the agent ends after it."""
        inside = processes(self.kernel.slice)
        if inside and not kill:
            return Answered(f"{len(inside)} processes run in the slice (pids {' '.join(map(str, inside[:10]))}"
                            f"{' ...' if len(inside) > 10 else ''}); end them, or use --kill")
        self.health.stopping = True   # nothing is started from here on
        async with self.looking:
            if self.released:
                return Answered()
            try:
                if inside:
                    end_all(self.kernel.slice)
                    await wait_gone(self.kernel.slice, KILLED)
                self._close_ring()
                await asyncio.to_thread(self.kernel.release)
            except Exception as reason:
                self.health.stopping = False
                self._open_ring()
                self.tell("release.failed", {"reason": str(reason)})
                return Answered(f"the block stays: {reason}")
            self.released = True
        self.tell("released", {"killed": len(inside)})
        with suppress(JournalError):
            self.journal.sync()
        self._stop.set()
        return Answered()

    # small things

    def has_address(self, address: str) -> bool:
        """Whether it is one of this host's interfaces'."""
        return self._addresses.has(address)

    def _groups(self) -> Groups:
        return Groups(self.accounts.approvers, self.accounts.audit.pw_gid)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (wrong := task.exception()) is not None:
            # A watch that is no more is not known to be whole: end, and let the block stand.
            LOG.error("a part of the agent failed: %s: %s", type(wrong).__name__, wrong)
            self._error = self._error or f"a part of the agent failed: {type(wrong).__name__}"
            self._stop.set()


def render_configure(
    number: int, config: Config, places: Places, trust: Trust, key: bytes, ready: bool = True,
) -> messages.Configure:
    """What the enforcer is told: everything, each time.  Not `ready`: names are not known, and so no certificates."""
    return messages.Configure(
        number=number, runtime=config.runtime.name, targets=tuple(_targets(config, places, trust)) if ready else (),
        egress=tuple(Egress(one.name, places.listed.get(one.name, ()), one.ports) for one in config.egress),
        policies=config.policies, journal=str(config.journal), forwarded_key=key,
        journal_limit=config.recording.journal_limit, reserve=config.recording.reserve,
        digest=config.digest, files=config.digests,
        max_sessions=config.enforcer.max_sessions, hold_seconds=config.enforcer.hold, durable=config.enforcer.durable,
        names=Names(config.dns.resolver, patterns(config)), modes=config.egress_modes, ready=ready,
        people=dict(config.people.everybody))


def _targets(config: Config, places: Places, trust: Trust) -> Iterable[Target]:
    for one in config.targets:
        leaf = trust.leafs.get(one.name) if one.hosts else None
        yield Target(
            name=one.name, protocol=one.protocol, hosts=one.hosts, port=one.port,
            addresses=places.addresses.get(one.name, ()), tls="disable" if one.upstream else one.tls,
            tls_ca=config.roots.get(one.name, ""), leaf_certificate=leaf.certificate if leaf else "",
            leaf_key=leaf.key if leaf else "", socket=one.upstream or "", databases=one.databases,
            labels=tuple(filter(None, (row.column_label() for row in one.labels))), payload=one.payload,
            payload_limit=one.payload_limit,
            content_labels=tuple(filter(None, (row.content_label() for row in one.labels))), detectors=one.detectors,
            field_labels=tuple(filter(None, (row.field_label() for row in one.labels))), forwards=one.forwards,
            host_keys=trust.hosts.keys.get(one.name, ()), known_hosts=config.known_hosts.get(one.name, ""),
            options={"authentication": ",".join(one.authentication)} if one.protocol == SSH else {})


def remove_own(cgroup: Path) -> None:
    """The cgroups of Weir's own processes, where nothing runs in them."""
    for path in (*(cgroup / HELPERS).glob("*/"), cgroup / HELPERS, *(cgroup / name for name in OWN), cgroup):
        with suppress(OSError):
            path.rmdir()


def _populated(cgroup: Path) -> bool:
    """Whether there is a process in it or below; False where it is gone."""
    try:
        return "populated 1" in (cgroup / "cgroup.events").read_text()
    except OSError:
        return False


def processes(cgroup: Path) -> list[int]:
    found = []
    for path, _, _ in os.walk(cgroup):
        with suppress(OSError):
            found += [int(pid) for pid in Path(path, "cgroup.procs").read_text().split()]
    return found


async def wait_gone(cgroup: Path, seconds: float) -> None:
    """Until nothing below is populated, for at most that long."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while _populated(cgroup) and loop.time() < deadline:
        await asyncio.sleep(0.02)

