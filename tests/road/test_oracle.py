"""The completeness oracle would notice: one event less, or one statement that the server did not run."""
from __future__ import annotations

import msgspec
import pytest
from clients.test_clients import environment
from lab import oracle
from lab.lab import Lab
from lab.weir import weir

from enforcer.words import events

pytestmark = pytest.mark.lab


def test_the_oracle_notices_one_missing_event(the_lab: Lab) -> None:
    """The mutation: a recording that lacks the intent of one executed statement does not pass."""
    with weir(the_lab) as made:
        done = made.crew("psql", "-X", "-w", "-c", "SELECT 1", "-c", "SELECT 2 AS two",
                         environment=environment(the_lab, "wrong"))
        assert done.returncode == 0, done.stderr
        made.check()
        bodies = oracle.read_events(made.recording)
        executed = oracle.executed_by_weir(the_lab.database, made.since)
        assert not oracle.complaints(bodies, executed, made.forwarded_key)
        key = made.forwarded_key
        gone = oracle.digest(key, "SELECT 2 AS two")
        fewer = [body for body in bodies if not _is_intent_of(body, gone)]
        assert len(fewer) == len(bodies) - 1
        assert any("SELECT 2 AS two" in line for line in oracle.complaints(fewer, executed, key))
        ghosts = [s for s in executed if "SELECT 2 AS two" not in s.message]
        assert any("never ran" in line for line in oracle.complaints(bodies, ghosts, key))


def _is_intent_of(body: bytes, forwarded: bytes) -> bool:
    kind = msgspec.msgpack.decode(body)[0]
    return kind == events.INTENT and msgspec.msgpack.decode(body, type=events.Intent).forwarded == forwarded
