"""Fixtures that every folder may use: the lab, Weir in it, and the oracle at the end of each test."""
from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab.lab import Lab, lab
from lab.weir import Installed, weir


@pytest.fixture(scope="session")
def the_lab() -> Iterator[Lab]:
    """One set of hosts and servers for all lab tests."""
    with lab() as made:
        yield made


@pytest.fixture(scope="module")
def shared_weir(the_lab: Lab) -> Iterator[Installed]:
    """Weir with labels, one for a module."""
    with weir(the_lab, labels=True) as installed:
        yield installed


@pytest.fixture
def installed(shared_weir: Installed) -> Iterator[Installed]:
    with shared_weir.overseen():
        yield shared_weir
