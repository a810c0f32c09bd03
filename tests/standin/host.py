"""A host of its own, with configuration, `weir agent` and command line; kernel side, enforcer and recorder are the
small ones of this directory.  It leaves nothing."""
from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sources import copy_sources
from standin.manager import Manager

CGROUPS = next(path for path in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"), Path("/"))
               if (path / "cgroup.controllers").exists() or path == Path("/"))
PORT = 15999

CONFIG = """
[runtime]
name = "{name}"
state = "{base}/state"
run = "{base}/run"
[enforcer]
port = {port}
[dns]
resolver = "127.0.0.1:5333"
[recording]
reserve = "1MiB"
[[egress]]
name = "model"
addresses = ["192.0.2.3"]
ports = [443]
[[workload]]
name = "crew"
users = ["games"]
network = "host"
[[target]]
name = "orders"
protocol = "postgresql"
hosts = ["192.0.2.4"]
port = 5432
[[target.credential]]
user = "svc"
password_file = "{base}/etc/secret"
"""


class Host:
    def __init__(self, name: str) -> None:
        self.name = name
        self.base = Path(tempfile.mkdtemp(prefix=f"{name}-", dir="/var/tmp"))
        self.base.chmod(0o755)
        copy_sources(self.base / "code")
        for name, place in (("containment", "agent/block/containment.py"), ("enforcer", "enforcer/app.py"),
                            ("recorder", "enforcer/recording/recorder.py")):
            shutil.copyfile(Path(__file__).with_name(f"{name}.py"), self.base / "code" / place)
        layout = self.base / "code" / "agent" / "layout.py"      # the machine's lock is for who takes the machine
        text = layout.read_text()
        assert text.count('"/run/weir.lock"') == 1
        layout.write_text(text.replace('"/run/weir.lock"', f'"{self.base}/lock"'))
        (self.base / "etc" / "policies").mkdir(parents=True)
        (self.base / "etc" / "policies" / "a.cedar").write_text('@id("all") permit (principal, action, resource);\n')
        (self.base / "etc" / "groups.toml").write_text('[groups]\ndata = ["workload:crew"]\ndba = ["user:root"]\n')
        secret = self.base / "etc" / "secret"
        secret.touch(0o600)
        secret.write_text("hunter2\n")
        self.file = self.base / "etc" / "weir.toml"
        self.write(CONFIG)
        self.holder = subprocess.Popen(["unshare", "--net", "--mount", "--propagation", "slave", "sh", "-c",
                                        "echo here; exec sleep infinity"], stdout=subprocess.PIPE)
        assert self.holder.stdout is not None
        self.holder.stdout.readline()
        self.agent: subprocess.Popen[bytes] | None = None
        self.log = open(self.base / "log", "ab")

    def write(self, text: str, port: int = PORT) -> None:
        self.file.write_text(text.format(name=self.name, base=self.base, port=port))

    @property
    def slice(self) -> Path:
        return CGROUPS / f"{self.name}.slice"

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(self.base / "code"), "LANG": "C.UTF-8",
                "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/root"}

    @property
    def python(self) -> str:
        return sys.executable

    def inside(self, *command: str) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", f"--mount=/proc/{self.holder.pid}/ns/mnt", "--",
                *command]

    def start(
        self, wait: str = "enforcing", through: Sequence[str] = (), manager: Manager | None = None,
    ) -> None:
        """`through`: a command that starts the agent; `manager`: who does, with what it has kept."""
        named = {"NOTIFY_SOCKET": str(manager.path)} if manager else {}
        before, kept = (manager.through(), manager.descriptors()) if manager else ([], ())
        self.agent = subprocess.Popen(
            self.inside(*through, *before, sys.executable, "-m", "agent.cli", "--config", str(self.file), "agent"),
            env=self.environment | named, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL, cwd="/",
            pass_fds=kept)
        if wait:
            self.until(lambda: self.status().get("state") == wait, wait)

    def weir(self, *arguments: str, user: int = 0, inside: bool = False, **keywords: Any
             ) -> subprocess.CompletedProcess[str]:
        """A command of the command line; `inside`: in the host's namespaces."""
        ids = {"user": user, "group": user, "extra_groups": []} if user else {}
        command = [sys.executable, "-m", "agent.cli", "--config", str(self.file), *arguments]
        return subprocess.run(
            self.inside(*command) if inside else command, env=self.environment, capture_output=True, text=True,
            timeout=60, cwd="/", stdin=subprocess.DEVNULL, **ids, **keywords)

    def json(self, *arguments: str, **keywords: Any) -> Any:
        done = self.weir(*arguments, "--json", **keywords)
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.json("status")
        return found

    def until(self, ready: Callable[[], Any], what: str, seconds: float = 30) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := ready()):
            assert self.agent is None or self.agent.poll() is None, f"the agent ended\n{self.said()}"
            assert time.monotonic() < deadline, f"no {what}\n{self.said()}"
            time.sleep(0.02)
        return found

    def said(self) -> str:
        return (self.base / "log").read_text(errors="replace")[-6000:]

    def events(self, name: str = "") -> list[dict[str, str]]:
        """Host events that the recorder has taken."""
        try:
            lines = (self.base / "state" / "recording" / "events").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [one for one in map(json.loads, lines) if name in ("", one["name"])]

    def event(self, name: str) -> dict[str, str]:
        """The first of this name, as soon as it is there."""
        found: dict[str, str] = self.until(lambda: self.events(name), f"event {name}")[0]
        return found

    def crew(self, *command: str, **keywords: Any) -> subprocess.Popen[str]:
        """weir run as root for user games."""
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | keywords
        return subprocess.Popen(
            [sys.executable, "-m", "agent.cli", "--config", str(self.file), "run", "--workload", "crew", "--user",
             "games", "--", *command], env=self.environment, text=True, cwd="/", **options)

    def run(self, *command: str) -> tuple[int, str, str]:
        with self.crew(*command) as process:
            out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    def wait(self) -> int:
        assert self.agent is not None
        return self.agent.wait(40)

    def close(self) -> None:
        if self.agent is not None and self.agent.poll() is None:
            self.agent.kill()
            self.agent.wait()
        for top in (self.slice, CGROUPS / f"{self.name}.weir"):
            remove(top)
        self.holder.kill()
        self.holder.wait()
        if self.holder.stdout is not None:
            self.holder.stdout.close()
        self.log.close()
        shutil.rmtree(self.base, ignore_errors=True)


def remove(top: Path) -> None:
    """A cgroup, with all that is in it."""
    if not top.exists():
        return
    (top / "cgroup.kill").write_text("1")
    for _ in range(500):
        if "populated 0" in (top / "cgroup.events").read_text():
            break
        time.sleep(0.01)
    for path, _, _ in os.walk(top, topdown=False):
        Path(path).rmdir()
