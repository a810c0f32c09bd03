"""The package as it is built: the same bytes each time, by lintian's rules, what belongs into it and nothing else."""
from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest
from debhost import ROOT, Chroot, build, right

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it is built in a chroot, without network"),
]
PLACES = {
    "usr/bin/weir", "usr/bin/weir-verify", "usr/share/weir/weir_verify.py", "usr/share/weir/weir.apparmor",
    "etc/weir/weir.toml.default", "etc/weir/groups.toml", "etc/weir/policies/examples.cedar",
    "usr/lib/sysusers.d/weir.conf", "usr/lib/tmpfiles.d/weir.conf",
    "usr/share/bash-completion/completions/weir", "usr/share/zsh/vendor-completions/_weir",
    "usr/share/fish/vendor_completions.d/weir.fish", "usr/share/man/man1/weir.1.gz",
    "usr/share/man/man5/weir.toml.5.gz", "usr/share/man/man1/weir-verify.1.gz", "usr/share/doc/weir/docs/operator.md",
    "usr/share/doc/weir/docs/operator/targets.md", "usr/share/doc/weir/docs/webhook.schema.json",
    "usr/share/doc/weir/docs/results/bench.md",
    "usr/share/doc/weir/README.md", "usr/share/doc/weir/copyright",
}


def site(unpacked: Path) -> Path:
    (found,) = unpacked.glob("usr/lib/weir/lib/python3*/site-packages")
    return found


def units(unpacked: Path) -> Path:
    """Below /lib, and from Debian 13 on below /usr/lib: a host's /lib is a link to it."""
    (found,) = (one for one in (unpacked / "lib/systemd/system", unpacked / "usr/lib/systemd/system") if one.exists())
    return found


def test_two_builds_in_two_directories_are_the_same_bytes(builder: Chroot, package: Path) -> None:
    again = build(builder, "another/place")
    assert again.read_bytes() == package.read_bytes()


def test_lintian_has_nothing_to_say(builder: Chroot, package: Path) -> None:
    done = builder.run("lintian", "--allow-root", "--fail-on", "error,warning",
                       f"/{package.relative_to(builder.root)}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_everything_is_where_it_belongs(unpacked: Path) -> None:
    missing = [one for one in PLACES if not os.path.lexists(unpacked / one)]
    assert missing == []
    assert (unpacked / "usr/share/weir/weir_verify.py").read_bytes() == (
        ROOT / "enforcer/recording/weir_verify.py").read_bytes()
    assert not (unpacked / "etc/weir/weir.toml").exists(), "the agent would be started with it"
    assert {one.name for one in units(unpacked).iterdir()} == {
        "weir-guard.service", "weir-agent.service", "weir.slice"}
    for unit in units(unpacked).glob("weir-*.service"):
        assert "=/usr/bin/weir " in unit.read_text()
        assert "@weir@" not in unit.read_text()


def test_nobody_but_root_may_write_any_of_it(package: Path) -> None:
    for line in right("dpkg-deb", "-c", str(package)).splitlines():
        mode, owner, *_, name = line.split(None, 5)
        assert owner == "root/root", line
        assert mode[0] == "l" or (mode[5], mode[8]) == ("-", "-"), f"{mode} {name}"
        assert "s" not in mode, line


def test_no_build_path_is_in_it(unpacked: Path) -> None:
    for path in unpacked.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert b"/weir/.build/" not in (content := path.read_bytes()), path
            assert b"/debian/weir/usr/" not in content, path


def test_exactly_what_the_lock_names_and_weir(unpacked: Path) -> None:
    names = (path.name.removesuffix(".dist-info").rpartition("-") for path in site(unpacked).glob("*.dist-info"))
    installed = {f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}" for name, _, version in names}
    locked = set(re.findall(r"(?m)^([a-z0-9._-]+==\S+)", (ROOT / "requirements.lock").read_text()))
    assert installed == {*locked, "weir==0.1.0"}


def test_hot_modules_are_compiled(unpacked: Path) -> None:
    for name in re.findall(r'"(enforcer/[\w/]+)\.py"', (ROOT / "pyproject.toml").read_text()):
        assert list(site(unpacked).glob(f"{name}.cpython-*.so")), name


def test_python_writes_no_code_on_the_host(builder: Chroot, unpacked: Path) -> None:
    """PEP 552: bytecode of every module, which is valid by the hash of its source and not by a time."""
    magic = builder.right("python3", "-c", "import importlib.util; print(importlib.util.MAGIC_NUMBER.hex())").strip()
    for source in (site(unpacked) / "agent").rglob("*.py"):
        (code,) = source.parent.glob(f"__pycache__/{source.stem}.cpython-3*.pyc")
        head = code.read_bytes()[:8]
        assert head[:4].hex() == magic
        assert head[4:] == b"\x03\0\0\0", "checked hash"


def test_only_commands_are_executable(unpacked: Path) -> None:
    found = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*")
             if not path.is_symlink() and path.is_file() and path.stat().st_mode & stat.S_IXUSR}
    assert found == {"usr/lib/weir/bin/weir", "usr/share/weir/weir_verify.py"}
