"""A small agent for the tests of launching: control socket, workloads, trust and a real launcher.  A process of its
own, so that it can be killed.

`python launchhost.py SETTINGS.json`; writes one JSON line a happening to stdout: {"ready": launcher's pid},
{"launched": ...}, {"ended": ...}.  Class `Host` is the test's end of it.
"""
from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from personsend import PersonsEnd
from sources import copy_sources, open_way

UID = 64201
CGROUPS = next((path for path in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
                if (path / "cgroup.procs").exists() and (path / "cgroup.controllers").exists()), Path("/nowhere"))


class Host:
    """Directories, user, slice and agent of one test; `close` leaves nothing."""

    def __init__(self, base: Path, name: str, **workload: Any) -> None:
        self.base, self.slice = base, CGROUPS / f"{name}.slice"
        self.home, self.control = base / "home", base / "run" / "control.sock"
        open_way(base)
        self.code = copy_sources(base / "code")
        for part in ("run", "state", "etc", "home"):
            (base / part).mkdir(mode=0o755)
        os.chown(self.home, UID, UID)
        (base / "etc" / "weir.toml").write_text("secret = true\n")
        self.slice.mkdir(exist_ok=True)
        settings = {"base": str(base), "slice": str(self.slice), "home": str(self.home), "users": ["tester"],
                    "directories": ["~"], "read_only": [str(self.code), sys.prefix], "targets": [],
                    "resolver": "10.77.0.53", **workload}
        (base / "settings.json").write_text(json.dumps(settings))
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(base / "settings.json")], stdout=subprocess.PIPE, text=True,
            env={"PYTHONPATH": str(self.code), "PATH": os.environ["PATH"]})
        self.happened: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.launcher: int = self.expect("ready")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.happened.put(json.loads(line))

    def expect(self, what: str) -> Any:
        """The next happening of this kind; others before it are dropped."""
        while True:
            event = self.happened.get(timeout=20)
            if what in event:
                return event[what]

    def ended(self, number: int) -> int:
        """The exit code that the agent was told of this command."""
        while (event := self.expect("ended"))[0] != number:
            pass
        code: int = event[1]
        return code

    def forget(self) -> None:
        with suppress(queue.Empty):
            while True:
                self.happened.get_nowait()

    def command(self, *argv: str, user: str = "", workload: str = "crew") -> list[str]:
        code = "import sys; from agent.commands.run import run; sys.exit(run(*sys.argv[1:4], sys.argv[4:]))"
        return [sys.executable, "-c", code, str(self.control), workload, user, *argv]

    def environment(self, **more: str) -> dict[str, str]:
        return {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(self.home), "LANG": "C.UTF-8",
                "PYTHONPATH": str(self.code), **more}

    def start(self, *argv: str, root: bool = False, user: str = "", workload: str = "crew", cwd: Path | None = None,
              env: dict[str, str] | None = None, **keywords: Any) -> subprocess.Popen[bytes]:
        """weir run, as the test's user or as root.  What earlier commands did is forgotten."""
        self.forget()
        ids = {} if root else {"user": UID, "group": UID, "extra_groups": [UID + 1]}
        keywords = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **keywords}
        return subprocess.Popen(self.command(*argv, user=user, workload=workload), cwd=cwd or self.home,
                                env=self.environment(**(env or {})), **ids, **keywords)  # type: ignore[call-overload]

    def run(self, *argv: str, input: bytes | None = None, **keywords: Any) -> tuple[int, bytes, bytes]:
        """Exit code, stdout, stderr."""
        if input is not None:
            keywords["stdin"] = subprocess.PIPE
        with self.start(*argv, **keywords) as process:
            out, err = process.communicate(input, timeout=60)
        return process.returncode, out, err

    def commands(self) -> list[Path]:
        """Cgroups of commands that are there."""
        return sorted(path for path in self.slice.iterdir() if path.is_dir())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        self._reader.join(20)
        if self.process.stdout is not None:
            self.process.stdout.close()
        for path in (*self.commands(), self.slice):
            remove_cgroup(path)
        shutil.rmtree(self.base, ignore_errors=True)


class Terminal(PersonsEnd):
    """weir run as the test's user on a pseudo terminal, seen from the person's side."""

    def __init__(self, host: Host, *argv: str, rows: int = 33, columns: int = 111, **keywords: Any) -> None:
        host.forget()
        self.master, slave = os.openpty()
        self.resize(rows, columns)
        os.fchown(slave, UID, -1)
        self.before = termios.tcgetattr(slave)
        with open(slave, closefd=False) as file:
            self.process = subprocess.Popen(
                ["setsid", "--ctty", *host.command(*argv)], env=host.environment(TERM="xterm"), cwd=host.home,
                **{"stdin": file, "stdout": file, "stderr": file, "user": UID, "group": UID, "extra_groups": [],
                   **keywords})
        self.slave, self.seen = slave, b""


