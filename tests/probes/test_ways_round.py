"""Ways round the block, as root and without the launcher's filters; the verdict is the server's."""
from __future__ import annotations

import uuid
from collections.abc import Iterable

import pytest
from blockhost import Block

from agent.techniques import calls

pytestmark = pytest.mark.kernel

# What the hooks and rules alone must hold, of all that test_matrix tries with the launcher.
WAYS = sorted({
    "plain-ipv4", "plain-ipv6", "v4-mapped", "fast-open-sendto", "fast-open-sendmsg-ipv6", "fast-open-connect",
    "multipath", "bind-to-device", "disconnect-and-again", "source-port-again", "ip-options", "udp", "udp-connected",
    "udp-ipv6", "fragments", "raw-ip", *calls.TECHNIQUES, "double-fork", "new-session", "thread-of-dead-leader",
    "leave-cgroup", "set-namespace"})
PLACES = {
    "in the slice": {"inside": True},
    "in the slice, marked": {"inside": True, "mark": 7},
    "marked, out of the slice": {"inside": True, "mark": 7, "leave": True},
}


def tried(block: Block, technique: str, places: Iterable[str]) -> None:
    for place in places:
        if (technique, place) == ("leave-cgroup", "in the slice"):
            continue                  # without a mark it would be nobody's: the launcher gives one before anything runs
        token = f"token-{uuid.uuid4().hex}"
        code, said = block.technique(technique, token, **PLACES[place])
        assert not block.sink.saw(token), f"{place}: {said}"
        assert code != 0, f"{place}: {said}"


@pytest.mark.parametrize("technique", WAYS)
def test_the_way_exists(contained: Block, technique: str) -> None:
    """The control: outside of the slice it leads to the server."""
    token = f"token-{uuid.uuid4().hex}"
    _, said = contained.technique(technique, token, inside=False)
    assert contained.sink.saw(token), said


@pytest.mark.parametrize("technique", WAYS)
def test_the_block(contained: Block, technique: str) -> None:
    tried(contained, technique, PLACES)


# Raw sockets are sock_create's, and a program that was in the slice and left it is the mark's: the probes'.
@pytest.mark.parametrize("technique", WAYS)
def test_the_probes_alone(without_rules: Block, technique: str) -> None:
    tried(without_rules, technique, PLACES)


@pytest.mark.parametrize("technique", sorted(set(WAYS) - {"leave-cgroup"}))
def test_the_rules_alone(detached: Block, technique: str) -> None:
    tried(detached, technique, ["in the slice"])


def test_the_listener_is_not_dialled_by_hand(contained: Block) -> None:
    for place in PLACES.values():
        code, said = contained.technique("by-the-listener", "token", **place)
        assert code == 1, said
        assert "not permitted" in said
    assert {origin.verdict for origin in contained.containment.drain()} == {"refused"}


def test_the_listeners_port_is_not_bound(contained: Block) -> None:
    for place in PLACES.values():
        code, said = contained.technique("bind-the-listener", "token", **place)
        assert code == 1, said
        assert "not permitted" in said
    code, said = contained.technique("bind-the-listener", "token", inside=False)
    assert code == 0, said
