"""What dpkg's scripts of the package do, each run by sh in a directory that stands for the host's."""
from __future__ import annotations

import os
import shlex
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

RECIPE = Path(__file__).resolve().parents[2] / "packaging/debian"
COMMANDS = ("weir", "nft", "deb-systemd-invoke", "systemctl", "systemd-sysusers", "systemd-tmpfiles", "apparmor_parser")


class Host:
    """Places below `root`; commands that say what they were asked, and end as they are told."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = ""                # what comes before in PATH
        (root / "bin").mkdir()
        for name in COMMANDS:
            self.answers(name, 0)
        self.answers("nft", 1)
        self.answers("systemctl", 0)

    def answers(self, name: str, code: int, said: str = "") -> None:
        file = self.root / "bin" / name
        file.write_text(f'#!/bin/sh\necho {name} "$@" >>{self.root}/asked\n'
                        f"printf %s {shlex.quote(said)}\nexit {code}\n")
        file.chmod(0o755)

    def has(self, path: str, text: str = "") -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def run(self, script: str, *words: str) -> subprocess.CompletedProcess[str]:
        text = (RECIPE / script).read_text().replace("@format@", "1").replace("#DEBHELPER#", "")
        for place in ("/var/lib/weir", "/etc/", "/run/", "/usr/share/", "/usr/lib/systemd/", "/usr/local/lib/",
                      "/proc/"):
            text = text.replace(place, f"{self.root}{place}")
        text = text.replace("link=/usr/local/", f"link={self.root}/usr/local/")
        text = text.replace("PATH=/usr/sbin:", f"PATH={self.root}/bin:/usr/sbin:")
        return subprocess.run(["sh", "-s", *words], input=text, capture_output=True, text=True,
                              env={"PATH": f"{self.path}{self.root}/bin:{os.environ['PATH']}"})

    def asked(self) -> list[str]:
        file = self.root / "asked"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def recording(host: Host, version: int) -> Path:
    file = host.has("var/lib/weir/recording/recording-20261129T070000Z-1.sqlite")
    file.unlink()
    with closing(sqlite3.connect(file)) as db, db:
        db.execute(f"PRAGMA user_version={version}")
        db.execute("CREATE TABLE t (a)")
    return file


def test_recordings_of_a_later_version_are_no_place_for_an_earlier_one(host: Host) -> None:
    file = recording(host, 2)
    for words in (("upgrade", "0.2.0", "0.1.0"), ("install",)):
        done = host.run("preinst", *words)
        assert done.returncode == 1
        assert f"{file} has format 2" in done.stderr
    recording(host, 1)
    assert host.run("preinst", "upgrade", "0.2.0", "0.1.0").returncode == 0


def test_it_is_not_put_beside_what_bootstrap_installed(host: Host) -> None:
    unit = host.has("etc/systemd/system/weir-agent.service", "[Service]\nExecStart=/usr/local/bin/weir agent\n")
    done = host.run("preinst", "install")
    assert done.returncode == 1
    assert "./bootstrap clean" in done.stderr
    unit.write_text("[Service]\nExecStart=/usr/bin/weir --config /etc/other agent\n")     # the operator's own
    assert host.run("preinst", "install").returncode == 0


def test_a_command_of_a_clone_that_comes_before_the_packages_is_named(host: Host) -> None:
    assert "of a clone" not in host.run("postinst", "configure", "").stderr
    link = host.root / "usr/local/bin/weir"
    link.parent.mkdir(parents=True)
    link.symlink_to("/opt/weir/venv/bin/weir")
    done = host.run("postinst", "configure", "")
    assert done.returncode == 0, done.stderr
    assert f"{link} -> /opt/weir/venv/bin/weir" in done.stderr
    assert "./bootstrap clean" in done.stderr


def test_nothing_is_started_without_a_configuration(host: Host) -> None:
    host.has("run/systemd/system/x")
    done = host.run("postinst", "configure", "")
    assert done.returncode == 0, done.stderr
    assert "weir init" in done.stderr
    assert host.asked()[:2] == ["systemd-sysusers weir.conf", "systemd-tmpfiles --create weir.conf"]
    assert not [one for one in host.asked() if one.startswith("deb-systemd-invoke")]


def test_without_systemd_too_it_says_what_comes_next(host: Host) -> None:
    done = host.run("postinst", "configure", "")
    assert done.returncode == 0, done.stderr
    assert "weir init" in done.stderr
    assert "weir check, weir agent (systemd does not run this host)" in done.stderr
    host.has("etc/weir/weir.toml")
    assert host.run("postinst", "configure", "0.1.0").stderr == ""


def test_the_agent_is_started_where_its_configuration_is_right(host: Host) -> None:
    host.has("run/systemd/system/x")
    host.has("etc/weir/weir.toml")
    assert host.run("postinst", "configure", "0.1.0").returncode == 0
    assert host.asked()[-1] == "deb-systemd-invoke restart weir-agent.service"


def test_an_upgrade_leaves_the_agent_alone_where_the_configuration_is_wrong(host: Host) -> None:
    host.has("run/systemd/system/x")
    host.has("etc/weir/weir.toml")
    host.answers("weir", 1, "weir.toml:3: nothing is right")
    done = host.run("postinst", "configure", "0.1.0")
    assert done.returncode == 0
    assert "weir.toml:3: nothing is right" in done.stderr
    assert "of the version before goes on" in done.stderr
    assert not [one for one in host.asked() if one.startswith("deb-systemd-invoke")]


def test_an_agent_that_does_not_start_leaves_the_package_installed(host: Host) -> None:
    host.has("run/systemd/system/x")
    host.has("etc/weir/weir.toml")
    host.answers("deb-systemd-invoke", 1)
    done = host.run("postinst", "configure", "0.1.0")
    assert done.returncode == 0
    assert "crews are cut off" in done.stderr


@pytest.mark.parametrize("restricted", [True, False])
def test_the_profile_is_loaded_where_user_namespaces_are_restricted(host: Host, restricted: bool) -> None:
    host.has("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n" if restricted else "0\n")
    host.has("etc/apparmor.d/x")
    host.has("usr/share/weir/weir.apparmor", "profile weir {}\n")
    assert host.run("postinst", "configure", "").returncode == 0
    loaded = [one for one in host.asked() if one.startswith("apparmor_parser")]
    assert bool(loaded) == (host.root / "etc/apparmor.d/weir").exists() == restricted
    assert host.run("postrm", "purge").returncode == 0
    assert not (host.root / "etc/apparmor.d/weir").exists()


@pytest.mark.parametrize("words", [("upgrade", "0.2.0"), ("failed-upgrade", "0.2.0"), ("deconfigure",)])
def test_an_upgrade_stops_nothing(host: Host, words: tuple[str, ...]) -> None:
    host.has("run/weir/bpf/x")
    host.has("etc/systemd/system/crew.service.d/50-weir.conf", "[Service]\nSlice=weir.slice\n")
    assert host.run("prerm", *words).returncode == 0
    assert host.asked() == []


def test_it_is_not_removed_while_the_block_cannot_be_released(host: Host) -> None:
    host.has("run/weir/bpf/x")
    host.answers("weir", 1)
    done = host.run("prerm", "remove")
    assert done.returncode == 1
    assert "the block is in place" in done.stderr
    assert host.asked() == ["weir release"]


def test_it_is_not_removed_while_a_unit_is_a_crew(host: Host) -> None:
    file = host.has("etc/systemd/system/crew.service.d/50-weir.conf", "[Service]\nSlice=weir.slice\n")
    done = host.run("prerm", "remove")
    assert done.returncode == 1
    assert str(file) in done.stderr
    assert host.asked() == []
    file.unlink()
    assert host.run("prerm", "remove").returncode == 0


@pytest.mark.parametrize(("path", "line"), [
    ("etc/systemd/system/crew.service", "  Slice = weir.slice  "),
    ("etc/systemd/system/crew.service.d/50-x.conf", "Slice=weir-batch.slice"),
    ("etc/systemd/system.control/crew.service.d/50-Slice.conf", "Slice=weir.slice"),
    ("run/systemd/transient/crew.service", "Slice=weir.slice"),
    ("run/systemd/system/crew.service.d/50-x.conf", "Slice=weir.slice"),
    ("usr/lib/systemd/system/crew.service.d/50-x.conf", "Slice=weir.slice"),
])
def test_a_unit_is_a_crew_wherever_and_however_systemd_is_told(host: Host, path: str, line: str) -> None:
    file = host.has(path, f"[Service]\n{line}\n")
    done = host.run("prerm", "remove")
    assert done.returncode == 1
    assert str(file) in done.stderr
    file.write_text("[Service]\nSlice=weirdest.slice\n#Slice=weir.slice\n")
    assert host.run("prerm", "remove").returncode == 0


def test_a_removal_releases_and_then_stops(host: Host) -> None:
    host.has("run/weir/bpf/x")
    host.has("run/systemd/system/x")
    assert host.run("prerm", "remove").returncode == 0
    assert host.asked() == ["weir release", "deb-systemd-invoke stop weir-agent.service weir-guard.service weir.slice"]


def test_a_purge_keeps_recordings_and_what_verifies_them(host: Host) -> None:
    kept = [recording(host, 1), host.has("var/lib/weir/forwarded.key"), host.has("var/lib/weir/journal/a.journal"),
            host.has("var/lib/weir/recording/signing.key"), host.has("var/lib/weir/mask.key")]
    gone = [host.has("etc/weir/weir.toml"), host.has("etc/weir/credentials/x"), host.has("var/lib/weir/ca/orders/key"),
            host.has("var/lib/weir/approval.key"), host.has("var/lib/weir/tickets/x")]
    assert host.run("postrm", "remove").returncode == 0
    assert all(one.exists() for one in (*kept, *gone))
    done = host.run("postrm", "purge")
    assert done.returncode == 0
    assert f"recordings stay in {host.root}/var/lib/weir" in done.stderr
    assert all(one.exists() for one in kept)
    assert not any(one.exists() for one in gone)


@pytest.mark.parametrize("name", ["recording/recording-20261129T070000Z-1.sqlite", "journal/agent-1.journal"])
def test_a_purge_keeps_the_least_that_was_recorded(host: Host, name: str) -> None:
    file = host.has(f"var/lib/weir/{name}")
    assert host.run("postrm", "purge").returncode == 0
    assert file.exists()


def test_a_purge_of_what_never_recorded_leaves_nothing(host: Host) -> None:
    host.has("var/lib/weir/forwarded.key")
    assert host.run("postrm", "purge").returncode == 0
    assert not (host.root / "var/lib/weir").exists()


def test_a_purge_keeps_what_it_cannot_look_through(host: Host) -> None:
    file = recording(host, 1)
    host.answers("find", 1)
    done = host.run("postrm", "purge")
    assert (done.returncode, file.exists()) == (0, True)
    assert "recordings stay" in done.stderr


def test_a_purge_says_that_recordings_on_another_disk_stay(host: Host) -> None:
    file = recording(host, 1)
    (host.root / "var/lib/weir").rename(host.root / "disk")
    file.parents[1].symlink_to(host.root / "disk")
    done = host.run("postrm", "purge")
    assert (done.returncode, file.exists()) == (0, True)
    assert "recordings stay" in done.stderr
    file.unlink()
    assert host.run("postrm", "purge").returncode == 0


def test_what_they_ask_weir_is_asked_of_the_packages_own(host: Host) -> None:
    """And not of a clone's in /usr/local/bin, which comes before."""
    clones = host.root / "local"
    clones.mkdir()
    (clones / "weir").write_text(f"#!/bin/sh\necho clone >>{host.root}/asked\n")
    (clones / "weir").chmod(0o755)
    host.path = f"{clones}:"
    host.has("etc/weir/weir.toml")
    host.has("run/systemd/system/x")
    host.has("run/weir/bpf/x")
    assert host.run("postinst", "configure").returncode == 0
    assert host.run("prerm", "remove").returncode == 0
    assert {"weir check", "weir release"} <= set(host.asked())
    assert "clone" not in host.asked()
