"""One approval for what a command asks: the same running process, and nobody else, whatever it does to look like it."""
from __future__ import annotations

from typing import Any

import pytest
from desk import Desk
from msgspec.structs import replace

from agent.contract.locks import Lock, LockedOut
from agent.contract.messages import HoldView
from agent.contract.owner import Process
from agent.contract.said import lets_through
from enforcer.approval.machine import APPROVED, DENIED, USED
from enforcer.policy.holds import parse_hold
from enforcer.words.inputs import HoldAnswered, HoldOpened

RULE = parse_hold("r", "approvers=dba, reuse=command")
KUBECTL = Process(7, "/usr/bin/kubectl", "ab" * 32, ("kubectl", "delete", "pod", "a", "b"), 5_000)
PODS = {"covers": "k8s:delete of pods in namespace shop", "process": KUBECTL}


def weir() -> Desk:
    return Desk(running={(7, 5_000)})


def granted(desk: Desk, **more: Any) -> str:
    ticket: str = desk.open(RULE, **{**PODS, **more})
    assert desk.approve(ticket) == ""
    assert desk.holds.use("s1", 8, ticket, 7)
    return ticket


def again(desk: Desk, session: str = "s2", **more: Any) -> HoldOpened | HoldAnswered | None:
    return desk.ask(more.pop("rule", RULE), session, 3, **{
        "action": "sql:delete another", "asked": b"else", "exact": b"else", **PODS, **more})


def test_one_approval_is_for_the_command_in_all_its_connections() -> None:
    desk = weir()
    ticket = granted(desk)
    for session in ("s1", "s2", "s3"):
        assert again(desk, session) == HoldAnswered(3, APPROVED, "local:ann", "", ticket)
        assert desk.holds.use(session, 4, ticket, 3)
        assert (desk.changes[-1].state, desk.changes[-1].note) == (USED, "reused")
        desk.holds.end_session(session, "gone")
    assert isinstance(again(desk, "s4"), HoldAnswered)


@pytest.mark.parametrize("process", [
    replace(KUBECTL, pid=8), replace(KUBECTL, started=6_000), replace(KUBECTL, exe="/tmp/kubectl"),
    replace(KUBECTL, exe_sha256="cd" * 32), replace(KUBECTL, argv=("kubectl", "delete", "ns", "a")),
], ids=["a child", "its pid again", "another program by exec", "the program was replaced", "exec of the same"])
def test_another_process_is_asked_anew(process: Process) -> None:
    desk = weir()
    desk.running |= {(8, 5_000), (7, 6_000)}
    granted(desk)
    assert isinstance(again(desk, process=process), HoldOpened)


@pytest.mark.parametrize("other", [
    {"shape": b"other"}, {"covers": "k8s:delete of nodes"}, {"covers": ""}, {"target": "else"}, {"workload": "else"},
    {"subject": "local:eve"}, {"login": "another"}, {"database": "else"}, {"account": "root"},
    {"attribution": "tunnel"}, {"attribution": "redirect"},
    {"rule": parse_hold("r", "approvers=dba, reuse=command, count=2")},
    {"rule": parse_hold("other", "approvers=dba, reuse=command")},
    {"rule": parse_hold("r", "approvers=dba, reuse=command:59m")},
], ids=str)
def test_it_is_bound_to_all_that_it_was_approved_for(other: dict[str, Any]) -> None:
    desk = weir()
    granted(desk)
    assert isinstance(again(desk, **other), HoldOpened)


