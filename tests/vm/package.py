"""Run inside the machine, as root: Weir's Debian package, from `apt install` to the first recorded session.

Not collected by an ordinary run, like checks.py.  In order: each check stands on those before it; what follows the next
boot is in package_after.py.
"""
from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from lab.hosts import wait_until

from vm.steps import PACKAGES

ETC, STATE, UNITS = Path("/etc/weir"), Path("/var/lib/weir"), Path("/etc/systemd/system")
REPOSITORY = Path(__file__).resolve().parents[2]
SLICE, PINS = Path("/sys/fs/cgroup/weir.slice"), Path("/run/weir/bpf")
DATABASE, SERVER = 5433, 7107
USER = "crew"
CONFIG = f"""
[[workload]]
name = "crew"
users = ["{USER}"]
directories = ["~"]
[[target]]
name = "shop"
protocol = "postgresql"
hosts = ["127.0.0.1"]
port = {DATABASE}
tls = "disable"
[[target.credential]]
user = "svc"
password_file = "/etc/weir/credentials/shop"
"""
AS_CREW = ("weir", "run", "--workload", "crew", "--user", USER, "--")


def run(*command: str, seconds: float = 1200) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd="/", env={
        **os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"})


def right(*command: str, seconds: float = 1200) -> str:
    done = run(*command, seconds=seconds)
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def packages() -> tuple[Path, Path]:
    """This version, and the same as the next."""
    first, second = sorted(Path(PACKAGES).glob("weir_*.deb"), key=lambda one: "+" in one.name)
    return first, second


def install(package: Path) -> subprocess.CompletedProcess[str]:
    return run("apt-get", "install", "-q", "-y", "--allow-downgrades", str(package), seconds=1800)


def state() -> str:
    try:
        return str(json.loads(run("weir", "status", "--json").stdout)["state"])
    except (ValueError, KeyError):
        return ""


def wait_enforcing() -> None:
    try:
        wait_until("enforcing", lambda: state() == "enforcing", 600)
    except Exception as reason:
        said = run("weir", "status").stdout + run("journalctl", "--no-pager", "-o", "cat", "-u", "weir-agent").stdout
        raise AssertionError(f"{reason}: {said[-4000:]}") from None


def active(unit: str) -> bool:
    return run("systemctl", "is-active", unit).stdout.strip() == "active"


def status() -> str:
    return run("dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", "weir").stdout


def ask_database() -> str:
    """As a crew, whose password is nobody's."""
    return run("env", "PGPASSWORD=x", *AS_CREW, "psql", "-XAtc", "select 6 * 7",
               f"host=127.0.0.1 port={DATABASE} dbname=postgres user=whoever sslmode=disable").stdout


def recorded() -> int:
    """Sessions of the crew's."""
    found = 0
    for file in (STATE / "recording").glob("*.sqlite"):
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as recording:
            found += recording.execute("SELECT count(*) FROM sessions WHERE workload = 'crew'").fetchone()[0]
    return found


@pytest.fixture(scope="module")
def database() -> Iterator[None]:
    data, bin_ = Path("/var/lib/postgresql/packaged"), next(Path("/usr/lib/postgresql").glob("*/bin"))
    as_postgres = ("runuser", "-u", "postgres", "--")
    if not data.exists():
        Path("/var/tmp/pw").write_text("real-password\n")
        os.chmod("/var/tmp/pw", 0o644)
        right(*as_postgres, str(bin_ / "initdb"), "-D", str(data), "-A", "scram-sha-256", "-U", "svc",
              "--pwfile=/var/tmp/pw")
    options = f"-p {DATABASE} -c listen_addresses=127.0.0.1 -c unix_socket_directories=/var/tmp"
    with subprocess.Popen([*as_postgres, str(bin_ / "pg_ctl"), "-D", str(data), "-w", "-l", "/var/tmp/pg.log", "-o",
                           options, "start"], stdout=subprocess.DEVNULL) as starting:
        assert starting.wait(180) == 0
    yield
    run(*as_postgres, str(bin_ / "pg_ctl"), "-D", str(data), "-m", "immediate", "stop")


def test_it_is_not_put_beside_what_bootstrap_installed() -> None:
    assert os.geteuid() == 0, "run it as root, inside the machine"
    assert (UNITS / "weir-agent.service").exists()
    done = install(packages()[0])
    assert done.returncode != 0
    assert "./bootstrap clean" in done.stdout + done.stderr
    run("weir", "release", "--kill")
    run("systemctl", "disable", "--now", "weir-agent", "weir-guard")
    run("dpkg", "--purge", "weir")
    for unit in ("weir-agent.service", "weir-guard.service", "weir.slice"):
        (UNITS / unit).unlink()
    for path in ("/usr/local/bin/weir", "/etc/sysusers.d/weir.conf", "/etc/tmpfiles.d/weir.conf"):
        Path(path).unlink(missing_ok=True)
    for name in ("weir", "weir-audit", "weir-identity", "weir-web", "weir-notify", "weir-vault"):
        run("userdel", name)
    for path in (ETC, STATE, Path("/run/weir")):
        shutil.rmtree(path, ignore_errors=True)
    right("systemctl", "daemon-reload")


def test_it_installs_and_contains_nobody() -> None:
    done = install(packages()[0])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing is contained yet" in done.stdout + done.stderr
    assert status() == "installed 0.1.0"
    assert not active("weir-agent")
    assert not PINS.exists()
    assert run("nft", "list", "table", "inet", "weir").returncode != 0
    assert right("readlink", "-f", shutil.which("weir") or "").strip() == "/usr/lib/weir/bin/weir"


def test_the_first_session_is_recorded(database: None) -> None:
    if run("getent", "passwd", USER).returncode:
        right("useradd", "-m", USER)
    (ETC / "credentials").mkdir(mode=0o700, exist_ok=True)
    (ETC / "credentials/shop").write_text("real-password")
    (ETC / "credentials/shop").chmod(0o600)
    (ETC / "weir.toml").write_text(CONFIG)
    (ETC / "policies/all.cedar").write_text('@id("all") permit(principal, action, resource);\n')
    right("weir", "check")
    right("systemctl", "start", "weir-agent")
    wait_enforcing()
    assert ask_database() == "42\n"
    wait_until("it is on record", lambda: recorded() > 0, 30)


def test_the_verifier_of_the_package_says_yes() -> None:
    done = run("weir-verify", str(STATE / "recording"))
    assert done.returncode in (0, 3), done.stdout + done.stderr


def test_doctor_finds_nothing_that_is_missing() -> None:
    found = json.loads(run("weir", "doctor", "--json").stdout)
    assert [one for one in found if one["state"] == "fail"] == []


def test_this_kernel_takes_every_program() -> None:
    """Those of BPF LSM too, which Debian's kernels have."""
    assert "BPF LSM    on: socket_create" in (said := right("weir", "status"))
    assert "refuses the program" not in said


def test_how_far_the_units_are_shut() -> None:
    for unit, most in (("weir-agent", 6.6), ("weir-guard", 6.0)):
        said = right("systemd-analyze", "security", "--no-pager", unit)
        level = re.search(r"Overall exposure level for .*: ([\d.]+)", said)
        assert level
        assert float(level[1]) <= most, said


def test_the_agents_processes_are_the_packages() -> None:
    for name, user in (("enforcer", "weir"), ("recorder", "weir-audit")):
        pids = Path(f"/sys/fs/cgroup/weir.weir/{name}/cgroup.procs").read_text().split()
        assert pids
        for pid in pids:
            assert Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"/usr/lib/weir/bin/python")
            assert run("ps", "-o", "user:20=", "-p", pid).stdout.strip() == user
