"""The metrics: one table gives the metrics process its texts, the agent its names, and docs and rules their tests.

Names after Prometheus (prometheus.io/docs/practices/naming): a unit in it, `_total` where it only grows.  A label's
values are the configuration's names or words of this table: what a crew, a server or a person has typed is none.
"""
from __future__ import annotations

from typing import Final

import msgspec

COUNTER, GAUGE = "counter", "gauge"


class Family(msgspec.Struct, frozen=True):
    name: str
    kind: str                         # COUNTER | GAUGE
    meaning: str
    labels: tuple[str, ...] = ()


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """`labels`: values, in the order of its family's."""

    family: str
    labels: tuple[str, ...]
    value: float


def _counter(name: str, meaning: str, *labels: str) -> Family:
    return Family(f"weir_{name}_total", COUNTER, meaning, labels)


def _gauge(name: str, meaning: str, *labels: str) -> Family:
    return Family(f"weir_{name}", GAUGE, meaning, labels)


# values of the label `state`, of `weir_state`
STATES: Final = ("starting", "enforcing", "blocked", "degraded", "stopping")
# of `kind`, of `weir_problems`: what of the agent's knowledge is not as it should be
PROBLEMS: Final = ("block", "network", "self-probe", "part", "container", "unit", "alarm", "enforcer", "recorder",
                   "launcher", "journal", "suspended")
PROBES, RULES, LSM = "probes", "nftables", "lsm"
LAYERS: Final = (PROBES, RULES, LSM)
DECISIONS: Final = ("permit", "deny", "hold")
OUTCOMES: Final = ("approved", "denied", "expired", "cancelled", "used")
CREW, NOBODY = "crew", "nobody"
UNACCOUNTED, FOREIGN, GLASS = "unaccounted", "foreign socket", "broken glass"
APPLIED, REFUSED = "applied", "refused"

FAMILIES: Final = (
    _gauge("build_info", "1, with the version and [runtime] name of this Weir.", "version", "runtime"),
    _gauge("start_time_seconds", "When the agent was started, seconds since 1970 UTC."),
    _gauge("state", "1 for the state that this Weir is in, 0 for the others; only `enforcing` is as it should be.",
           "state"),
    _gauge("problems", "Reasons why it is not enforcing, by what they are about.", "kind"),
    _gauge("layer_in_place", "Whether this layer of the block is whole; `lsm` is 0 where the kernel has none.",
           "layer"),
    _gauge("unenforced_workloads", "Workloads whose egress is in the mode shadow or record."),
    _gauge("workloads", "Starts of workloads that have not ended."),
    _gauge("locks", "Subjects, workloads and targets that are locked out."),
    _gauge("sessions_open", "Sessions that are open.", "target", "protocol"),
    _counter("sessions", "Sessions that were opened.", "target", "protocol"),
    _counter("operations", "Operations of crews by what policy said; one that was held and approved is also a permit.",
             "target", "protocol", "decision"),
    _gauge("flows_open", "Opaque flows to [[egress]] that are open."),
    _counter("flows", "Opaque flows that were opened."),
    _counter("flows_refused", "Flows that were ended for what they said."),
    _gauge("holds_waiting", "Operations that wait for people."),
    _gauge("hold_oldest_age_seconds", "How long the oldest of them has waited, 0 where none does."),
    _counter("holds", "Operations, tickets and elevations that people were asked about."),
    _counter("hold_outcomes", "What became of them; what is approved and then used is counted twice.", "outcome"),
    _counter("connections_refused", "Connections that became neither session nor flow, of a crew, or of whom nobody "
             "could tell whose they are.", "whose"),
    _counter("client_distrust", "Clients that left because they do not trust Weir's certificate or host key.",
             "target", "protocol"),
    _counter("dns_questions", "Questions to Weir's resolver."),
    _counter("dns_unanswered", "Of these not answered, and why.", "why"),
    _counter("credential_failures", "Logins for which there was no credential.", "target", "protocol"),
    _counter("upstream_failures", "Connections to the target that could not be made, its TLS included.",
             "target", "protocol"),
    _gauge("authority_expiry_timestamp_seconds", "When this authority of the target ends: `servers` is what crews "
           "trust, `clients` what the target's server does.", "target", "of"),
    _counter("ledger_connects", "Connects that the kernel saw, by how they were accounted for, since the recorder's "
             "start.", "how"),
    _gauge("ledger_waiting", "Connects that nobody accounts for yet."),
    _gauge("ledger_alarms", "Alarms that nobody has acknowledged (weir ledger).", "kind"),
    _counter("recording_gaps", "Gap events: operations whose results are not known, since the recorder's start."),
    _gauge("recording_failed", "1 where the enforcer cannot write its journal: operations are refused."),
    _gauge("recording_size_bytes", "Bytes of all recording files."),
    _gauge("recording_files", "Recording files."),
    _gauge("journal_backlog_bytes", "Bytes of journal that the recorder has not taken."),
    _gauge("journal_limit_bytes", "[recording] journal_limit: operations are refused there."),
    _counter("journal_events", "Events that the enforcer has written into its journal."),
    _counter("journal_syncs", "fdatasync(2) calls of it."),
    _counter("journal_sync_seconds", "Time that these took."),
    _gauge("disk_free_bytes", "Bytes that are free where journal and recording lie.", "place"),
    _gauge("disk_reserve_bytes", "[recording] reserve: operations are refused there."),
    _counter("reloads", "Reloads of the configuration, by what became of them.", "outcome"),
    _gauge("configuration_timestamp_seconds", "Since when the configuration has been in force."),
    _gauge("process_up", "1 where this process of Weir's works.", "process"),
    _counter("process_restarts", "How often it was started again, since the agent's start.", "process"),
    _gauge("process_resident_memory_bytes", "Memory of it.", "process"),
    _counter("process_cpu_seconds", "Processor time of it; it begins anew with its pid.", "process"),
    _gauge("process_open_fds", "Its open descriptors.", "process"),
    _counter("unexpected_errors", "Errors in the enforcer that nobody foresaw: each is in its log."),
)
BY_NAME: Final = {one.name: one for one in FAMILIES}