@pytest.mark.parametrize("unknown", [
    {"process": None}, {"process": Process(7)}, {"process": replace(KUBECTL, started=0)},
    {"process": replace(KUBECTL, exe="")}, {"process": replace(KUBECTL, exe_sha256="")},
    {"process": replace(KUBECTL, argv=())}, {"process": replace(KUBECTL, pid=0)}, {"attribution": "tunnel"},
    {"attribution": "redirect"}, {"shape": b"", "exact": b""},
], ids=str)
def test_where_it_is_not_known_who_asks_it_is_once(unknown: dict[str, Any]) -> None:
    desk = weir()
    ticket = desk.open(RULE, **{**PODS, **unknown})
    assert lets_through(desk.holds.views()[0]) == "once"
    assert desk.approve(ticket) == ""
    assert desk.holds.use("s1", 8, ticket, 7)
    assert desk.holds.views() == ()
    assert isinstance(again(desk, "s1", **unknown), HoldOpened)


def test_without_words_for_its_shape_it_is_for_the_same_things_only() -> None:
    """As of a statement: what it is asked of belongs to it."""
    desk = weir()
    ticket = granted(desk, covers="")
    same = {"covers": "", "action": "sql:delete public.orders", "asked": b"a"}
    assert again(desk, **same) == HoldAnswered(3, APPROVED, "local:ann", "", ticket)
    assert isinstance(again(desk, **{**same, "action": "sql:delete public.customers"}), HoldOpened)
    assert isinstance(again(desk, "s3", **{**same, "asked": b"else"}), HoldOpened)


def test_without_a_shape_it_is_for_the_very_same_and_no_words_widen_it() -> None:
    desk = weir()
    granted(desk, shape=b"")
    assert isinstance(again(desk, shape=b""), HoldOpened)
    same = {"shape": b"", "exact": b"e", "action": "sql:delete public.orders", "asked": b"a"}
    assert isinstance(again(desk, "s3", **same), HoldAnswered)
    assert isinstance(again(desk, "s4", **{**same, "action": "sql:delete public.customers"}), HoldOpened)


def test_it_ends_with_the_process() -> None:
    desk = weir()
    ticket = granted(desk)
    desk.running.clear()
    assert isinstance(again(desk), HoldOpened), "a child may hold its connection"
    desk.turn(1)
    assert (ticket, "cancelled", "its command has ended") in [
        (one.ticket, one.state, one.reason) for one in desk.changes]
    desk.running.add((7, 5_000))
    assert isinstance(again(desk, "s3"), HoldOpened)


def test_and_with_its_time() -> None:
    desk = weir()
    ticket = granted(desk)
    desk.turn(3599)
    assert isinstance(again(desk), HoldAnswered)
    desk.clock += 10**9
    assert isinstance(again(desk, "s3"), HoldOpened), "before the clock is looked at"
    desk.turn(0)
    assert ("expired", ticket) in [(one.state, one.ticket) for one in desk.changes]


def test_revoked() -> None:
    desk = weir()
    ticket = granted(desk)
    assert "none of the groups" in desk.holds.revoke(ticket, "local:eve", ("data",), "")
    assert desk.holds.revoke(ticket, "local:bob", ("dba",), "enough") == ""
    assert isinstance(again(desk), HoldOpened)


@pytest.mark.parametrize(("kind", "name"), [
    ("subject", "local:crew"), ("subject", "local:ann"), ("workload", "crew"), ("target", "orders")])
def test_locked(kind: str, name: str) -> None:
    desk = weir()
    granted(desk)
    desk.holds.lock_out(LockedOut([Lock(kind, name, "leaked", "local:root", 1)]).why)  # type: ignore[arg-type]
    assert desk.holds.views() == ()
    assert isinstance(again(desk), HoldOpened)


def test_another_key() -> None:
    desk = weir()
    granted(desk)
    desk.holds.rekey(b"n" * 32)
    assert isinstance(again(desk), HoldOpened)


def test_other_policies() -> None:
    """Rule and words may be the same, and what they are about is not."""
    desk = weir()
    ticket = granted(desk)
    shape = parse_hold("s", "approvers=dba, reuse=shape:1h")
    assert desk.approve(desk.open(shape, session="s9")) == ""
    desk.holds.renew()
    assert [view.reuse for view in desk.holds.views()] == ["shape"]
    assert (desk.changes[-1].ticket, desk.changes[-1].reason) == (ticket, "policies were changed")
    assert isinstance(again(desk), HoldOpened)


