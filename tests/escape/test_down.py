"""Weir is down: nothing opens.  A Weir of its own for each, because it is killed."""
from __future__ import annotations

import json
import uuid

import pytest
from escape.attempts import TECHNIQUES, where
from escape.sink import Sink
from lab.hosts import CREW
from lab.lab import Lab
from lab.weir import weir

pytestmark = pytest.mark.lab

TRIED = ("plain-ipv4", "plain-ipv6", "v4-mapped", "fast-open-sendto", "io-uring-connect", "udp", "double-fork",
         "new-session", "leave-cgroup", "by-the-listener", "bind-the-listener")
BATCH = "printf '%s\\n' \"$1\" | /usr/bin/python3 -m techniques batch"


@pytest.mark.parametrize("victim", ["enforcer", "agent", "all"])
def test_nothing_opens_while_weir_is_down(the_lab: Lab, sink: Sink, victim: str) -> None:
    """The block outlives who made it; the listener's port cannot be taken over by a crew."""
    with weir(the_lab) as installed:
        the_lab.give(TECHNIQUES)
        tokens = {technique: f"token-{uuid.uuid4().hex}" for technique in TRIED}
        lines = [[technique, token, *where(CREW).words()] for technique, token in tokens.items()]
        with installed.inside("host") as crew:
            installed.kill(victim)
            code, out, err = crew.run_inside(["/bin/sh", "-c", BATCH, "-", json.dumps(lines)])
        assert code == 0, err
        answers = json.loads(out)
        assert [name for name, _, _ in answers] == list(TRIED)
        for technique, code, said in answers:
            assert not sink.saw(tokens[technique]), technique
            assert code != 0, f"{technique}: {said}"
