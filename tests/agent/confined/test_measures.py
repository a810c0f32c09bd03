"""The table: what it says as a unit, what its filter does with each system call, and that neither says more than the
other."""
from __future__ import annotations

import ast
import errno
import importlib
import platform
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import seccomp  # type: ignore[import-not-found,import-untyped,unused-ignore]

from agent.confined import calls
from agent.confined.confine import rules
from agent.confined.measures import CALLS, MEASURES, Measure, render_unit, value
from agent.confined.roles import ROLES, Role
from agent.processes import ROOT
from agent.services import Service
from agent.workload.seccomp import make_filter

ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not there: apt install systemd")
ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000       # SECCOMP_RET_*
MASK = 0xFFFF0000
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ENFORCER = ROLES["enforcer"]
EVERY = pytest.mark.parametrize("role", ROLES.values(), ids=str)


class Filter:
    """A role's program, run as the kernel would (struct seccomp_data; classic BPF)."""

    def __init__(self, role: Role) -> None:
        with tempfile.TemporaryFile() as file:
            make_filter(rules(role), errno.ENOSYS).export_bpf(file)
            file.seek(0)
            self._program = list(struct.iter_unpack("=HBBI", file.read()))

    def said(self, call: str, *arguments: int, arch: int = 0) -> int:
        """0: let through; else the error; -1: killed."""
        number = seccomp.resolve_syscall(seccomp.Arch.NATIVE, call)
        if number < 0:                # not on this architecture
            return errno.ENOSYS
        data = struct.pack("=iIQ6Q", number, arch or AUDIT[platform.machine()], 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
        at = accumulator = 0
        while True:
            code, yes, no, k = self._program[at]
            at += 1
            if code == 0x20:          # BPF_LD | BPF_W | BPF_ABS
                (accumulator,) = struct.unpack_from("=I", data, k)
            elif code == 0x54:        # BPF_ALU | BPF_AND | BPF_K
                accumulator &= k
            elif code == 0x05:        # BPF_JMP | BPF_JA
                at += k
            elif code in (0x15, 0x25, 0x35):
                at += yes if {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}[code] else no
            else:
                assert code == 0x06   # BPF_RET | BPF_K
                return {ALLOW: 0, ERRNO: k & 0xFFFF}.get(k & MASK, -1)


def group(name: str) -> set[str]:
    """What this systemd means by it, with the groups in it."""
    done = subprocess.run(["systemd-analyze", "syscall-filter", "--no-pager", name], capture_output=True, text=True,
                          check=True, timeout=30)
    found: set[str] = set()
    for line in done.stdout.splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            found |= group(word)
        elif word and not word.startswith("#"):
            found.add(word)
    return found


def exposure(role: Role, tmp_path: Path) -> float:
    unit = tmp_path / f"weir-{role.name}.service"
    unit.write_text(render_unit(role, "weir", "/usr/bin/true"))
    done = subprocess.run(["systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=15", unit],
                          capture_output=True, text=True, timeout=30)
    assert done.stderr == ""
    assert done.returncode == 0, done.stdout
    return float(done.stdout.splitlines()[-1].split(": ")[1].split()[0])


@needs_systemd
@pytest.mark.parametrize("role", [one for one in ROLES.values() if one.files], ids=str)
def test_a_unit_of_the_table_is_exposed_by_one_and_a_half_at_most(role: Role, tmp_path: Path) -> None:
    assert exposure(role, tmp_path) <= 1.5


@needs_systemd
def test_the_unit_is_right(tmp_path: Path) -> None:
    unit = tmp_path / "weir-enforcer.service"
    unit.write_text(render_unit(ENFORCER, "nobody", "/usr/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=30)
    assert not [line for line in done.stderr.splitlines() if unit.name in line and "nobody" not in line]


@needs_systemd
@pytest.mark.parametrize("name", [
    value(one, ENFORCER)[1:] for one in MEASURES
    if one.directive == "SystemCallFilter" and value(one, ENFORCER).startswith("~")])
def test_what_the_unit_takes_by_a_group_the_filter_takes(name: str) -> None:
    """@setuid, say: all of it, as this systemd knows it."""
    program = Filter(ENFORCER)
    assert [call for call in sorted(group(name)) if _known(call) and program.said(call) == 0] == []


@needs_systemd
@EVERY
def test_what_the_filter_lets_through_the_unit_would(role: Role) -> None:
    program, service = Filter(role), group("@system-service")
    conditional = {rule.call for rule in rules(role) if not rule.error}
    assert {call for call in (*calls.ALLOWED, *conditional) if _known(call)} <= service
    through = {call for call in group("@known") if _known(call) and program.said(call) == 0}
    assert through <= service


def _known(call: str) -> bool:
    return int(seccomp.resolve_syscall(seccomp.Arch.NATIVE, call)) >= 0


@EVERY
@pytest.mark.parametrize("measure", [one for one in MEASURES if one.refused], ids=lambda one: str(one.directive))
def test_what_a_row_refuses_is_refused(role: Role, measure: Measure) -> None:
    program = Filter(role)
    for call in measure.refused:
        if _known(call):
            assert program.said(call) == errno.EPERM, call


def test_what_is_let_through_in_part() -> None:
    program = Filter(ENFORCER)
    threads = 0x3D0F00                # of pthread_create(3)
    assert program.said("clone", threads) == 0
    assert program.said("clone", threads | 0x10000000) == errno.ENOSYS     # CLONE_NEWUSER
    assert program.said("clone", 0x1200011) == errno.ENOSYS                # fork(3)
    assert program.said("clone3") == errno.ENOSYS
    assert [program.said("mmap", 0, 4096, prot) for prot in (0, 1, 3, 5, 6, 7)] == [0, 0, 0, 0, *[errno.ENOSYS] * 2]
    assert [program.said("mprotect", 0, 4096, prot) for prot in (1, 3, 4, 5)] == [0, 0, *[errno.ENOSYS] * 2]
    assert [program.said("fchmod", 3, mode) for mode in (0o640, 0o1777, 0o4700, 0o2700)] == [0, 0, *[errno.ENOSYS] * 2]
    assert program.said("openat", 3, 0, 0o101, 0o4700) == errno.ENOSYS
    assert Filter(ROLES["recorder"]).said("fchmod", 3, 0o2750) == 0
    assert Filter(ROLES["recorder"]).said("fchmod", 3, 0o6750) == errno.ENOSYS
    assert program.said("prlimit64", 0) == 0
    assert program.said("prlimit64", 1) == errno.ENOSYS


def test_sockets() -> None:
    program, local = Filter(ENFORCER), Filter(ROLES["web"])
    for family in range(64):
        assert (program.said("socket", family, 1) == 0) == (family in (1, 2, 10))
        assert (local.said("socket", family, 1) == 0) == (family == 1)
        assert (program.said("socketpair", family, 1) == 0) == (family == 1)
    # What the kernel cuts off above an int does not make another family of it.
    assert program.said("socket", 16 | 1 << 32, 3) == errno.EAFNOSUPPORT
    nonblocking = 0o4000 | 0o2000000
    assert [program.said("socket", 2, kind | nonblocking, protocol)
            for kind, protocol in ((1, 0), (1, 6), (2, 0), (2, 17), (5, 0), (3, 1), (1, 262), (1, 132))] == [
                0, 0, 0, 0, *[errno.ENOSYS] * 4]


def test_a_foreign_architecture_ends_it() -> None:
    assert Filter(ENFORCER).said("read", arch=0x40000003) == -1       # AUDIT_ARCH_I386


def test_no_row_of_the_filter_takes_nothing() -> None:
    empty = [one.directive for one in MEASURES
             if one.by == CALLS and not one.refused and not list(one.rules(ENFORCER))]
    assert empty == ["SystemCallArchitectures"]


def test_whoever_starts_code_of_weirs_own_says_which_role() -> None:
    """Without one are others' programs alone."""
    without = set()
    for path in sorted((ROOT / "agent").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "unprivileged":
                if not any(one.arg == "role" for one in node.keywords):
                    without.add(str(path.relative_to(ROOT)))
    assert without == set()
    for name in ("agent.people.identity_process", "agent.credential.vault_process", "agent.web.process",
                 "agent.metrics.process", "agent.notify.process"):
        importlib.import_module(name)
    kinds = {one.name for one in _kinds(Service) if one.__module__.startswith("agent.")}
    assert kinds - {"service"} == set(ROLES) - {"refresh", "check", "look"}


def _kinds(kind: type[Service]) -> Iterator[type[Service]]:
    yield kind
    for one in kind.__subclasses__():
        yield from _kinds(one)
