"""Pure: what the agent says of itself.  One place decides whether it is enforcing."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from agent.config import Config
from agent.contract.control import Status, TargetView, WorkloadView
from agent.contract.metrics import REASON
from agent.contract.metrics import Health as HealthView
from agent.contract.target import ENFORCE, SHADOW
from agent.journal import plain
from agent.network.resolve import Places
from agent.settings.credential_table import KUBERNETES
from agent.workload.owners import Start

BLOCK = "the watch of the block"       # of Health.failing: what stands is not known
OTHERWISE = 5.0                       # seconds
STARTING, ENFORCING, BLOCKED, DEGRADED, STOPPING = "starting", "enforcing", "blocked", "degraded", "stopping"
MEANINGS: Final = {
    ENFORCING: "crews reach targets through the enforcer, and nothing else",
    STARTING: "crews are cut off until it says enforcing",
    BLOCKED: "crews are cut off",
    DEGRADED: "something may get through",
    STOPPING: "crews are cut off",
}


@dataclass
class Health:
    """What the agent knows of itself, from which the state follows.

    degraded: something may get through.  blocked: nothing gets through, but nothing works either.
    """

    starting: bool = True
    stopping: bool = False
    holes: tuple[str, ...] = ("the probes and rules are not in place yet",)     # Kernel.problems() after repair
    networks: tuple[str, ...] = ()    # of workloads that run, and could not be contained
    probe: tuple[str, ...] = ("the self-probe has not been run",)
    enforcer: str = "not started"     # why it does not work
    recorder: str = "not started"
    launcher: str = "not started"
    journal: str = ""                 # why the agent's own journal cannot be written
    suspended: tuple[str, ...] = ()   # Weir's own processes that were stopped by a signal
    containers: tuple[str, ...] = ()  # what leads round Weir in one, or past one of its layers
    units: tuple[str, ...] = ()       # adopted ones that are not confined as they should be
    alarms: tuple[str, ...] = ()      # of the ledger: something got through, or would have
    failing: dict[str, str] = field(default_factory=dict)      # parts of the agent that do not do their work, and why
    _said: tuple[str, tuple[str, ...]] = field(default=("", ()))
    _said_at: float = 0.0

    def state(self) -> tuple[str, tuple[str, ...]]:
        """(state, reasons)."""
        holes = (*self.holes, *self.networks, *self.probe)
        if self.stopping:
            return STOPPING, ()
        if self.starting:
            return STARTING, holes
        failing = [f"{name}: {why}" for name, why in self.failing.items()]
        if holes or self.containers or self.units or self.alarms or failing:
            return DEGRADED, (*holes, *failing, *self.containers, *self.units, *self.alarms)
        broken = [f"{name}: {why}" for name, why in (
            ("enforcer", self.enforcer), ("recorder", self.recorder), ("launcher", self.launcher),
            ("journal", self.journal)) if why]
        broken += [f"{name}: was stopped by a signal" for name in self.suspended]
        return (BLOCKED, tuple(broken)) if broken else (ENFORCING, ())

    def problems(self) -> dict[str, int]:
        """How many reasons there are, by what they are about (agent.contract.families.PROBLEMS)."""
        return {
            "block": len(self.holes), "network": len(self.networks), "self-probe": len(self.probe),
            "part": len(self.failing), "container": len(self.containers), "unit": len(self.units),
            "alarm": len(self.alarms), "enforcer": bool(self.enforcer), "recorder": bool(self.recorder),
            "launcher": bool(self.launcher), "journal": bool(self.journal), "suspended": len(self.suspended)}

    def news(self, now: float) -> tuple[str, tuple[str, ...]] | None:
        """The state, where it differs from what `news` gave last; other reasons for the same state once in a while.
        `now`: monotonic seconds."""
        state = self.state()
        if state == self._said or (state[0] == self._said[0] and now - self._said_at < OTHERWISE):
            return None
        self._said, self._said_at = state, now
        return state

    @property
    def contained(self) -> bool:
        """Whether a workload may be started: what it opens is stopped or goes through the enforcer."""
        return not (self.starting or self.stopping or self.holes or self.networks or self.probe
                    or BLOCK in self.failing)


def health_of(status: Status) -> HealthView:
    """Whether it is as it should be, and recording works: `weir health`, and who asks over HTTP."""
    enforcer, recorder = status.enforcer, status.recorder
    wrong = [*status.reasons]
    if status.state == ENFORCING:
        wrong += [f"{name}: {one.error or 'not running'}" for name, one in (("enforcer", enforcer), (
            "recorder", recorder)) if one.error or not one.pid]
        if not status.statistics:
            wrong.append("enforcer: does not answer")
        elif status.statistics.get("recording_failed"):
            wrong.append("enforcer: nothing can be recorded")
    serving = (status.state in (ENFORCING, DEGRADED) and not enforcer.error and not recorder.error
               and bool(status.statistics) and not status.statistics.get("recording_failed"))
    said = plain("; ".join(wrong) or ("" if status.state == ENFORCING else MEANINGS.get(status.state, status.state)))
    return HealthView(status.state, " ".join(said.split())[:REASON], serving)


def said_of_mode(workload: str, mode: str) -> str:
    """As it stands in `weir status`, `weir check` and the log."""
    if mode == ENFORCE:
        return f"egress: enforce for workload {workload}"
    what = "recorded with what would have been refused" if mode == SHADOW else "recorded"
    return (f"egress: {mode} for workload {workload}: NOT ENFORCED, TCP to any place outside of this host is let "
            f"through and {what}")


def said_of_nobody(url: str) -> str:
    """The same."""
    return f"nobody can log in at the page {url}: there is no [[provider]] or [[saml_provider]]"


def target_views(config: Config, places: Places) -> tuple[TargetView, ...]:
    return tuple(
        TargetView(one.name, one.protocol, (*one.hosts, *one.sockets), one.port, places.addresses.get(one.name, ()))
        for one in config.targets)


def egress_views(config: Config, places: Places) -> tuple[TargetView, ...]:
    """One a port."""
    return tuple(TargetView(one.name, "", one.addresses, port, places.egress.get(one.name, ()))
                 for one in config.egress for port in one.ports)


def workload_views(
    starts: Iterable[Start], degraded: Callable[[int], tuple[str, ...]] = lambda owner: (),
) -> tuple[WorkloadView, ...]:
    """`degraded` of an owner."""
    return tuple(WorkloadView(one.workload, one.user, one.pid, one.since, one.command, one.owner, one.root,
                              degraded(one.owner), one.network)
                 for one in sorted(starts, key=lambda one: one.since))


def hints(
    config: Config, places: Places, failures: Mapping[str, str], statistics: Mapping[str, int], leafs: Iterable[str],
    lag: int, beside: Iterable[str] = (),
) -> tuple[str, ...]:
    """What somebody should look at, and what to do.  `leafs`: addresses that no certificate covers; `beside`: programs
    of others."""
    found = [f"{name} could not be resolved: {why}" for name, why in sorted(failures.items())]
    found += [f"target {one.name} has no address: connections to it are not known to be its own"
              for one in config.targets if one.hosts and not places.addresses.get(one.name)]
    found += [f"{conflict}: such connections are refused; let the names differ in port, or make them one target"
              for conflict in places.conflicts()]
    found += [f"{address} has no certificate until no workload runs: clients that verify by address refuse it"
              for address in leafs]
    found += [f"the program {one} is not Weir's: it may change addresses after Weir has" for one in beside]
    for one in config.targets:
        if unknown := statistics.get(f"unknown_ca:{one.name}"):
            handshakes = f"{unknown} TLS handshakes" if unknown != 1 else "a TLS handshake"
            found.append(f"target {one.name}: {handshakes} ended because the client does not trust Weir's authority: "
                         + (f"add the kubeconfig or root file that it reads to `trust` of this target, or give it what "
                            f"`weir kubeconfig {one.name}` prints" if one.protocol == KUBERNETES else
                            "add the root file that it reads to `trust` of this target")
                         + ", and start the workload again")
        if unknown := statistics.get(f"unknown_host_key:{one.name}"):
            logins = f"{unknown} connections" if unknown != 1 else "a connection"
            found.append(f"target {one.name}: {logins} ended because the client does not know Weir's host key: add the "
                         "file that it reads (UserKnownHostsFile) to `trust` of this target, and start the workload "
                         "again")
    if lost := statistics.get("lost_labels"):
        found.append(f"{lost} [[target.label]] name{'s a column' if lost == 1 else ' columns'} that no database of the "
                     "target has: what was meant is not masked; the agent's log has the names")
    if lag > config.recording.journal_limit // 2:
        found.append(f"the recorder is {lag >> 20} MiB behind; operations are refused at "
                     f"{config.recording.journal_limit >> 20} MiB")
    if not config.targets:
        found.append("no target is configured: nothing can be reached but [[egress]]")
    return tuple(found)
