"""Each workload has its turn: who connects or asks as fast as it can is held back by the kernel, the others are not."""
from __future__ import annotations

import json
import time
from collections import Counter

import pytest
from blockhost import DNS, DNS4, FLOOD, NOBODY, TOO_FAST, Block

from agent.block.attribution import Bounded
from agent.block.ruleset import NOBODYS, NOBODYS_AT_ONCE
from probes import abi

pytestmark = pytest.mark.kernel

ONCE = """
import socket
try:
    socket.create_connection(("203.0.113.9", 9), 5)
except OSError as error:
    print(error.strerror)
"""


@pytest.mark.parametrize("how", [{"mark": 21}, {"child": "fast"}], ids=["mark", "cgroup"])
def test_connects(contained: Block, how: dict[str, object]) -> None:
    """Nobody has the listener's place here: what is let through is refused there."""
    began = time.monotonic()
    said = contained.python(FLOOD, abi.CONNECTS_AT_ONCE + 3000, **how).communicate(timeout=60)[0]
    took = time.monotonic() - began
    counts = Counter(json.loads(said))
    assert counts[NOBODY] <= abi.CONNECTS_AT_ONCE + (took + 1) * abi.CONNECTS
    assert counts[TOO_FAST] + counts[NOBODY] == abi.CONNECTS_AT_ONCE + 3000
    assert contained.python(ONCE, mark=22).communicate(timeout=30)[0] == f"{NOBODY}\n", "another's turn is its own"
    assert len(contained.containment.drain()) <= counts[NOBODY] + 1
    [told] = contained.containment.bounded()
    assert (told.what, told.unwritten) == ("connect", 0)
    assert told.refused == counts[TOO_FAST] > 0
    if how.get("mark"):
        assert (told.owner, told.cgroup) == (21, 0)
    else:
        assert told.cgroup == (contained.containment.slice / "fast").stat().st_ino
    assert contained.containment.bounded() == [], "told once"


OWN = """
import socket, sys
with socket.create_server(("127.0.0.1", 0), backlog=64) as door:
    for _ in range(int(sys.argv[1])):
        with socket.create_connection(door.getsockname(), 5):
            door.accept()[0].close()
print("all", flush=True)
"""


def test_a_workloads_own_connects_pass_and_are_counted(contained: Block) -> None:
    """They lead nowhere, and nothing waits for their account."""
    many = abi.CONNECTS_AT_ONCE + 2000
    assert contained.python(OWN, many, mark=23).communicate(timeout=60)[0] == "all\n"
    written = len(contained.containment.drain())
    [told] = contained.containment.bounded()
    assert (told.owner, told.what, told.refused) == (23, "connect", 0)
    assert written + told.unwritten == many
    assert written < many


ASK = """
import socket, sys
refused = 0
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    if sys.argv[4] == "connected":
        one.connect((sys.argv[1], int(sys.argv[2])))
    for _ in range(int(sys.argv[3])):
        try:
            one.send(b"x") if sys.argv[4] == "connected" else one.sendto(b"x", (sys.argv[1], int(sys.argv[2])))
        except PermissionError:
            refused += 1
print(refused, flush=True)
"""


@pytest.mark.parametrize("way", ["connected", "by address"])
def test_questions(contained: Block, way: str) -> None:
    many, number = abi.QUESTIONS_AT_ONCE + 500, 24 if way == "connected" else 25
    began = time.monotonic()
    refused = int(contained.python(ASK, DNS4, DNS, many, way, mark=number).communicate(timeout=30)[0])
    passed = many - refused
    assert abi.QUESTIONS_AT_ONCE <= passed <= abi.QUESTIONS_AT_ONCE + (time.monotonic() - began + 1) * abi.QUESTIONS
    assert contained.python(ASK, DNS4, DNS, 10, way, mark=26).communicate(timeout=30)[0] == "0\n"
    assert contained.containment.bounded() == [Bounded(number, 0, "question", refused, 0)]


STREAMS = """
import socket, sys
for _ in range(int(sys.argv[3])):
    with socket.socket() as one:
        one.setblocking(False)
        one.connect_ex((sys.argv[1], int(sys.argv[2])))
"""


def test_streams_to_the_resolver_are_questions(contained: Block) -> None:
    """What opens one is counted, for whose it is has to be found as of a datagram."""
    many = abi.QUESTIONS_AT_ONCE + 300
    began = time.monotonic()
    contained.python(STREAMS, DNS4, DNS, many, mark=27).communicate(timeout=30)
    [told] = contained.containment.bounded()
    assert (told.owner, told.what) == (27, "question")
    assert 300 - (time.monotonic() - began + 1) * abi.QUESTIONS <= told.refused <= 300
    refused = int(contained.python(ASK, DNS4, DNS, 50, "connected", mark=27).communicate(timeout=30)[0])
    assert refused, "it is one turn with the datagrams'"
    assert [one.what for one in contained.containment.bounded()] == ["question"]


@pytest.mark.parametrize("way", ["connected", "by address"])
def test_who_is_no_crew_has_a_small_turn_to_ask(contained: Block, way: str) -> None:
    """All of them together, by the rules: they are no workload's, and each question costs a look at whose it is."""
    many = NOBODYS_AT_ONCE + 500
    began = time.monotonic()
    refused = int(contained.python(ASK, DNS4, DNS, many, way, inside=False).communicate(timeout=30)[0])
    assert many - refused <= NOBODYS_AT_ONCE + (time.monotonic() - began + 1) * NOBODYS
    assert contained.python(ASK, DNS4, DNS, 10, way, mark=28).communicate(timeout=30)[0] == "0\n"


def test_it_is_a_crews_turn_alone(contained: Block) -> None:
    flood = FLOOD.replace("203.0.113.9", "127.0.0.1")
    said = contained.python(flood, abi.CONNECTS_AT_ONCE + 500, inside=False).communicate(timeout=60)[0]
    assert json.loads(said) == {NOBODY: abi.CONNECTS_AT_ONCE + 500}
    assert contained.containment.bounded() == []
