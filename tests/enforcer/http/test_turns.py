"""A passage's peers have their turns, and everybody else theirs."""
from __future__ import annotations

import pytest

from enforcer.http.turns import PIECE, SMALL, TIMER, Turns
from enforcer.words.commands import CLIENT, SERVER, Command, PauseReading, ResumeReading, StartTimer
from enforcer.words.inputs import Input

BIG = bytes(range(256)) * 1024


class Slow:
    """A Passage to which each piece costs `cost` seconds."""

    def __init__(self, cost: float) -> None:
        self.cost, self.clock, self.over = cost, 0.0, False
        self.said: list[Command] = []
        self.heard: list[tuple[int, bytes]] = []
        self.gone: list[tuple[int, int]] = []  # peer, bytes heard of it by then
        self.turns = Turns(self, self.said.append, lambda: self.clock, lambda: self.over)

    def receive(self, peer: int, data: bytes) -> None:
        self.heard.append((peer, data))
        self.clock += self.cost

    def ended(self, peer: int) -> None:
        self.gone.append((peer, len(self.of(peer))))

    def handle(self, event: Input) -> None: ...

    def stop(self, reason: str) -> None: ...

    def of(self, peer: int) -> bytes:
        return b"".join(data for one, data in self.heard if one == peer)


def test_what_is_quick_passes_at_once() -> None:
    slow = Slow(0.0005)
    slow.turns.receive(SERVER, BIG)
    assert slow.of(SERVER) == BIG
    assert slow.said == []
    assert [len(data) for _, data in slow.heard][:4] == [8 << 10, 16 << 10, PIECE, PIECE]


def test_what_takes_long_waits_for_its_next_turn() -> None:
    slow = Slow(0.006)
    slow.turns.receive(CLIENT, BIG)
    assert slow.of(CLIENT) == BIG[:6 * SMALL]  # smaller ones, where they take long
    assert slow.said == [PauseReading(CLIENT), StartTimer(TIMER, 0.003)]
    slow.turns.receive(CLIENT, b"late")
    slow.turns.receive(SERVER, b"else")        # nobody else waits for that
    slow.turns.ended(CLIENT)
    assert slow.of(SERVER) == b"else"
    rounds = 0
    while not slow.gone:
        slow.turns.fired()
        rounds += 1
    assert rounds == 62
    assert slow.of(CLIENT) == BIG + b"late"
    assert slow.gone == [(CLIENT, len(BIG) + 4)]
    assert slow.said.count(ResumeReading(CLIENT)) == 1


@pytest.mark.parametrize("wish", [PauseReading(SERVER), ResumeReading(SERVER)])
def test_a_passage_that_restrains_is_not_overruled(wish: PauseReading | ResumeReading) -> None:
    slow = Slow(1.0)
    slow.turns.receive(SERVER, BIG)
    slow.turns.restrain(PauseReading(SERVER))
    slow.turns.restrain(wish)
    for _ in range(200):
        slow.turns.fired()
    reads = [one for one in slow.said if isinstance(one, PauseReading | ResumeReading)]
    assert reads == [PauseReading(SERVER), *([] if isinstance(wish, PauseReading) else [ResumeReading(SERVER)])]


def test_nothing_is_told_once_it_is_over() -> None:
    slow = Slow(1.0)
    slow.turns.receive(CLIENT, BIG)
    slow.over = True
    slow.turns.fired()
    assert slow.of(CLIENT) == BIG[:4 * SMALL]