def remove_cgroup(path: Path) -> None:
    """Whatever is in it is killed first; cgroup.events says when it has gone."""
    if not path.exists():
        return
    (path / "cgroup.kill").write_text("1")
    with (path / "cgroup.events").open("rb", buffering=0) as events:
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        while b"populated 0" not in os.pread(events.fileno(), 4096, 0):
            poll.poll(5000)
    path.rmdir()


# the process itself


def _say(**happening: object) -> None:
    print(json.dumps(happening), flush=True)


async def _serve(settings: dict[str, Any]) -> None:
    from agent.contract import control
    from agent.credential import trust as trusts
    from agent.frames import Frames, send
    from agent.network.networks import own_descriptor
    from agent.ssh.host_keys import prepare_hosts
    from agent.workload.launch import Ended, Launched
    from agent.workload.launching import LauncherDoor
    from agent.workload.workloads import Account, Refusal, Surroundings, resolve_run

    base = Path(settings["base"])
    targets = [trusts.TrustTarget(t["name"], tuple(t["hosts"]), tuple(t.get("addresses", ())),
                                  tuple(t.get("files", ())), t.get("cluster", 0))
               for t in settings["targets"]]
    hosts = prepare_hosts([(trusts.TrustTarget(t["name"], tuple(t["hosts"])), t["port"]) for t in
                           settings.get("ssh", ())], base / "state", base / "run")
    trust = trusts.prepare_trust(targets, base / "state", base / "run", hosts=hosts)
    for name, leaf in trust.leafs.items():
        (base / f"{name}.pem").write_text(leaf.certificate)
        (base / f"{name}.key").write_text(leaf.key)
    trusts.write_public(base / "run" / "resolv.conf", trusts.resolv_conf(settings["resolver"]).encode())
    workload = SimpleNamespace(name="crew", users=tuple(settings["users"]), directories=tuple(settings["directories"]),
                               read_only=tuple(settings["read_only"]), root=settings.get("root", False),
                               network="host")
    accounts = {"tester": Account("tester", UID, UID, (UID + 1,), settings["home"]),
                "root": Account("root", 0, 0, (0,), "/root")}
    door = LauncherDoor(lambda ended: _say(ended=[ended.number, ended.code, ended.text]), lambda: _say(lost=True))
    await door.start(settings.get("owners", ""))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(base / "run" / "control.sock"))
    os.chmod(base / "run" / "control.sock", 0o666)
    listener.listen()
    listener.setblocking(False)
    numbers = iter(range(1, 1 << 30))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    _say(ready=door.pid)

    async def answer(connection: socket.socket) -> None:
        with connection:
            _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            frames = Frames(connection, control.LIMIT)
            body = await loop.run_in_executor(None, frames.next)
            if body is None:
                return
            request = control.parse_run(body)
            fds = frames.take_descriptors(3)
            number = next(numbers)
            around = Surroundings(number=number, owner=settings.get("owner", 0),
                                  cgroup=f"{settings['slice']}/crew-{number}",
                                  hidden=(str(base / "run"), str(base / "state"), str(base / "etc")),
                                  withheld=frozenset(), trust=trust, resolv=str(base / "run" / "resolv.conf"))
            caller = next(account for account in accounts.values() if account.uid == uid)
            launch = resolve_run(request, workload if request.workload == "crew" else None, caller,
                                 accounts.get(request.user), around)
            if isinstance(launch, Refusal):
                send(connection, control.render_frame(control.Failed(launch.code, launch.text)))
                frames.close_descriptors()
            else:
                network = own_descriptor()
                got: Launched | Ended = await door.launch(launch, connection.fileno(), fds, network)
                os.close(network)
                _say(launched=[number, got.pid if isinstance(got, Launched) else 0])
            for fd in fds:
                os.close(fd)

    async def accept() -> None:
        tasks: set[asyncio.Task[None]] = set()
        while True:
            connection, _ = await loop.sock_accept(listener)
            connection.setblocking(True)
            task = asyncio.create_task(answer(connection))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    accepting = asyncio.create_task(accept())
    await stop.wait()
    accepting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await accepting
    door.close()
    listener.close()


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(Path(sys.argv[1]).read_text())))
