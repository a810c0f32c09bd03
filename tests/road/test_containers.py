"""Containers below a workload's slice: a session as anywhere else, and no way round; what weakens one is said.

An OCI runtime makes them here (lab/containers.py); podman itself does in tests/vm.
"""
from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.test_clients import environment
from lab.containers import Image, container
from lab.hosts import CREW, DB, RUNTIME, wait_until
from lab.lab import Lab
from lab.postgresql import NAME
from lab.weir import WORKLOAD, Inside, Installed, weir
from road.test_watch import events

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def shared(the_lab: Lab) -> Iterator[Installed]:
    with weir(the_lab) as made:
        yield made


@pytest.fixture(scope="module")
def image(the_lab: Lab) -> Image:
    return Image.make(the_lab, "plain")


@pytest.fixture
def installed(shared: Installed) -> Iterator[Installed]:
    with shared.overseen():
        yield shared


def arguments(installed: Installed) -> list[str]:
    """As an operator gets them; and the root file of the lab's own clients, which lies in a home."""
    done = installed.weir("container-args", WORKLOAD, "--manager", "cgroupfs")
    assert done.returncode == 0, done.stderr
    assert "~/db-ca.pem" in done.stderr
    return [*done.stdout.split(), f"--volume=/run/{RUNTIME}/trust/weir.pem:/home/db-ca.pem:ro"]


@pytest.fixture
def inside(installed: Installed, image: Image) -> Iterator[Inside]:
    with container(installed.lab, image, "plain", *arguments(installed)) as made:
        yield made


def select(crew: Inside, installed: Installed, host: str = NAME) -> str:
    chosen = environment(installed.lab, "wrong", PGHOST=host, PGSSLROOTCERT="/home/db-ca.pem")
    pairs = [f"{name}={value}" for name, value in chosen.items()]
    code, out, err = crew.run_inside(
        ["env", *pairs, "psql", "-X", "-A", "-t", "-w", "-c", "SELECT count(*) FROM products"])
    return out.strip() if code == 0 else err


@pytest.mark.parametrize("host", [NAME, DB.ipv4, DB.ipv6])
def test_a_session(installed: Installed, inside: Inside, host: str) -> None:
    wait_until("it is contained", lambda: select(inside, installed, host) == "4", 5)
    assert installed.status()["state"] == "enforcing"
