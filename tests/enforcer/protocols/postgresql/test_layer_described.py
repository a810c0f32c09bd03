"""Random conversations of a crew that may not see a labelled column: whatever it describes, leaves undescribed, binds
anew, fetches or lets fail in between, the value never reaches it.  Against a real server; the control reads it.
"""
from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from pump import FLUSH, SYNC, Pump, TableGate, bind, close, describe, execute, parse, query

from agent.contract.target import ColumnLabel

LABELS = (ColumnLabel("pii.email", "public", "people", "email", "constant:hidden"),)
ADA = b"ada@x.example"
TEXTS = (
    "SELECT email FROM people ORDER BY id", "SELECT name FROM people ORDER BY id", "SELECT * FROM people ORDER BY id",
    "SELECT name AS email FROM people", "SELECT email AS name FROM people", "TABLE people", "SELECT id FROM people",
    "SELECT email FROM people WHERE id = 1", "SELECT email FROM people WHERE id = 2", "SELECT 1", "SELECT 1 / 0",
    "UPDATE people SET name = name WHERE id = 1 RETURNING email", "DELETE FROM people WHERE id = 7 RETURNING id",
    "PREPARE q AS SELECT email FROM people ORDER BY id", "PREPARE q AS SELECT name FROM people ORDER BY id",
    "EXECUTE q", "EXECUTE q", "DEALLOCATE q", "DECLARE c CURSOR FOR SELECT email FROM people ORDER BY id",
    "DECLARE c CURSOR FOR SELECT name FROM people ORDER BY id", "FETCH 1 FROM c", "FETCH ALL FROM c", "CLOSE c",
    "BEGIN", "COMMIT", "SAVEPOINT a", "ROLLBACK TO a", "ROLLBACK TO a", "DISCARD ALL", "SET search_path = public",
    "COPY (SELECT 1) TO STDOUT",
)
NAMES = ("", "", "s", "q")
PORTALS = ("", "p", "c")


def batch(chance: random.Random) -> bytes:
    """Of the extended protocol: what is described, bound and executed need not be one another's."""
    made = b""
    for _ in range(chance.randrange(1, 6)):
        name, portal = chance.choice(NAMES), chance.choice(PORTALS)
        made += chance.choice((
            parse(chance.choice(TEXTS), name),
            parse(chance.choice(TEXTS), name) + bind(name=name, portal=portal) + describe("P", portal),
            bind(name=name, portal=portal, binary=chance.random() < 0.4), describe("P", portal), describe("S", name),
            execute(portal), execute(portal, 1), close("P", portal), close("S", name), FLUSH))
    return made + SYNC


def whole(chance: random.Random) -> bytes:
    """A batch that reads something, as clients do it, with or without its Describe."""
    name, portal = chance.choice(NAMES), chance.choice(PORTALS)
    made = parse(chance.choice(TEXTS), name) + bind(name=name, portal=portal, binary=chance.random() < 0.3)
    if chance.random() < 0.5:
        made += describe("P", portal)
    if chance.random() < 0.2:                  # something else takes its place meanwhile
        made += close("P", portal) + parse(chance.choice(TEXTS)) + bind(portal=portal)
    return made + execute(portal, chance.choice((0, 0, 1))) + SYNC


def steps(chance: random.Random) -> Iterator[tuple[bytes, int]]:
    """Bytes, and how many ReadyForQuery answer them.  In a transaction portals outlive their batch."""
    if chance.random() < 0.7:
        yield query("BEGIN; SAVEPOINT a"), 1
    for _ in range(chance.randrange(6, 16)):
        which = chance.random()
        if which < 0.15:
            yield query("ROLLBACK TO a"), 1
        elif which < 0.35:
            yield query(chance.choice(TEXTS)), 1
        elif which < 0.8:
            count = chance.choice((1, 1, 2, 3))
            yield b"".join(whole(chance) for _ in range(count)), count
        else:
            yield batch(chance), 1


def read(port: int, seed: int, labels: tuple[ColumnLabel, ...]) -> bytes:
    """All that the client gets."""
    chance, gate, got = random.Random(seed), TableGate(), b""
    session = Pump(port, "app", "shop", gate, labels=labels, cut=chance.choice((1, 7, 100, 1 << 20)))
    try:
        for data, count in steps(chance):
            gate.version += chance.random() < 0.2
            session.send(data)
            got += b"".join(kind + body for kind, body in session.until_ready(count))
            assert not session.closed, session.closed
    finally:
        session.close()
    return got


@pytest.mark.parametrize("seed", range(60))
def test_the_value_never_reaches_who_may_not_see_it(port: int, seed: int) -> None:
    assert ADA not in read(port, seed, LABELS)


def test_the_conversations_would_read_it(port: int) -> None:
    """The control: without labels many of them do."""
    assert sum(ADA in read(port, seed, ()) for seed in range(60)) > 20


@pytest.mark.parametrize("answered", [False, True])
def test_what_is_described_is_not_what_runs(port: int, answered: bool) -> None:
    """The description of a portal is no description of the next one of its name."""
    session = Pump(port, "app", "shop", TableGate(), labels=LABELS)
    try:
        session.send(parse("SELECT name FROM people ORDER BY id", "a"))
        session.send(parse("SELECT email FROM people ORDER BY id", "b") + bind(name="a") + describe("P") + FLUSH)
        while answered and b"name\0" not in session.client:
            session.step()
        session.send(bind(name="b") + execute() + SYNC)
        assert next(body for kind, body in session.until_ready() if kind == b"D").endswith(b"hidden")
    finally:
        session.close()


def test_a_describe_that_fails_describes_nothing(port: int) -> None:
    """The portal outlives the error that took its Describe along: it is described before it runs."""
    session = Pump(port, "app", "shop", TableGate(), labels=LABELS)
    try:
        session.talk(query("BEGIN"))
        session.talk(parse("SELECT email FROM people ORDER BY id"), bind(portal="p"), SYNC)
        session.talk(query("SAVEPOINT a"))
        session.talk(parse("SELECT 1 / 0", "x"), bind(name="x"), execute(), describe("P", "p"), SYNC)
        session.talk(query("ROLLBACK TO a"))
        got = session.talk(execute("p"), SYNC)
        assert next(body for kind, body in got if kind == b"D").endswith(b"hidden")
    finally:
        session.close()
