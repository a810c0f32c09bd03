"""Install, upgrade, downgrade, remove and purge in a fresh Debian without systemd as PID 1; in order, each stands on
those before it.  What a kernel and systemd matter to is shown in a machine (tests/vm/package.py)."""
from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from debhost import LATER, Chroot

from probes.links import HOOKS

pytestmark = [
    pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it is installed in a chroot")]

# All but attaching, with bcc, clang, libbpf and headers of that Debian; with this process the programs go.
LOAD = """
import sys
from pathlib import Path
from probes import lsm
from probes.links import HOOKS, PlatformError
from probes.loader import _compile, _load
try:
    flags = lsm.flags(Path("/run/weir/control.sock"))
except PlatformError:
    flags = []                        # this kernel has no BPF LSM
module = _compile(Path("/mnt"), Path("/tmp/headers"), flags)
print(*(hook.name for hook in HOOKS if _load(module, hook)))
"""
# Wherever the members lie: what is looked at is what that Debian's clang makes of the rest.
OPERATIONS = """
from pathlib import Path
from probes import links, lsm
from probes.loader import _compile
offsets = (f"-DOFFSET_{one}_{names[0]}=776" for one, names in lsm.MEMBERS)
flags = ["-DLSM", '-DCONTROL="/run/weir/control.sock"', *offsets]
module = _compile(Path("/mnt"), Path("/tmp/headers"), flags)
for hook in links.LSM_HOOKS:
    print(hook.name, *module.dump_func(hook.name.encode())[::8])
"""
NEGATIVE = {"132", "135"}             # BPF_ALU and BPF_ALU64, BPF_NEG (RFC 9669 4.1)
# In a network namespace, by nft of that Debian; a cgroup for the slice.
LISTED = """
from pathlib import Path
from agent.block import nft
from agent.block.ruleset import Ruleset, differences
slice_ = Path("/sys/fs/cgroup/weir-listed.slice")
slice_.mkdir()
try:
    for redirect in (False, True):
        rules = Ruleset("weir", slice_.name, 1, 15432, ("127.53.53.53", 53), redirect)
        nft.apply_table(rules)
        print(*differences(nft.list_table("weir"), rules, lambda text, path: True), sep="\\n", end="")
finally:
    nft.delete_table("weir")
    slice_.rmdir()
"""


def version(debian: Chroot) -> str:
    return debian.right("dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", "weir")


def recording(debian: Chroot, number: int) -> Path:
    file = debian.root / "var/lib/weir/recording/recording-20261129T070000Z-1.sqlite"
    file.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(file)) as db, db:
        db.execute(f"PRAGMA user_version={number}")
        db.execute("CREATE TABLE IF NOT EXISTS t (a)")
    return file


def test_it_installs_cleanly_and_contains_nobody(debian: Chroot, package: Path) -> None:
    done = debian.install(package)
    assert done.returncode == 0, done.stdout + done.stderr
    assert version(debian) == "installed 0.1.0"
    assert debian.right("weir", "--version") == "weir 0.1.0\n"
    assert not (debian.root / "etc/weir/weir.toml").exists()
    for user in ("weir", "weir-audit", "weir-identity", "weir-web", "weir-notify", "weir-vault"):
        debian.right("getent", "passwd", user)
    debian.right("getent", "group", "weir-approvers")
    assert (debian.root / "etc/systemd/system/multi-user.target.wants/weir-guard.service").is_symlink()


def test_what_to_do_first_is_said(debian: Chroot) -> None:
    done = debian.run("weir", "check")
    assert done.returncode == 1
    assert "sudo cp /etc/weir/weir.toml.default /etc/weir/weir.toml" in done.stdout
    debian.right("cp", "/etc/weir/weir.toml.default", "/etc/weir/weir.toml")
    assert "right" in debian.right("weir", "check")


def test_all_that_is_imported_is_there(debian: Chroot) -> None:
    debian.right("/usr/lib/weir/bin/python", "-I", "-c",
                 "import agent.supervisor, enforcer.app, enforcer.recording.recorder, probes.loader\n"
                 "import bcc, nftables, seccomp")


@pytest.mark.kernel
def test_the_probes_compile_and_the_kernel_takes_them(debian: Chroot) -> None:
    loaded = debian.right("sh", "-c", 'mount -t bpf bpf /mnt && exec /usr/lib/weir/bin/python -I -c "$0"', LOAD)
    assert set(loaded.split()) == {hook.name for hook in HOOKS}


@pytest.mark.kernel
def test_no_answer_of_bpf_lsm_is_the_negative_of_a_condition(debian: Chroot) -> None:
    """Whose bounds Linux 6.12 does not see, which wants an error or 0 of each; this kernel need not have BPF LSM."""
    said = debian.right("sh", "-c", 'mount -t bpf bpf /mnt && exec /usr/lib/weir/bin/python -I -c "$0"', OPERATIONS)
    programs = dict(line.split(" ", 1) for line in said.splitlines() if line.startswith("lsm__"))
    assert len(programs) == 6
    assert [name for name, operations in programs.items() if NEGATIVE & set(operations.split())] == []


