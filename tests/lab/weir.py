"""Weir on the crew's host, as an operator would install it: configuration files, the agent, its commands."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import psutil

from lab import hosts, oracle
from lab.hosts import CREW, DNS, MODEL, RUNTIME, USER, wait_until
from lab.lab import MODEL_PORT, Lab
from lab.postgresql import NAME
from lab.servers import server, start, stop

APPROVER = "labdba"                   # member of weir-approvers and, by groups.toml, of `dba`
AUDITOR = "labaudit"                  # member of weir-audit
WORKLOAD = "crew"
UNIT = "labcrew.service"              # a workload of systemd's, which does not run here: a test makes its cgroup
UNIT_USER = "nobody"                  # not the crew's: who is two workloads is said at each start
PORT = 15432
STARTED = 300.0                       # seconds: the loader compiles, on an emulated processor too

UNIT_ROW = f"""
[[workload]]
name = "unit"
users = ["{UNIT_USER}"]
unit = "{UNIT}"
egress = "enforce"
"""
CONFIG = """
[runtime]
name = "{runtime}"

[enforcer]
port = {port}
{enforcer}
[dns]
resolver = "{dns}"

[recording]
checkpoint = "2s"
reserve = "16MiB"
{recording}
[[egress]]
name = "model"
addresses = ["model.lab.example"]
ports = [{model_port}]

[[workload]]
name = "crew"
users = ["{user}"]
directories = ["~"]
read_only = [{read_only}]

{unit}
[[target]]
name = "shop"
protocol = "postgresql"
hosts = ["{db}"]
port = 5432
tls = "verify-full"
tls_ca = "{tls_ca}"
trust = ["~/db-ca.pem"]
payload = "{payload}"
{target}
[[target.credential]]
role = "*"
user = "crew_svc"
password_file = "{etc}/credentials/shop"
{labels}"""

LABELS = """
[[target.label]]
label = "pii.email"
column = "public.customers.email"
mask = "partial"

[[target.label]]
label = "pii.email"
column = "public.bulk.email"
mask = "partial"

[[target.label]]
label = "secret"
column = "public.customers.api_key"
mask = "redact"
"""

GROUPS = f"""
[groups]
data = ["user:{USER}", "user:{UNIT_USER}"]
dba = ["user:{APPROVER}"]
"""

ROOTED = "rooted"                     # a workload whose user is uid 0 inside
AS_ROOT = f"""
[[workload]]
name = "{ROOTED}"
users = ["{USER}"]
directories = ["~"]
root = true
"""

POLICY = """
@id("shop-connect")
permit (principal in Group::"data", action == Action::"connect", resource in Target::"shop");
@id("shop-readers")
permit (principal in Group::"data", action in Action::"sql:read", resource in Target::"shop");
@id("shop-writers")
permit (principal in Group::"data", action in Action::"sql:write", resource in Target::"shop");
@id("shop-deletes-need-a-dba") @hold("approvers=dba, within=15m")
forbid (principal, action == Action::"sql:delete", resource == Table::"shop/shop/public/orders")
unless { context.approved };
@id("no-ddl-by-crews")
forbid (principal, action in Action::"sql:ddl", resource in Target::"shop");
"""


RUNNER = """
import json, subprocess, sys
for line in sys.stdin:
    try:
        done = subprocess.run(json.loads(line), capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
        said = [done.returncode, done.stdout, done.stderr]
    except (OSError, subprocess.TimeoutExpired) as error:
        said = [-1, "", str(error)]
    print(json.dumps(said), flush=True)
"""


@dataclass(frozen=True)
class Inside:
    process: subprocess.Popen[str]

    def run_inside(self, command: Sequence[str]) -> tuple[int, str, str]:
        """(exit code, stdout, stderr) of a command that a living crew process starts."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(list(command)) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the crew's process ended")
        code, out, err = json.loads(line)
        return code, out, err


