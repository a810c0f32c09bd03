"""Pure: connects that nobody accounts for yet x what the kernel holds -> ended, alarm, or wait.

A connect that was sent to the listener ends as a session, a flow or a refusal in the recording; the recorder pairs
those (enforcer/recording/ledger.py), and tells what is left.  What is left is judged here:

  its socket   | who has it                         | then
  is there     | the listener, waiting or accepted  | wait; an alarm where the enforcer has it and records nothing
  is there     | it is not connected yet            | wait
  is there     | somebody else                      | alarm: it went past the enforcer
  is gone      | whois had said whose it was        | wait a while, then an alarm; not where that enforcer has ended
  is gone      | it was seen connected elsewhere    | alarm
  is gone      | nobody                             | ended: it never arrived (reset, given up, the backlog full)

Nothing is said before the recording holds everything that the enforcer had written when it was judged first: an event
under way is no alarm.  Times are CLOCK_BOOTTIME nanoseconds.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Final

from agent.block.attribution import SYN_SENT, Held
from agent.contract.ledger import ELSEWHERE, Connect
from probes import abi

SECOND: Final = 1_000_000_000
SETTLED: Final = 2 * SECOND           # a connect is asked for after that
AGAIN: Final = SECOND                 # between the first judgement and the one that counts
HANDED: Final = 90 * SECOND           # a login may take 30 s, and one side may outlive the other by 30 s
NEVER: Final = "never arrived"        # the listener's port was its only possible peer
INTERRUPTED: Final = "interrupted"    # the enforcer that had it ended, or could record nothing; or the host did
_LOOPBACK: Final = frozenset(map(abi.packed, ("127.0.0.1", "::1")))


@dataclass(frozen=True)
class Evidence:
    """What the kernel and the agent know at one moment."""

    now: int
    boot: int                         # nanoseconds UTC: what was recorded before has ended with the host
    port: int                         # of the listeners
    sockets: Mapping[int, Held]       # by cookie: every connected or connecting TCP socket
    arrived: Set[tuple[int, bytes, int]]     # netns, address and port of the listeners' peers, accepted or waiting
    handed: Mapping[int, int]         # cookie -> when whois said whose it was
    enforcer: int                     # when the running one was started
    failing: int                      # when it last could not record; 0: never


@dataclass(frozen=True)
class Judged:
    """`how` for what has ended without an account, `why` for an alarm; neither: wait."""

    how: str = ""
    why: str = ""
    peer: str = ""                    # with whom it is connected, where the kernel says


WAIT: Final = Judged()


def judge(one: Connect, evidence: Evidence) -> Judged:
    if one.at < evidence.boot:
        return Judged(how=INTERRUPTED)
    held, handed = evidence.sockets.get(one.cookie), evidence.handed.get(one.cookie, 0)
    if held is not None and not _at_listener(held, evidence):
        peer = f"{abi.unpacked(held.remote)} {held.remote_port}"
        return WAIT if held.state == SYN_SENT else Judged(
            why="it is connected, and not with the enforcer", peer=peer)
    if handed:
        return _of_enforcer(held, handed, evidence)
    if held is not None:
        return WAIT                   # in the backlog: whoever holds the listeners next takes it
    if one.verdict == ELSEWHERE:
        return Judged(why="it was connected past the rewrite, and no session, flow or refusal is its own",
                      peer=one.destination)
    return Judged(how=NEVER)


def _at_listener(held: Held, evidence: Evidence) -> bool:
    """By the rewrite, or by the firewall's redirect: then the listener's side alone tells."""
    rewritten = held.remote in _LOOPBACK and held.remote_port == evidence.port
    return rewritten or (held.netns, held.local, held.local_port) in evidence.arrived


def _of_enforcer(held: Held | None, handed: int, evidence: Evidence) -> Judged:
    """The agent has told the enforcer whose it is."""
    if handed < evidence.enforcer or (evidence.failing and handed < evidence.failing + HANDED):
        return WAIT if held is not None else Judged(how=INTERRUPTED)
    if evidence.now - handed < HANDED:
        return WAIT
    return Judged(why="the enforcer took it and has recorded neither session, flow nor refusal")


@dataclass
class Settled:
    """What one round came to."""

    ended: dict[str, list[int]] = field(default_factory=dict)        # how -> cookies
    alarms: list[tuple[Connect, Judged]] = field(default_factory=list)


class Rounds:
    """What was judged, and waits for the recording to have caught up.  Bounded by what is asked for (contract)."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, Mapping[str, int]]] = {}   # connect's seq -> (when, written by then)

    def settle(
        self, connects: Iterable[Connect], evidence: Evidence, written: Mapping[str, int], taken: Mapping[str, int],
    ) -> Settled:
        """`written`: bytes of the enforcer's journal files now; `taken`: what of them was in the recording when the
        recorder said that these connects are open."""
        found, known = Settled(), self._known
        self._known = {}
        for one in connects:
            judged = judge(one, evidence)
            if judged == WAIT:
                continue
            when, before = known.get(one.seq, (evidence.now, written))
            if evidence.now - when < AGAIN or not _covers(taken, before):
                self._known[one.seq] = (when, before)
            elif judged.why:
                found.alarms.append((one, judged))
            else:
                found.ended.setdefault(judged.how, []).append(one.cookie)
        return found


def _covers(taken: Mapping[str, int], before: Mapping[str, int]) -> bool:
    """A file that the recorder does not name any more was taken to its end."""
    return all(taken.get(name, size) >= size for name, size in before.items())
