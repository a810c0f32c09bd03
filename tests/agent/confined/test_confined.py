"""A real process of each role, started as the agent starts it: whatever a row of the table takes is tried and refused,
and what such a process needs works."""
from __future__ import annotations

import functools
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.confined.measures import CALLS, MEASURES, USER
from agent.confined.roles import ROLES, UMASK
from agent.confined.view import without
from agent.processes import ENVIRONMENT, ROOT, unprivileged
from agent.workload import landlock
from enforcer import protocols

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts processes of other users"),
    pytest.mark.skipif(landlock.version() < landlock.SCOPES, reason="needs Linux 6.12 with Landlock"),
]

ATTEMPTS = (Path(__file__).parent / "attempts.py").read_text()
NOBODY = pwd.getpwnam("nobody")
MODULES = {
    "enforcer": ("enforcer.app", "enforcer.policy.cedar", "enforcer.policy.detectors",
                 *(f"enforcer.protocols.{name}" for name in protocols.names())),
    "recorder": ("enforcer.recording.recorder",), "web": ("enforcer.web.app",), "metrics": ("enforcer.metrics.app",),
    "identities": ("enforcer.identity.app", "enforcer.identity.saml.assertion", "enforcer.identity.saml.logout",
                   "enforcer.identity.saml.metadata", "enforcer.identity.saml.signatures"),
    "vaults": ("enforcer.credentials.app",), "notify": ("enforcer.notify.app",),
    "refresh": ("enforcer.credentials.refresh",), "check": ("enforcer.policy.check", "enforcer.identity.saml.check"),
    "look": ("agent.cli", "agent.init.home", "enforcer.recording.cli"),
}
REFUSED = {"EPERM", "EACCES", "ENOSYS", "EAFNOSUPPORT"}
EVERY = pytest.mark.parametrize("role", sorted(ROLES))
# What the table gives to a role, and why is said there.
FILTERED = {one.directive for one in MEASURES if one.by == CALLS}      # what needs no view of the files
GIVEN = {*((role, "RestrictSUIDSGID", "chmod g+s") for role in ("recorder", "look")),
         *((role, "ProtectProc", what) for role in ("recorder", "enforcer")
           for what in ("its parent", "all processes"))}


def paths() -> str:
    found: dict[str, dict[str, list[str]]] = {}
    for measure in MEASURES:
        kinds = found.setdefault(measure.directive, {"unread": [], "unwritten": []})
        kinds["unread"] += measure.unread
        kinds["unwritten"] += measure.unwritten
    return json.dumps(found)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory that everybody reaches by its name, of nobody's."""
    path = Path("/var/tmp", f"weir-confined-{os.getpid()}")
    path.mkdir(mode=0o700)
    (path / "file").touch()
    (path / "file").chmod(0o600)
    for one in (path, path / "file"):
        os.chown(one, NOBODY.pw_uid, NOBODY.pw_gid)
    yield path
    for left in sorted(path.rglob("*"), reverse=True):
        left.unlink()
    path.rmdir()


def run(role: str, own: Path, code: str, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    confined = {"role": role, "writes": [str(own)]} if role else {}
    command = unprivileged([sys.executable, "-I", "-c", code, *arguments], "nobody",
                           variables={"SQLITE_TMPDIR": str(own)}, **confined, **more)
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, cwd="/", stdin=subprocess.DEVNULL,
                          timeout=60)


