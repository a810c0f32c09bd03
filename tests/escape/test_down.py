"""Weir is down: nothing opens.  A Weir of its own for each, because it is killed."""
from __future__ import annotations

import pytest
from escape.attempts import TECHNIQUES, attempt
from escape.sink import Sink
from lab.lab import Lab
from lab.weir import weir

pytestmark = pytest.mark.lab

TRIED = ("plain-ipv4", "plain-ipv6", "v4-mapped", "fast-open-sendto", "io-uring-connect", "udp", "double-fork",
         "new-session", "leave-cgroup", "by-the-listener", "bind-the-listener")


@pytest.mark.parametrize("victim", ["enforcer", "agent", "all"])
def test_nothing_opens_while_weir_is_down(the_lab: Lab, sink: Sink, victim: str) -> None:
    """The block outlives who made it; the listener's port cannot be taken over by a crew."""
    with weir(the_lab) as installed:
        the_lab.give(TECHNIQUES)
        with installed.inside("host") as crew:
            installed.kill(victim)
            for technique in TRIED:
                token, command = attempt(technique)
                code, out, _ = crew.run_inside(command)
                assert not sink.saw(token), technique
                assert code != 0, f"{technique}: {out}"