@dataclass(frozen=True)
class Installed:
    """A running Weir."""

    lab: Lab
    config: Path
    prefix: Path
    log: Path
    process: subprocess.Popen[bytes]
    since: int = 0                    # statements in the server's log before this Weir
    others: list[subprocess.Popen[bytes]] = field(default_factory=list)    # agents that came after a killed one

    @property
    def recording(self) -> Path:
        return Path("/var/lib") / RUNTIME / "recording"

    @property
    def forwarded_key(self) -> bytes:
        return (Path("/var/lib") / RUNTIME / "forwarded.key").read_bytes()

    def argv(self, *arguments: str) -> list[str]:
        return [str(self.prefix / "bin" / "weir"), "--config", str(self.config), *arguments]

    def weir(self, *arguments: str, user: str = "", timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """A command of the operator's (or of `user`), on the crew's host."""
        as_user = ["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--"] if user else []
        return subprocess.run(
            CREW.argv([*as_user, *self.argv(*arguments)]), capture_output=True, text=True, stdin=subprocess.DEVNULL,
            timeout=timeout, env=self.lab.client_environment({"COLUMNS": "200"}), cwd="/",
        )

    def crew_argv(self, *command: str, workload: str = WORKLOAD, network: str = "") -> list[str]:
        """`network`: "private" or "host"; the workload's, private, where it is not said."""
        chosen = ["--network", network] if network else []
        return CREW.argv(self.argv("run", "--workload", workload, "--user", USER, *chosen, "--", *command))

    def crew(
        self, *command: str, environment: Mapping[str, str] | None = None, timeout: float = 120,
        input: str | None = None, workload: str = WORKLOAD, network: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """A command in the crews' slice, as the crew's user."""
        how: dict[str, object] = {"input": input} if input is not None else {"stdin": subprocess.DEVNULL}
        return subprocess.run(  # type: ignore[call-overload,no-any-return]
            self.crew_argv(*command, workload=workload, network=network), capture_output=True, text=True,
            timeout=timeout, cwd=self.lab.home, env=self.lab.client_environment(environment), **how,
        )

    def status(self) -> dict[str, object]:
        done = self.weir("status", "--json")
        try:
            return {"state": ""} | dict(json.loads(done.stdout))
        except ValueError:
            return {"state": "", "text": done.stdout + done.stderr}

    def wait(self, state: str = "enforcing", seconds: float = STARTED) -> None:
        def ready() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"the agent ended with {self.process.returncode}:\n{self.tail()}")
            status = self.status()
            return status["state"] == state and status.get("pid") == self.process.pid

        try:
            wait_until(f"weir {state}", ready, seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; {self.status()}\n{self.tail()}") from None

    def pids(self) -> dict[str, int]:
        """Weir's own processes: agent, enforcer, recorder; waits for one that is just being started again."""
        wait_until("enforcer and recorder", lambda: len(self._pids()) == 3, 30)
        return self._pids()

    def _pids(self) -> dict[str, int]:
        found = {"agent": self.process.pid}
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                line = " ".join(child.cmdline())
            except psutil.Error:
                continue
            for name, module in (("enforcer", "enforcer.app"), ("recorder", "enforcer.recording.recorder")):
                if module in line:
                    found[name] = child.pid
        return found

    def kill(self, victim: str) -> None:
        """SIGKILL for one of Weir's processes, or "all" of them; waits until they are gone."""
        pids = self.pids()
        hosts.end([pids[name] for name in (pids if victim == "all" else [victim])])
        if victim in ("agent", "all"):
            self.process.wait(10)

    def again(self) -> Installed:
        """Another agent after a killed one."""
        process = start(CREW, self.argv("agent"), self.log)
        self.others.append(process)
        return replace(self, process=process)

    @contextmanager
    def inside(self, network: str = "") -> Iterator[Inside]:
        """A crew process that runs commands as long as the block does."""
        process = subprocess.Popen(
            self.crew_argv("/usr/bin/python3", "-c", RUNNER, network=network), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, cwd=self.lab.home, env=self.lab.client_environment(),
        )
        made = Inside(process)
        try:
            made.run_inside(["true"])
            yield made
        finally:
            process.kill()
            process.communicate()

    def settle(self, over: bool = True) -> None:
        """Wait until the recorder has taken the whole journal; `over`: and no session is open."""
        journal = self.recording.parent / "journal"

        def taken() -> bool:
            done = msgspec.msgpack.decode((journal / "taken").read_bytes(), type=dict[str, int])
            sizes = {path.name: path.stat().st_size for path in journal.glob("enforcer*.journal")}
            sessions = json.loads(self.weir("status", "--json", "--sessions").stdout).get("sessions")
            return not (over and sessions) and all(done.get(name, 0) >= size for name, size in sizes.items())

        wait_until("the recorder", taken, 30)

    @contextmanager
    def overseen(self, *through: str) -> Iterator[None]:
        """The completeness oracle looks at everything that the block did, also where it failed."""
        yield
        self.check(*through)

    def check(self, *through: str) -> None:
        """AssertionError where the recording and the server's log disagree on anything since this Weir's start.
        `through`: addresses that tunnels come from."""
        self.settle()
        executed = oracle.executed_by_weir(self.lab.database, self.since, through)
        wrong = oracle.complaints(oracle.read_events(self.recording), executed, self.forwarded_key)
        if wrong:
            raise AssertionError("the recording and the server disagree:\n" + "\n".join(wrong[:20]))

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-6000:]


def prefix() -> Path:
    """Where Weir is installed: bootstrap's environment, or the one that runs the tests."""
    chosen = Path(os.environ.get("WEIR_PREFIX", "/opt/weir")) / "venv"
    return chosen if (chosen / "bin" / "weir").exists() else Path(sys.prefix)


def configure(lab: Lab, *, labels: bool = False, unit: bool = True, payload: str = "none", enforcer: str = "",
              recording: str = "", target: str = "", policy: str = POLICY, more: str = "") -> Path:
    """Write a configuration directory; the path of its weir.toml."""
    lab.number += 1
    etc = lab.scratch / f"etc{lab.number}"
    for directory, mode in ((etc, 0o755), (etc / "policies", 0o755), (etc / "credentials", 0o700)):
        directory.mkdir(mode=mode)
        directory.chmod(mode)
    secret = etc / "credentials" / "shop"
    secret.write_text(lab.database.passwords["crew_svc"])
    secret.chmod(0o600)
    base = prefix().parent
    programs = (base / "crew", base / "clients", base / "kube", Path("/usr/local/go"))
    read_only = ", ".join(f'"{path}"' for path in programs if path.exists())
    (etc / "weir.toml").write_text(CONFIG.format(
        runtime=RUNTIME, port=PORT, dns=DNS.ipv4, model_port=MODEL_PORT, user=USER, db=NAME, tls_ca=lab.database.ca,
        payload=payload, etc=etc, labels=LABELS if labels else "", enforcer=enforcer, recording=recording,
        read_only=read_only, target=target, unit=UNIT_ROW if unit else "",
    ) + more)
    (etc / "groups.toml").write_text(GROUPS)
    (etc / "policies" / "shop.cedar").write_text(policy)
    return etc / "weir.toml"


def make_people() -> None:
    for name, group in ((APPROVER, "weir-approvers"), (AUDITOR, "weir-audit")):
        if subprocess.run(["getent", "passwd", name], capture_output=True).returncode != 0:
            subprocess.run(["useradd", "--no-create-home", "--shell", "/bin/bash", name], check=True)
        subprocess.run(["usermod", "-a", "-G", group, name], check=True)


@contextmanager
def weir(lab: Lab, config: Path | None = None, wait: str = "enforcing", **options: object) -> Iterator[Installed]:
    """Weir runs while the block does; what it leaves is removed whatever happens."""
    make_people()
    file = config or configure(lab, **options)  # type: ignore[arg-type]
    log, since = lab.scratch / f"weir{lab.number}.log", len(lab.database.statements())
    try:
        with server(CREW, [str(prefix() / "bin" / "weir"), "--config", str(file), "agent"], log) as process:
            made = Installed(lab, file, prefix(), log, process, since)
            try:
                if wait:
                    made.wait(wait)
                yield made
            finally:
                made.weir("release", "--kill")
                for other in made.others:
                    stop(other)
    finally:                          # where a test failed too, or the next Weir would read its recording
        hosts.remove_runtime()        # what is left of Weir when its agent could not release


__all__ = ["APPROVER", "AUDITOR", "MODEL", "POLICY", "WORKLOAD", "Installed", "configure", "weir"]
