"""What is said of a connect that nobody accounts for: text table of evidence -> verdict."""
from __future__ import annotations

import pytest

from agent.block.attribution import Held
from agent.contract.ledger import REDIRECTED, Connect
from agent.ledger import AGAIN, HANDED, INTERRUPTED, NEVER, SECOND, WAIT, Evidence, Rounds, judge
from probes import abi

PORT = 15432
NOW = 1000 * SECOND
ESTABLISHED, SYN_SENT, CLOSE_WAIT = 1, 2, 8
LISTENER, LISTENER6, OUTSIDE = "127.0.0.1 15432", "::1 15432", "192.0.2.4 5432"


def connect(verdict: str = REDIRECTED, cookie: int = 7, seq: int = 1, at: int = 10) -> Connect:
    return Connect(seq, at, NOW - 10 * SECOND, cookie, "crew", 4711, OUTSIDE, verdict)


def held(peer: str, state: int = ESTABLISHED) -> Held:
    address, port = peer.split()
    return Held(abi.packed("10.0.0.1"), 40000, abi.packed(address), int(port), 7, 1, state)


def evidence(peer: str = "", state: int = ESTABLISHED, *, arrived: bool = False, handed: int = 0, enforcer: int = 1,
             failing: int = 0, boot: int = 0, netns: int = 0) -> Evidence:
    sockets = {7: held(peer, state)} if peer else {}
    ends = {(netns, abi.packed("10.0.0.1"), 40000)} if arrived else set()
    return Evidence(NOW, boot, PORT, sockets, ends, {7: handed} if handed else {}, enforcer, failing)


TABLE = """
redirected  socket      arrived handed   enforcer failing boot | says
redirected  -           -       -        old      -       old  | never arrived
redirected  listener    -       -        old      -       old  | wait
redirected  listener6   -       -        old      -       old  | wait
redirected  connecting  -       -        old      -       old  | wait
redirected  outside     -       -        old      -       old  | alarm: not with the enforcer
redirected  closing     -       -        old      -       old  | alarm: not with the enforcer
redirected  outside     yes     -        old      -       old  | wait
redirected  outside     other   -        old      -       old  | alarm: not with the enforcer
redirected  -           -       just     old      -       old  | wait
redirected  -           -       long     old      -       old  | alarm: has recorded neither
redirected  listener    -       long     old      -       old  | alarm: has recorded neither
redirected  -           -       long     new      -       old  | interrupted
redirected  -           -       long     old      yes     old  | interrupted
redirected  listener    -       long     new      -       old  | wait
redirected  -           -       -        old      -       new  | interrupted
elsewhere   -           -       -        old      -       old  | alarm: past the rewrite
elsewhere   outside     -       -        old      -       old  | alarm: not with the enforcer
elsewhere   outside     yes     -        old      -       old  | wait
elsewhere   outside     yes     just     old      -       old  | wait
elsewhere   -           -       just     old      -       old  | wait
elsewhere   -           -       long     new      -       old  | interrupted
"""
SOCKETS = {"-": ("", 0), "listener": (LISTENER, ESTABLISHED), "listener6": (LISTENER6, ESTABLISHED),
           "connecting": (OUTSIDE, SYN_SENT), "outside": (OUTSIDE, ESTABLISHED), "closing": (OUTSIDE, CLOSE_WAIT)}


@pytest.mark.parametrize("line", TABLE.strip().splitlines()[1:])
def test_judgements(line: str) -> None:
    words, says = line.split(" | ")
    verdict, socket, arrived, handed, enforcer, failing, boot = words.split()
    peer, state = SOCKETS[socket]
    since = {"-": 0, "just": NOW - SECOND, "long": NOW - HANDED - SECOND}[handed]
    judged = judge(connect(verdict, at=10), evidence(
        peer, state, arrived=arrived != "-", netns=9 if arrived == "other" else 0, handed=since,
        enforcer=NOW - SECOND if enforcer == "new" else 1, failing=NOW - 2 * HANDED if failing == "yes" else 0,
        boot=20 if boot == "new" else 0))
    if says == "wait":
        assert judged == WAIT
    elif says.startswith("alarm: "):
        assert says.removeprefix("alarm: ") in judged.why
        assert judged.peer or "recorded neither" in judged.why
    else:
        assert (judged.how, judged.why) == ({"never arrived": NEVER, "interrupted": INTERRUPTED}[says], "")


def test_nothing_is_said_before_the_recording_has_caught_up() -> None:
    """The enforcer's event may be written and not be recorded yet."""
    rounds, one = Rounds(), [connect()]
    later = Evidence(NOW + AGAIN, 0, PORT, {}, set(), {}, 1, 0)
    assert not rounds.settle(one, evidence(), {"enforcer0-a": 100}, {"enforcer0-a": 60}).ended
    assert not rounds.settle(one, later, {"enforcer0-a": 300}, {"enforcer0-a": 99}).ended
    assert rounds.settle(one, later, {"enforcer0-a": 300}, {"enforcer0-a": 100}).ended == {NEVER: [7]}


def test_a_file_that_was_taken_to_its_end_is_not_waited_for() -> None:
    rounds, later = Rounds(), Evidence(NOW + AGAIN, 0, PORT, {}, set(), {}, 1, 0)
    rounds.settle([connect()], evidence(), {"enforcer0-a": 100}, {})
    assert rounds.settle([connect()], later, {}, {}).ended == {NEVER: [7]}


def test_nothing_is_said_at_once() -> None:
    rounds = Rounds()
    assert not rounds.settle([connect()], evidence(OUTSIDE), {}, {}).alarms
    assert not rounds.settle([connect()], evidence(OUTSIDE), {}, {}).alarms
    later = Evidence(NOW + AGAIN, 0, PORT, {7: held(OUTSIDE)}, set(), {}, 1, 0)
    [(one, judged)] = rounds.settle([connect()], later, {}, {}).alarms
    assert (one.cookie, judged.peer) == (7, OUTSIDE)


def test_who_was_accounted_for_meanwhile_is_forgotten() -> None:
    rounds = Rounds()
    rounds.settle([connect()], evidence(), {}, {})
    rounds.settle([], evidence(), {}, {})
    later = Evidence(NOW + AGAIN, 0, PORT, {}, set(), {}, 1, 0)
    assert not rounds.settle([connect()], later, {}, {}).ended, "judged anew"
