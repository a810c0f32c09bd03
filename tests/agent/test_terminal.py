"""Processes of Weir's users have no way to the terminal at which root started what started them: whoever takes one over
would type there (TIOCSTI, ioctl_tty(2))."""
from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.layout import cgroup_root
from agent.services import Service
from agent.settings import check

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts processes of other users")


def test_a_service_is_a_session_of_its_own() -> None:
    cgroup = cgroup_root() / f"weir-test-{os.getpid()}"

    async def session() -> tuple[int, int]:
        service = Service("nobody", cgroup, lambda *_: None, lambda: None)
        service.name = "web"          # a role: nothing but Python could be executed
        await service._spawn([sys.executable, "-I", "-c", "import time; time.sleep(60)"])
        assert service._process is not None
        try:
            return service._process.pid, os.getsid(service._process.pid)
        finally:
            await service._kill()

    try:
        pid, found = asyncio.run(session())
    finally:
        cgroup.rmdir()
    assert found == pid


def test_so_is_what_checks_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    run, sessions = subprocess.run, []

    def looked(command: list[str], **how: Any) -> subprocess.CompletedProcess[bytes]:
        done = run(["/bin/sh", "-c", "ps -o pid=,sid= -p $$"], **how)
        sessions.append(done.stdout.split())
        return done

    monkeypatch.setattr(subprocess, "run", looked)
    assert check._run_check("enforcer.policy.check", [], "nobody", {}, str(Path("/x"))) == ()
    [(pid, found)] = sessions
    assert found == pid
