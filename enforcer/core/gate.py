"""The gate: every operation of every protocol is decided here."""
from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from enforcer.policy.cedar import PolicySet
from enforcer.policy.evaluation import Ruling, combine, may_unmask, rule
from enforcer.words.decisions import DENY, Decision
from enforcer.words.operations import Principal, Request
from enforcer.words.reported import Calls


class Gate(Protocol):
    @property
    def version(self) -> int:
        """Changes whenever policies, entities or labels change: part of every cache key."""
        ...

    def decide(
        self,
        principal: Principal,
        requests: tuple[Request, ...],
        labels: tuple[str, ...] = (),
        approved: bool = False,
    ) -> Decision:
        """Pure.  Any deny denies, any hold holds; `labels` are those that the operation would show, each is answered in
        `unmasked` or `masked`.  No request at all is denied."""
        ...


class RefusingGate:
    """For whom nobody is behind, or who is locked out: nothing is permitted, for this reason."""

    version = 0

    def __init__(self, rule: str, reason: str) -> None:
        self._denied = Decision(DENY, (rule,), reason)

    def decide(
        self, principal: Principal, requests: tuple[Request, ...], labels: tuple[str, ...] = (),
        approved: bool = False,
    ) -> Decision:
        return self._denied


CACHE: Final = 20_000                 # rulings kept
_Entry = TypeVar("_Entry")
_Found = TypeVar("_Found")

_Key = tuple[str, tuple[str, ...], str, str, bool, Calls]     # the last two: elevated, reported


class CedarGate:
    """The gate over a set of Cedar policies.  `replace` puts another set in force for everybody at once."""

    def __init__(self, policies: PolicySet) -> None:
        self._policies, self._version = policies, 1
        self.reads_reports = policies.reads_reports    # any policy does: else decisions do not depend on it
        self._rulings: dict[tuple[_Key, Request, bool], Ruling] = {}
        self._labels: dict[tuple[_Key, str], bool] = {}
        self._elevated: frozenset[tuple[str, str]] = frozenset()

    @property
    def version(self) -> int:
        return self._version

    def elevate(self, elevated: frozenset[tuple[str, str]]) -> None:
        """From now on these, (subject, target), have `context.elevated`."""
        if elevated != self._elevated:
            self._elevated = elevated
            self._renew()

    @property
    def policies(self) -> PolicySet:
        return self._policies

    def replace(self, policies: PolicySet) -> None:
        self._policies, self.reads_reports = policies, policies.reads_reports
        self._renew()

    def _renew(self) -> None:
        self._version += 1
        self._rulings.clear()
        self._labels.clear()

    def decide(
        self, principal: Principal, requests: tuple[Request, ...], labels: tuple[str, ...] = (),
        approved: bool = False, reported: Calls = (),
    ) -> Decision:
        if not requests:
            return Decision(DENY, ("nothing-asked",), "nothing is asked that policy could permit")
        process = principal.owner.process
        elevated = (principal.subject, *requests[0].path[:1]) in self._elevated
        key = (principal.subject, principal.groups, principal.workload, process.exe if process else "", elevated,
               reported if self.reads_reports else ())
        rulings = tuple(self._rule(key, principal, request, approved) for request in requests)
        return combine(requests, rulings, {label: self._seen(key, principal, label) for label in labels})

    def _rule(self, key: _Key, principal: Principal, request: Request, approved: bool) -> Ruling:
        entry = (key, request, approved)
        found = self._rulings.get(entry)
        if found is None:
            found = rule(self._policies, principal, request, approved, key[-2], key[-1])
            _keep(self._rulings, entry, found, key)
        return found

    def _seen(self, key: _Key, principal: Principal, label: str) -> bool:
        entry = (key, label)
        found = self._labels.get(entry)
        if found is None:
            found = may_unmask(self._policies, principal, label, key[-2], key[-1])
            _keep(self._labels, entry, found, key)
        return found


def _keep(kept: dict[_Entry, _Found], entry: _Entry, found: _Found, key: _Key) -> None:
    """Not where several calls may be meant: their texts are long, and the same ones seldom come together again."""
    if len(key[-1]) <= 1:
        if len(kept) >= CACHE:
            kept.clear()
        kept[entry] = found


class ReportingGate:
    """A gate for one session: policy sees what its process reports, and `version` changes with that too, where any
    policy looks at it."""

    def __init__(self, gate: CedarGate, reported: Callable[[], Calls]) -> None:
        self._gate, self._reported = gate, reported
        self._calls: Calls = ()
        self._base, self._version = gate._version, 1

    @property
    def version(self) -> int:
        gate = self._gate
        calls = self._reported() if gate.reads_reports else ()
        if gate._version != self._base or calls != self._calls:
            self._calls, self._base = calls, gate._version
            self._version += 1
        return self._version

    def decide(
        self, principal: Principal, requests: tuple[Request, ...], labels: tuple[str, ...] = (),
        approved: bool = False,
    ) -> Decision:
        reported = self._reported() if self._gate.reads_reports else ()
        return self._gate.decide(principal, requests, labels, approved, reported)