@pytest.mark.kernel
def test_weirs_rules_are_known_as_this_nft_lists_them(debian: Chroot) -> None:
    said = debian.right("unshare", "--net", "sh", "-c", "mount -t cgroup2 cgroup2 /sys/fs/cgroup && "
                        'exec /usr/lib/weir/bin/python -I -c "$0"', LISTED)
    assert said == ""


def test_what_systemd_says_of_the_units(debian: Chroot) -> None:
    """The agent's and the guard's exceptions are explained in the units."""
    for name, most in (("weir-agent", 6.6), ("weir-guard", 6.0)):
        unit = f"/lib/systemd/system/{name}.service"
        assert debian.right("systemd-analyze", "verify", unit) == ""
        said = debian.right("systemd-analyze", "security", "--offline=true", "--no-pager", unit)
        level = re.search(r"Overall exposure level for .*: ([\d.]+)", said)
        assert level
        assert float(level[1]) <= most, said


def test_the_profile_lets_make_user_namespaces(debian: Chroot, suite: str) -> None:
    """AppArmor 4.  What is older does not know the rule, nor keeps anybody from them: it is not loaded there."""
    profile = debian.root / "usr/share/weir/weir.apparmor"
    (debian.root / "tmp/without").write_text(profile.read_text().replace("  userns,\n", ""))
    read = [debian.run("apparmor_parser", "--skip-kernel-load", "--skip-cache", "--debug", place)
            for place in ("/usr/share/weir/weir.apparmor", "/tmp/without")]
    assert [(one.returncode == 0, "userns" in one.stdout) for one in read] == [
        (suite != "bookworm", suite != "bookworm"), (suite != "bookworm", False)]


def test_nothing_is_written_beside_the_packages_files(debian: Chroot) -> None:
    debian.right("sh", "-c", "weir doctor || true")
    owned = set(debian.right("dpkg", "-L", "weir").splitlines())
    found = {f"/{path.relative_to(debian.root)}" for path in (debian.root / "usr/lib/weir").rglob("*")}
    assert found <= owned


def test_pages_and_completion(debian: Chroot) -> None:
    for page in ("weir", "weir.toml", "weir-verify"):
        assert debian.right("man", "--warnings", page)
    said = debian.right("bash", "-c", "source /usr/share/bash-completion/completions/weir; COMP_WORDS=(weir rel) "
                        "COMP_CWORD=1; _weir_completion weir rel weir; echo ${COMPREPLY[@]}")
    assert said.split() == ["release", "reload"] or said.split() == ["release"], said


def test_the_verifier_needs_nothing_of_weirs(debian: Chroot) -> None:
    done = debian.run("weir-verify", "/var/lib/weir")
    assert done.returncode == 2
    assert "holds no recording" in done.stderr


def test_an_upgrade_and_back(debian: Chroot, package: Path, later: Path) -> None:
    own = (debian.root / "etc/weir/groups.toml")
    own.write_text(own.read_text() + "# the operator's\n")
    recording(debian, 1)
    for one, wanted in ((later, LATER), (package, "0.1.0")):
        done = debian.install(one)
        assert done.returncode == 0, done.stdout + done.stderr
        assert version(debian) == f"installed {wanted}"
        assert own.read_text().endswith("# the operator's\n")
        assert debian.right("weir", "check")


def test_back_to_what_does_not_know_the_recordings_is_refused(debian: Chroot, package: Path, later: Path) -> None:
    assert debian.install(later).returncode == 0
    file = recording(debian, 2)
    done = debian.install(package)
    assert done.returncode != 0
    assert "has format 2; this version of Weir knows formats up to 1" in done.stdout + done.stderr
    assert version(debian) == f"installed {LATER}", "what was there is there"
    recording(debian, 1)
    assert file.exists()


def test_a_removal_is_refused_while_a_unit_is_a_crew(debian: Chroot) -> None:
    unit = debian.root / "etc/systemd/system/crew.service.d/50-weir.conf"
    unit.parent.mkdir()
    unit.write_text("[Service]\nSlice=weir.slice\n")
    done = debian.run("apt-get", "remove", "-y", "weir")
    assert done.returncode != 0
    assert "/etc/systemd/system/crew.service.d/50-weir.conf" in done.stdout + done.stderr
    assert version(debian) == f"installed {LATER}"
    unit.unlink()


def test_recordings_survive_removal_and_purge(debian: Chroot) -> None:
    file = recording(debian, 1)
    debian.right("apt-get", "remove", "-y", "weir")
    assert (debian.root / "etc/weir/weir.toml").exists()
    assert not (debian.root / "usr/lib/weir").exists()
    said = debian.right("apt-get", "purge", "-y", "weir")
    assert "recordings stay in /var/lib/weir" in said
    assert file.exists()
    assert not (debian.root / "etc/weir").exists()
    assert not list(debian.root.glob("etc/systemd/system/*.wants/weir-*"))