@functools.cache
def tried(role: str, own: Path) -> dict[str, Any]:
    families = " ".join(ROLES[role].families) if role and ROLES[role].files else ""     # else it would become /bin/true
    done = run(role, own, ATTEMPTS, paths(), f"{own}/file", str(own), families, str(ROOT), *MODULES.get(role, ()))
    for name in ("base.sqlite", "base.sqlite-wal", "base.sqlite-shm"):
        (own / name).unlink(missing_ok=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_role_has_its_modules() -> None:
    assert set(MODULES) == set(ROLES)


def test_every_row_is_tried(own: Path) -> None:
    said = tried("enforcer", own)["tried"]
    assert [one.directive for one in MEASURES if one.by != USER and not said.get(one.directive)] == [
        "SystemCallArchitectures", "DevicePolicy"]     # test_measures; PrivateDevices is the same paths


@EVERY
def test_what_a_row_takes_is_refused(role: str, own: Path) -> None:
    through = {(role, directive, what) for directive, some in tried(role, own)["tried"].items()
               for what, said in some.items() if said not in REFUSED and (ROLES[role].files or directive in FILTERED)}
    assert through == {one for one in GIVEN if one[0] == role}


@EVERY
def test_what_it_needs_works(role: str, own: Path) -> None:
    assert {name: said for name, said in tried(role, own)["works"].items() if said is not True} == {}


@EVERY
def test_what_the_kernel_says_of_it(role: str, own: Path) -> None:
    said = tried(role, own)
    assert said["facts"]["Seccomp"] == "2"
    assert said["facts"]["NoNewPrivs"] == "1"
    assert said["facts"]["Groups"] == ""
    assert {said["facts"][name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert said["umask"] == UMASK
    assert said["mdwe"] == 1          # since Linux 6.3, and so with these scopes


def test_the_attempts_prove_something(own: Path) -> None:
    """The same process without a role: whoever is merely another user gets through with these."""
    through = {f"{directive}: {what}" for directive, some in tried("", own)["tried"].items()
               for what, said in some.items() if said == "through"}
    assert through >= {
        "RestrictNamespaces: nothing unshared", "RestrictAddressFamilies: family 16", "RestrictSUIDSGID: chmod u+s",
        "RestrictSUIDSGID: chmod g+s", "RestrictRealtime: SCHED_BATCH", "MemoryDenyWriteExecute: mmap W and X",
        "MemoryDenyWriteExecute: mprotect X", "LockPersonality: its own personality", "RemoveIPC: shared memory",
        "SystemCallFilter: a child", "ProtectHome: read /home", "PrivateTmp: read /tmp", "PrivateTmp: write /tmp",
        "ProtectProc: its parent", ": a port"}


def test_a_file_that_everybody_may_read_is_not_read(own: Path, tmp_path: Path) -> None:
    secret = Path("/var/tmp", f"weir-open-{os.getpid()}")
    secret.write_text("secret")
    secret.chmod(0o644)
    try:
        code = f"print(open({str(secret)!r}).read())"
        assert run("", own, code).stdout == "secret\n"
        done = run("check", own, code)
        assert (done.returncode, "PermissionError" in done.stderr) == (1, True)
        assert run("check", own, code, reads=[str(secret)]).stdout == "secret\n"
    finally:
        secret.unlink()


def test_no_process_outside_is_signalled(own: Path) -> None:
    code = "import os, sys; os.kill(int(sys.argv[1]), 0)"
    with subprocess.Popen(["/usr/bin/sleep", "60"], user="nobody") as other:
        try:
            assert run("", own, code, str(other.pid)).returncode == 0
            assert "PermissionError" in run("enforcer", own, code, str(other.pid)).stderr
        finally:
            other.kill()


@pytest.mark.parametrize(("role", "more", "wanted"), [
    ("nothing", {}, "'nothing'"), ("enforcer", {"reads": ["/nowhere"]}, "/nowhere")])
def test_what_cannot_be_put_in_force_is_not_started(own: Path, role: str, more: dict[str, Any], wanted: str) -> None:
    done = run(role, own, "print('here')", **more)
    assert (done.returncode, done.stdout) == (125, "")
    assert wanted in done.stderr


@pytest.mark.parametrize("broken", ["make_filter", "load", "enter"])
def test_a_filter_that_fails_is_not_done_without(own: Path, broken: str) -> None:
    """As the command itself does it, with a library that says no."""
    code = f"""
import sys
from agent import processes
from agent.confined import confine
from agent.workload import landlock
from enforcer import protocols

def no(*_):
    raise {"OSError(38, 'no')" if broken == "enter" else "RuntimeError('no')"}

class Filter:
    load = no

if {broken!r} == "enter":
    landlock.Domain.enter = no
else:
    confine.make_filter = no if {broken!r} == "make_filter" else lambda *_: Filter()
sys.exit(processes.main(["--user", "nobody", "--role", "enforcer", "--", "/usr/bin/id"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30,
                          env={"PYTHONPATH": ":".join(sys.path)})
    assert (done.returncode, done.stdout) == (125, "")
    assert "could not be started" in done.stderr


def test_an_older_kernel_gives_what_it_has(own: Path) -> None:
    """Debian 12's: Landlock without truncation, ports and scopes, by its own numbers."""
    code = """
import sys
from agent import processes
from agent.workload import landlock
from enforcer import protocols
landlock.version = lambda: 2
sys.exit(processes.main(["--user", "nobody", "--role", "enforcer", "--write", sys.argv[1],
                         "--set=SQLITE_TMPDIR=" + sys.argv[1], "--", sys.executable, "-I", "-c", *sys.argv[2:]]))
"""
    arguments = [str(own), ATTEMPTS, paths(), f"{own}/file", str(own), "AF_UNIX AF_INET", str(ROOT),
                 *MODULES["enforcer"]]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=30,
                          stdin=subprocess.DEVNULL, env={"PYTHONPATH": ":".join(sys.path)})
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert {name: what for name, what in said["works"].items() if what is not True} == {}
    through = {f"{directive}: {what}" for directive, some in said["tried"].items() for what, error in some.items()
               if error not in REFUSED}
    assert through == {"ProtectProc: its parent", "ProtectProc: all processes", ": a port"}


def test_a_kernel_without_landlock_is_said_aloud() -> None:
    code = """
import sys
from agent import processes
from agent.confined import view
from agent.workload import landlock
from enforcer import protocols
landlock.version = view.version = lambda: 0
assert view.hints() == (view.NO_VIEW,)
sys.exit(processes.main(["--user", "nobody", "--role", "enforcer", "--", "/usr/bin/id", "-u"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30,
                          env={"PYTHONPATH": ":".join(sys.path)})
    assert (done.returncode, done.stdout) == (0, f"{NOBODY.pw_uid}\n")
    assert "no Landlock" in done.stderr


def test_all_but_what_is_hidden(tmp_path: Path) -> None:
    for name in ("bin", "lib/modules/6.1", "lib/python3", "share"):
        (tmp_path / "usr" / name).mkdir(parents=True)
    (tmp_path / "home").mkdir()
    found = {path.removeprefix(f"{tmp_path}/") for path in without(tmp_path, tmp_path / "usr/lib/modules", ("usr",))}
    assert found == {"usr/bin", "usr/lib/python3", "usr/share"}
