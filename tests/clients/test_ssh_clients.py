"""Unmodified SSH clients, by the host's own name and port: they print through Weir what they print without it.

Each script of ssh/ checks what it does by itself, and prints what it saw; the control is the same user and script on a
host without Weir, with a key and a password that count only there.
"""
from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from clients.test_clients import PYTHON
from lab.ssh import SshLab, ssh_weir
from lab.weir import Installed

pytestmark = pytest.mark.lab

HERE = Path(__file__).resolve().parent
SLOW = ("using_ansible",)               # half a minute
SCRIPTS = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in sorted(
    path.stem for path in (HERE / "ssh").glob("[!c]*.py"))]
SIZE = int(os.environ.get("WEIR_SSH_BYTES", "16000000"))           # each way; 1000000000 in test-all
LIMIT = 90 + SIZE // 500_000             # seconds a script
SMALLER = {"openssh_files": 4, "rsync_git": 4, "using_paramiko": 4, "using_asyncssh": 4} if SIZE < 10**9 else {
    "using_paramiko": 4, "using_asyncssh": 4}      # several transfers in one script, and Python's ciphers
SYSTEM = "/usr/bin/python3"


def command(script: str, lab: SshLab) -> list[str]:
    folder = lab.lab.give(HERE / "ssh", "ssh-clients")
    return [PYTHON if script.startswith("using") else SYSTEM, str(folder / f"{script}.py")]


def environment(script: str, lab: SshLab) -> dict[str, str]:
    lab.ssh.fresh(script)
    lab.bastion.fresh(script)
    return lab.environment(script, SIZE // SMALLER.get(script, 1), LIMIT=str(LIMIT))


@cache
def control(script: str, lab: SshLab) -> list[object]:
    done = lab.control(*command(script, lab), environment=environment(script, lab), timeout=LIMIT + 5)
    return said(done)


def said(done: subprocess.CompletedProcess[str]) -> list[object]:
    assert done.returncode == 0, done.stderr[-4000:]
    return list(json.loads(done.stdout))


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_without_weir(the_ssh: SshLab, script: str) -> None:
    assert control(script, the_ssh)


@pytest.fixture(scope="module")
def open_weir(the_ssh: SshLab) -> Iterator[Installed]:
    with ssh_weir(the_ssh) as installed:
        yield installed


@pytest.mark.parametrize("script", SCRIPTS)
def test_through_weir(open_weir: Installed, the_ssh: SshLab, script: str) -> None:
    expected = control(script, the_ssh)
    argv, chosen = command(script, the_ssh), environment(script, the_ssh)
    assert said(open_weir.crew(*argv, environment=chosen, timeout=LIMIT + 30)) == expected
