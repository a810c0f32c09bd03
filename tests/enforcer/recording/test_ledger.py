"""Connects x sessions, flows and refusals, from events alone: a playbook."""
from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agent.contract.journal import HostEvent
from agent.contract.ledger import ACKNOWLEDGED, CONNECT, ELSEWHERE, ENDED, FOREIGN, REDIRECTED, UNACCOUNTED
from enforcer.recording import ledger
from enforcer.words import events


def host(name: str, detail: dict[str, str], at: int = 100) -> HostEvent:
    return HostEvent(events.HOST, at, at, name, "crew", detail)


def connect(cookie: int, verdict: str = REDIRECTED, at: int = 100) -> HostEvent:
    return host(CONNECT, {"cookie": f"{cookie:x}", "verdict": verdict, "pid": "42", "destination": "192.0.2.4 5432",
                          "hook": "mark", "owner": "1"}, at)


def session(cookie: int, attribution: str = "mark") -> events.SessionOpened:
    return events.SessionOpened(
        events.SESSION_OPENED, 200, 200, "S", "postgresql", "orders", "", "", "", (), "crew", 0, 0, "", "", (), "",
        cookie, "192.0.2.4 5432", attribution, "", "", "", 0)


def flow(cookie: int, attribution: str = "mark") -> events.FlowOpened:
    return events.FlowOpened(events.FLOW_OPENED, 200, 200, "F", "model", "", "crew", 0, "", "", (), "x 1", attribution,
                             cookie)


def refused(cookie: int) -> events.Refused:
    return events.Refused(events.REFUSED, 200, 200, "crew", "", 0, "", "x 1", "", "no", (), cookie)


def ended(*cookies: int, until: int = 1000) -> HostEvent:
    said = " ".join(f"{one:x}" for one in cookies)
    return host(ENDED, {"how": "never arrived", "until": str(until), "cookies": said})


def unaccounted(cookie: int, number: int = 1000) -> HostEvent:
    return host(UNACCOUNTED, {"cookie": f"{cookie:x}", "connect": str(number), "pid": "42", "why": "gone"})


def book(*seen: object) -> ledger.Book:
    return ledger.reconcile(enumerate(seen, 1))


@pytest.mark.parametrize(("seen", "counts"), [
    ([connect(1), session(1)], {"session": 1}),
    ([connect(1), flow(1)], {"flow": 1}),
    ([connect(1), refused(1)], {"refused": 1}),
    ([connect(1, "dns")], {"dns": 1}),
    ([connect(1, "refused")], {"refused by the kernel": 1}),
    ([session(1), connect(1)], {"session": 1}),                        # journals are taken one after the other
    ([connect(1), session(1), refused(1)], {"session": 1}),            # a login that failed says both
    ([connect(1), ended(1)], {"never arrived": 1}),
    ([connect(1), connect(1), session(1)], {"session": 1, "connected again": 1}),
    ([connect(1), session(1), connect(1), session(1)], {"session": 2}),
    ([connect(1, ELSEWHERE), session(1, "redirect")], {"session": 1}),
    ([connect(1, ELSEWHERE), flow(1, "redirect")], {"flow": 1}),
    ([connect(1, ELSEWHERE), refused(1)], {"refused": 1}),
    ([connect(1, "dns"), connect(1, ELSEWHERE)], {"dns": 2}),          # let through, and so it is elsewhere
    ([connect(1), connect(1, "local")], {"local": 1, "connected again": 1}),       # else "connected, and elsewhere"
    ([connect(1), connect(1, "dns")], {"dns": 1, "connected again": 1}),
    ([connect(1), unaccounted(1)], {"unaccounted": 1}),
    ([host(CONNECT, {"owner": "1", "pid": "2"})], {ledger.NOT_FOLLOWED: 1}),      # of an earlier build
    ([host("launch", {}), host("exit", {})], {}),
])
def test_accounted(seen: list[object], counts: dict[str, int]) -> None:
    found = book(*seen)
    assert dict(found.counts) == counts
    assert len(found) == 0


