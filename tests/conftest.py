"""Fixtures that every folder may use: the lab, Weir in it, and the oracle at the end of each test."""
from __future__ import annotations

import gc
import os
import platform
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from connections import Watched, check_closed, watched
from escape.attempts import SINK
from escape.sink import Sink
from hypothesis import HealthCheck, settings
from lab.hosts import DB
from lab.kube import KubeLab, kube_lab
from lab.lab import Lab, lab
from lab.ssh import SshLab, ssh_lab
from lab.weir import Installed, weir

# How long an example takes is the machine's mood, not the code's.
settings.register_profile("weir", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("weir")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--results", type=Path, help="write a summary of this run there (Markdown)")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What test-all leaves under docs/results."""
    path = config.getoption("--results")
    if path is None:
        return
    stats = terminalreporter.stats
    folders: dict[str, list[int]] = {}
    for column, outcome in enumerate(("passed", "failed", "error", "skipped")):
        for report in stats.get(outcome, ()):
            parts = Path(report.nodeid.split("::")[0]).parts
            folders.setdefault("/".join(parts[:2]), [0, 0, 0, 0])[column] += 1
    rows = "\n".join(f"| {name} | {' | '.join(map(str, counts))} |" for name, counts in sorted(folders.items()))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"# Last results of `./bootstrap test-all`\n\n{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, Linux "
        f"{platform.release()}, Python {platform.python_version()}, {os.cpu_count()} cores; kills "
        f"{os.environ.get('WEIR_KILLS', '')}, "
        f"races {os.environ.get('WEIR_RACES', '')}.\n\n| folder | passed | failed | errors | skipped |\n"
        f"|---|---|---|---|---|\n{rows}\n")


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """What runs in this process must not leave its umask to the next test."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def pytest_collection_finish() -> None:
    """What all tests are is not looked through again after each of them: `_connections` has the rest collected."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _watched() -> Iterator[None]:
    with watched():
        yield


@pytest.fixture(autouse=True)
def _connections(_watched: None) -> Iterator[None]:
    before = Watched.made
    yield
    check_closed(before)


@pytest.fixture(autouse=True, scope="session")
def _signals() -> None:
    """A shell's background job ignores some: what tests start and signal must not inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture(scope="session")
def the_lab() -> Iterator[Lab]:
    """One set of hosts and servers for all lab tests."""
    with lab() as made:
        yield made


@pytest.fixture(scope="session")
def the_ssh(the_lab: Lab) -> Iterator[SshLab]:
    """Its SSH servers, for those who ask."""
    with ssh_lab(the_lab) as made:
        yield made


@pytest.fixture(scope="session")
def the_kube(the_lab: Lab) -> Iterator[KubeLab]:
    """Its cluster, for those who ask."""
    with kube_lab(the_lab) as made:
        yield made


@pytest.fixture(scope="module")
def sink(the_lab: Lab) -> Iterator[Sink]:
    """The server whose word is the verdict."""
    with DB.entered():
        opened = Sink(SINK)
    with opened:
        yield opened


@pytest.fixture(scope="module")
def shared_weir(the_lab: Lab) -> Iterator[Installed]:
    """Weir with labels, one for a module."""
    with weir(the_lab, labels=True) as installed:
        yield installed


@pytest.fixture
def installed(shared_weir: Installed) -> Iterator[Installed]:
    with shared_weir.overseen():
        yield shared_weir
