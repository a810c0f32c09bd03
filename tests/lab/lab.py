"""All hosts with all servers, as one context."""
from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lab import hosts
from lab.hosts import CREW, DB, DNS, MODEL, OTHER, USER
from lab.postgresql import Database, postgresql
from lab.servers import listening, python, python_environment, server

HERE = Path(__file__).resolve().parent
MODEL_PORT = 8080
PLAIN_PATH = "/usr/local/go/bin:/usr/local/bin:/usr/bin:/bin:/usr/lib/postgresql/15/bin"


@dataclass
class Lab:
    scratch: Path
    database: Database
    home: Path                        # of the crew's user
    model_log: Path
    script: Path
    number: int = field(default=0)    # of the Weir that was started last

    def client_environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """What a login of the crew's user would have, no more."""
        base = {"HOME": str(self.home), "USER": USER, "LOGNAME": USER, "PATH": PLAIN_PATH, "LANG": "C.UTF-8",
                "TERM": "dumb"}
        return base | dict(more or {})

    def give(self, source: Path, name: str = "") -> Path:
        """Copy a file or folder into the crew's home, owned by its user."""
        to = self.home / (name or source.name)
        if source.is_dir():
            shutil.copytree(source, to, dirs_exist_ok=True)
        else:
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, to)
        subprocess.run(["chown", "-R", f"{USER}:{USER}", str(to)], check=True)
        return to

    def control(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """The same user and command on a host without Weir, by the same names."""
        argv = OTHER.argv([
            "setpriv", "--reuid", USER, "--regid", USER, "--init-groups", "--pdeathsig", "KILL", "--",
            "bwrap", "--dev-bind", "/", "/", "--ro-bind", str(self.scratch / "resolv.conf"), _resolv_conf(),
            "--die-with-parent", "--", *command,
        ])
        return subprocess.run(
            argv, env=self.client_environment(environment), cwd=self.home, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, timeout=timeout,
        )


def _resolv_conf() -> str:
    return os.path.realpath("/etc/resolv.conf")


def _fresh_home() -> Path:
    """The crew's home, emptied of what an earlier lab put there."""
    home = Path(pwd.getpwnam(USER).pw_dir)
    for entry in home.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    return home


@contextmanager
def lab() -> Iterator[Lab]:
    with ExitStack() as stack:
        scratch = stack.enter_context(hosts.hosts())
        database = stack.enter_context(postgresql(scratch))
        _dns(stack, scratch)
        script = scratch / "script.json"
        shutil.copyfile(HERE / "crew" / "script.json", script)
        made = Lab(scratch, database, _fresh_home(), scratch / "model-requests.ndjson", script)
        _model(stack, made)
        (scratch / "resolv.conf").write_text(f"nameserver {DNS.ipv4}\noptions timeout:2 attempts:2\n")
        made.give(database.ca, "db-ca.pem")
        yield made


def _dns(stack: ExitStack, scratch: Path) -> None:
    log = scratch / "dns.log"
    process = stack.enter_context(
        server(DNS, python("lab.dns", DNS.ipv4, DNS.ipv6), log, environment=python_environment())
    )
    listening(DNS, DNS.ipv4, 53, process, log)


def _model(stack: ExitStack, made: Lab) -> None:
    log = made.scratch / "model.log"
    command = python("lab.model", MODEL.ipv4, str(MODEL_PORT), str(made.script), str(made.model_log))
    process = stack.enter_context(server(MODEL, command, log, environment=python_environment()))
    listening(MODEL, MODEL.ipv4, MODEL_PORT, process, log)


__all__ = ["CREW", "DB", "DNS", "MODEL", "OTHER", "USER", "Lab", "lab"]