def test_another_life_of_the_enforcer() -> None:
    desk = weir()
    granted(desk)
    desk.start()
    assert isinstance(again(desk), HoldOpened)


def test_rules_that_differ_let_it_through_once() -> None:
    desk = weir()
    both = (RULE, parse_hold("b", "approvers=dba, reuse=session"))
    ticket = desk.open(both, **PODS)
    assert desk.approve(ticket) == ""
    assert desk.holds.use("s1", 8, ticket, 7)
    assert isinstance(again(desk, "s1", rule=both), HoldOpened)


# ---- several that wait


def waiting(desk: Desk) -> tuple[str, str, str]:
    """Two requests of one command, on connections of their own, and one of another."""
    first = desk.open(RULE, session="s1", operation=1, **PODS)
    second = desk.open(RULE, session="s2", operation=1, action="sql:delete another", exact=b"else", **PODS)
    other = desk.open(RULE, session="s3", operation=1, **{**PODS, "process": replace(KUBECTL, pid=8)})
    return first, second, other


def test_one_yes_is_for_all_of_the_command_that_wait() -> None:
    desk = weir()
    first, second, other = waiting(desk)
    assert desk.approve(first) == ""
    assert desk.answers == [("s1", HoldAnswered(1, APPROVED, "local:ann", "fine", first)),
                            ("s2", HoldAnswered(1, APPROVED, "local:ann", "", first))]
    assert (desk.changes[-1].ticket, desk.changes[-1].reason) == (second, f"ticket {first} covers it")
    assert desk.holds.use("s2", 2, first, 1)
    assert not desk.holds.use("s2", 3, second, 1)
    assert {view.ticket for view in desk.holds.views()} == {first, other}
    assert "no hold" in desk.approve(second)
    assert not desk.holds.asks("s2")


def test_one_no_is_for_one() -> None:
    desk = weir()
    first, second, other = waiting(desk)
    assert desk.holds.decide(first, False, "local:ann", ("dba",), "no") == ""
    assert [answer.state for _, answer in desk.answers] == [DENIED]
    assert {view.ticket for view in desk.holds.views()} == {second, other}


def test_of_two_approvers_one_is_none() -> None:
    desk, rule = weir(), parse_hold("r", "approvers=dba, count=2, reuse=command")
    first = desk.open(rule, session="s1", operation=1, **PODS)
    desk.open(rule, session="s2", operation=1, **PODS)
    assert desk.approve(first) == ""
    assert desk.answers == []
    assert desk.approve(first, "local:bob") == ""
    assert [session for session, _ in desk.answers] == ["s1", "s2"]


def test_what_waits_is_not_let_through_where_its_command_has_ended() -> None:
    desk = weir()
    first, second, _ = waiting(desk)
    desk.running.clear()
    assert desk.approve(first) == ""
    assert [session for session, _ in desk.answers] == ["s1"]
    desk.turn(1)
    assert second in {view.ticket for view in desk.holds.views()}


# ---- what people are shown


def shown(**more: Any) -> HoldView:
    desk = weir()
    desk.open(RULE, **{**PODS, **more})
    return desk.holds.views()[0]


def test_the_approver_reads_what_else_it_lets_through() -> None:
    assert lets_through(shown()) == (
        "this and further requests of this command (pid 7, /usr/bin/kubectl): k8s:delete of pods in namespace shop, "
        "until it ends, for 60 min at most")
    assert "of the same shape, until it ends" in lets_through(shown(covers=""))


def test_what_a_crew_names_its_program_moves_nothing() -> None:
    said = lets_through(shown(process=replace(KUBECTL, exe="/tmp/\u202e\x1b[2J"), covers="a\x07b" + "x" * 10_000))
    assert said.isprintable()
    assert len(said) < 1_000