@pytest.mark.parametrize("seen", [
    [connect(1)],
    [connect(1), session(2), flow(3), refused(4), refused(0)],
    [connect(1), session(1), connect(1)],                              # the second has nobody yet
    [connect(1), session(1), refused(1), connect(1)],
    [connect(1, ELSEWHERE), session(1)],                               # a session of the rewrite is not its account
    [connect(1, ELSEWHERE), flow(1)],
    [connect(1, "refused"), connect(1, ELSEWHERE)],
    [connect(1), connect(1, ELSEWHERE), connect(1, "local")],          # nothing that the crew does afterwards hides it
    [connect(1), ended(1, until=0)],                                   # of an earlier one
    [connect(1), unaccounted(1, 0)],
])
def test_open(seen: list[object]) -> None:
    assert len(book(*seen)) == 1


def test_one_socket_that_connects_again_and_again_takes_no_more_than_its_share() -> None:
    found = book(connect(1, ELSEWHERE), *(connect(1) for _ in range(100_000)))
    [first, *others] = found.open(1000)
    assert (first.verdict, len(others)) == (ELSEWHERE, ledger.EACH - 1)
    assert others[-1].seq == 100_001
    assert found.counts == {"connected again": 100_001 - ledger.EACH}


def test_what_is_told_of_an_open_one() -> None:
    [one] = book(connect(255)).open(101)
    assert (one.seq, one.cookie, one.workload, one.pid, one.destination, one.verdict) == (
        1, 255, "crew", 42, "192.0.2.4 5432", REDIRECTED)


def test_only_what_has_had_its_time_is_told_and_the_oldest_first() -> None:
    found = book(connect(1, at=10), connect(2, at=20), connect(3, at=30))
    assert [one.cookie for one in found.open(30)] == [1, 2]
    assert [one.cookie for one in found.open(31, 1)] == [1]


def test_alarms_stand_until_somebody_has_looked() -> None:
    seen = [connect(1), unaccounted(1), host(FOREIGN, {"pid": "7"})]
    found = book(*seen)
    assert [one.name for one in found.alarms] == [UNACCOUNTED, FOREIGN]
    assert found.counts == {"unaccounted": 1, "foreign sockets": 1}
    assert not book(*seen, host(ACKNOWLEDGED, {"by": "root"})).alarms
    kept = ledger.Book(forget=False)
    for number, one in enumerate([*seen, host(ACKNOWLEDGED, {"by": "root"})]):
        kept.see(number, one)
    assert len(kept.alarms) == 2


def test_everything_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "OPEN", 10)
    monkeypatch.setattr(ledger, "RECENT", 10)
    found = book(*(connect(number) for number in range(1, 31)), *(session(number) for number in range(100, 130)),
                 *(unaccounted(number) for number in range(1000, 1000 + 2 * ledger.ALARMS)))
    assert len(found) == 10
    assert found.counts[ledger.NOT_FOLLOWED] == 20
    assert len(found._early) == 10
    assert len(found.alarms) == ledger.ALARMS


@pytest.mark.parametrize("detail", [
    {"cookie": "no number", "verdict": "redirected"}, {"cookie": "", "verdict": "redirected"}, {"cookie": "1"}])
def test_what_makes_no_sense_is_counted(detail: dict[str, str]) -> None:
    assert book(host(CONNECT, detail)).counts == {ledger.NOT_FOLLOWED: 1}


def test_sessions_at_a_unix_socket_are_counted_apart() -> None:
    """No hook sees their connect, so there is nothing to pair them with, and nothing that waits for them."""
    def local(made: Any, **more: str) -> Any:
        return msgspec.structs.replace(made, destination="/run/postgresql/.s.PGSQL.5432 5432", **more)

    found = book(local(session(0)), local(session(0)), local(refused(0)), local(session(0, "weir")), refused(0))
    assert found.counts == {"session at a Unix socket": 2, "refused at a Unix socket": 1}
    assert not len(found)


def test_sessions_in_a_tunnel_are_counted_apart() -> None:
    """The connect that the kernel saw is the outer session's."""
    def inside(made: Any) -> Any:
        return msgspec.structs.replace(made, destination="db.example 5432", attribution="tunnel")

    found = book(host(CONNECT, {"cookie": "1", "verdict": "redirected"}), session(1), inside(session(0)), refused(0))
    assert found.counts == {"session": 1, "session in a tunnel": 1}
    assert not len(found)
