"""Pure: what the agent knows, as samples of agent.contract.families."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final

import msgspec

from agent.contract import families
from agent.contract import ledger as words
from agent.contract.control import AuthorityView, LedgerView, ServiceView, Status
from agent.contract.families import Sample
from agent.contract.messages import Figures, TargetFigures
from agent.metrics.places import Disk, Usage

NANO: Final = 1e9
HOWS: Final = 32                      # ways in which a connect was accounted for; there are a dozen
RULES: Final = "nftables"                    # how a hole in them begins (agent/block/watch.py)


class Found(msgspec.Struct, frozen=True):
    """All that is looked at for one answer."""

    status: Status
    figures: Figures | None           # None: the enforcer does not say
    problems: Mapping[str, int]       # families.PROBLEMS
    holes: tuple[str, ...]            # of the block
    ledger: LedgerView
    gaps: int
    authorities: tuple[AuthorityView, ...]
    services: Mapping[str, ServiceView]
    usage: Mapping[str, Usage]        # of their processes, and the agent's own
    disk: Disk
    reloads: Mapping[str, int]        # families.APPLIED, REFUSED
    version: str
    now: int                          # nanoseconds UTC
    limit: int                        # bytes: [recording] journal_limit
    reserve: int                      # bytes


def render_figures(found: Found) -> tuple[Sample, ...]:
    return tuple(sample for part in (_agent, _block, _enforcer, _ledger, _recording, _processes)
                 for sample in part(found))


def _one(name: str, value: float, *labels: str) -> Sample:
    return Sample(f"weir_{name}", labels, float(value))


def _agent(found: Found) -> Iterator[Sample]:
    status = found.status
    yield _one("build_info", 1, found.version, status.runtime)
    yield _one("start_time_seconds", status.since / NANO)
    for state in families.STATES:
        yield _one("state", state == status.state, state)
    for kind in families.PROBLEMS:
        yield _one("problems", found.problems.get(kind, 0), kind)
    yield _one("unenforced_workloads", len(status.modes))
    yield _one("workloads", len(status.workloads))
    yield _one("locks", len(status.locks))
    for outcome in (families.APPLIED, families.REFUSED):
        yield _one("reloads_total", found.reloads.get(outcome, 0), outcome)
    if status.configuration is not None:
        yield _one("configuration_timestamp_seconds", status.configuration.since / NANO)
    for one in found.authorities:
        if (ends := _seconds(one.until)) is not None:
            yield _one("authority_expiry_timestamp_seconds", ends, one.target, one.of)


def _seconds(iso: str) -> float | None:
    try:
        return datetime.fromisoformat(iso).timestamp()
    except ValueError:
        return None                   # it has no end


def _block(found: Found) -> Iterator[Sample]:
    rules = sum(one.startswith(RULES) for one in found.holes)
    known = found.status.state != "starting"
    yield _one("layer_in_place", known and len(found.holes) == rules, families.PROBES)
    yield _one("layer_in_place", known and not rules, families.RULES)
    yield _one("layer_in_place", known and found.status.lsm.startswith("on"), families.LSM)


def _enforcer(found: Found) -> Iterator[Sample]:
    figures = found.figures
    if figures is None:
        return                        # an enforcer that does not answer counts nothing: no figure is not 0
    values = figures.values
    for name, key in _VALUES:
        yield _one(name, values.get(key, 0))
    since = values.get("oldest_hold", 0)
    yield _one("hold_oldest_age_seconds", max(0, found.now - since) / NANO if since else 0)
    for outcome in families.OUTCOMES:
        yield _one("hold_outcomes_total", values.get(f"hold_{outcome}", 0), outcome)
    nobody = values.get("refused_nobody", 0)
    yield _one("connections_refused_total", values.get("refused", 0) - nobody, families.CREW)
    yield _one("connections_refused_total", nobody, families.NOBODY)
    for why in ("refused", "failed", "malformed", "dropped"):
        yield _one("dns_unanswered_total", values.get(f"dns_{why}", 0), why)
    yield _one("journal_sync_seconds_total", values.get("sync_microseconds", 0) / 1e6)
    yield from _targets(found, figures.targets)


_VALUES: Final = (
    ("flows_open", "flows"), ("flows_total", "flows_total"), ("flows_refused_total", "flows_refused"),
    ("holds_waiting", "holds"), ("holds_total", "asked"), ("dns_questions_total", "dns_questions"),
    ("recording_failed", "recording_failed"), ("journal_events_total", "events"), ("journal_syncs_total", "syncs"),
    ("unexpected_errors_total", "bugs"),
)


def _targets(found: Found, some: Iterable[TargetFigures]) -> Iterator[Sample]:
    """Of those that are configured, by the configuration's own names: whoever breaks the enforcer adds none."""
    known = {one.target: one for one in some}
    for target in found.status.targets:
        one, labels = known.get(target.name), (target.name, target.protocol)
        if one is None:
            continue
        yield _one("sessions_open", one.open, *labels)
        yield _one("sessions_total", one.sessions, *labels)
        for decision, number in zip(families.DECISIONS, (one.permitted, one.denied, one.held), strict=True):
            yield _one("operations_total", number, *labels, decision)
        yield _one("credential_failures_total", one.credential_failures, *labels)
        yield _one("upstream_failures_total", one.upstream_failures, *labels)
        yield _one("client_distrust_total", one.distrusted, *labels)


def _ledger(found: Found) -> Iterator[Sample]:
    view = found.ledger
    if not view.known:
        return
    for how, number in sorted(view.counts.items())[:HOWS]:
        yield _one("ledger_connects_total", number, how)
    yield _one("ledger_waiting", view.waiting)
    alarms = Counter(one.name for one in view.alarms)
    for name, kind in ((words.UNACCOUNTED, families.UNACCOUNTED), (words.FOREIGN, families.FOREIGN),
                       (words.GLASS, families.GLASS)):
        yield _one("ledger_alarms", alarms[name], kind)
    yield _one("recording_gaps_total", found.gaps)


def _recording(found: Found) -> Iterator[Sample]:
    disk = found.disk
    yield _one("recording_size_bytes", disk.recording)
    yield _one("recording_files", disk.files)
    yield _one("journal_backlog_bytes", found.status.lag)
    yield _one("journal_limit_bytes", found.limit)
    yield _one("disk_reserve_bytes", found.reserve)
    for place, free in disk.free.items():
        yield _one("disk_free_bytes", free, place)


def _processes(found: Found) -> Iterator[Sample]:
    for name, view in found.services.items():
        yield _one("process_up", bool(view.pid) and not view.error, name)
        yield _one("process_restarts_total", view.restarts, name)
    for name, usage in found.usage.items():
        yield _one("process_resident_memory_bytes", usage.memory, name)
        yield _one("process_cpu_seconds_total", usage.seconds, name)
        yield _one("process_open_fds", usage.descriptors, name)
