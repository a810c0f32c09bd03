"""What a service manager keeps and hands over: by its own protocol, between processes."""
from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from standin.manager import Manager

from agent.unit import stored
from agent.unit.units import tell_systemd

ROOT = Path(__file__).resolve().parents[3]
TAKE = """
import os, sys
from agent.unit.stored import take_stored
print([(name, fd, os.get_inheritable(fd)) for name, fd in take_stored()], take_stored(),
      sorted(one for one in os.environ if one.startswith("LISTEN")))
"""


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with Manager(tmp_path / "notify") as one:
        yield one


def take(manager: Manager, *before: str) -> str:
    done = subprocess.run([*manager.through(), *before, sys.executable, "-c", TAKE], pass_fds=manager.descriptors(),
                          env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True,
                          timeout=60, check=True)
    return done.stdout.strip()


def test_what_is_stored_is_handed_to_the_next(manager: Manager) -> None:
    assert take(manager) == "[] [] []"
    with socket.socket() as one, socket.socket() as other:
        stored.store("weir.1", [one.fileno(), other.fileno()])
        stored.store("weir.local.@reports", [one.fileno()])      # it has that one
        manager.heard()
        assert [name for name, _ in manager.kept] == ["weir.1", "weir.1"]
    assert take(manager) == "[('weir.1', 3, False), ('weir.1', 4, False)] [] []"
    stored.forget("weir.2")
    manager.heard()
    assert len(manager.kept) == 2
    stored.forget("weir.1")
    manager.until([])


def test_what_was_handed_to_another_process_is_left_alone(manager: Manager) -> None:
    manager.keep("weir.1", [os.open("/dev/null", os.O_RDONLY)])
    assert take(manager, "env", "LISTEN_PID=1") == "[] [] []"


@pytest.mark.parametrize(("number", "names", "found"), [
    ("2", "a", "[('unknown', 3, False)]"), ("1", "", "[('unknown', 3, False)]"), ("0", "", "[]"), ("-1", "a", "[]"),
    ("many", "a", "[]"), ("9" * 30, "a", "[]"), ("999999999", "a", "[('unknown', 3, False)]"),
    ("1", "x" * 4096, f"[({'x' * 4096!r}, 3, False)]"),
])
def test_words_that_are_not_what_they_should_be(manager: Manager, number: str, names: str, found: str) -> None:
    """One descriptor is there."""
    manager.keep("a", [os.open("/dev/null", os.O_RDONLY)])
    assert take(manager, "env", f"LISTEN_FDS={number}", f"LISTEN_FDNAMES={names}") == f"{found} [] []"


def test_without_a_manager_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    with socket.socket() as one:
        stored.store("weir.1", [one.fileno()])
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
        stored.store("weir.1", [one.fileno()])
    stored.forget("weir.1")


def test_what_is_said_without_descriptors_is_as_before(manager: Manager) -> None:
    tell_systemd("READY=1", "STATUS=enforcing")
    manager.heard()
    assert manager.told[0] == "READY=1\nSTATUS=enforcing"
