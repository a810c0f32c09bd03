"""Whose a socket is that the probes know nothing of: made while they were away, or before their maps were lost."""
from __future__ import annotations

import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.block import cgroups
from agent.block.containment import Containment
from agent.block.holdings import ELSEWHERE, OWN
from agent.layout import cgroup_root


@pytest.mark.parametrize("kind", ["listening", "connected", "datagram"])
def test_by_its_cgroup(kind: str) -> None:
    """Else the process of a crew that has a datagram socket is killed, and its servers are ended, by a repair."""
    mine = cgroups.cgroup_id(Path(f"{cgroup_root()}{cgroups.path_of(os.getpid())}"))
    with socket.create_server(("127.0.0.1", 0)) as door, socket.create_connection(door.getsockname()) as one, \
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        copy = {"listening": door, "connected": one, "datagram": datagrams}[kind]
        for inside, wanted in ({mine}, OWN), (set[int](), ELSEWHERE):
            block: Any = SimpleNamespace(_noted=lambda copy: ELSEWHERE, _cgroup_ids=lambda inside=inside: inside)
            assert Containment._whose(block, copy, os.getpid()) == wanted
