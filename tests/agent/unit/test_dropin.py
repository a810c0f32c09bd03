"""The drop-in as text, as systemd reads it, and as systemd says that it has it in force."""
from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from agent.unit import dropin
from agent.unit.adoptable import PROPERTIES, START_ONLY, Command, Unit
from agent.unit.dropin import FAMILIES, Plan, families, render_dropin, shows, undone, unseen
from agent.workload.seccomp import REFUSED

PLAN = Plan(
    unit="crew.service", workload="crew", slice="weir.slice", root="/var/lib/weir/units/crew/root", home="/home/crew",
    writable=("/home/crew", "/srv/data"), readable=("/opt/crew",),
    files=(("/var/lib/weir/units/crew/resolv.conf", "/etc/resolv.conf"),
           ("/var/lib/weir/units/crew/roots.pem", "/etc/ssl/certs/ca-certificates.crt")),
    hidden=("/etc/weir", "/run/weir", "/var/lib/weir"),
    environment=(("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"), ("ODD", 'a b%c"d\\e$f')),
    families=FAMILIES, notifies="")
# As systemd 252 says it over D-Bus, where exactly this is in force (test_systemd.py has it from systemd).
RBIND = 0x4000
IN_FORCE: dict[str, object] = {
    **{name: value for name, (_, value) in dropin._ALWAYS.items()}, "Slice": "weir.slice", "RootDirectory": PLAN.root,
    "RootImage": "", "TemporaryFileSystem": (), "ReadWritePaths": (), "DeviceAllow": (("char-rtc", "r"),),
    "DevicePolicy": "closed", "RestrictAddressFamilies": (True, ("AF_INET", "AF_INET6", "AF_NETLINK", "AF_UNIX")),
    "SystemCallFilter": (False, tuple(f"{name}:EPERM" for name in REFUSED)),
    "BindPaths": (("/home/crew", "/home/crew", False, RBIND), ("/srv/data", "/srv/data", False, RBIND)),
    "BindReadOnlyPaths": (
        ("/usr", "/usr", False, RBIND), ("/etc", "/etc", False, RBIND), ("/lib64", "/lib64", True, RBIND),
        ("/opt/crew", "/opt/crew", False, RBIND), *((source, target, False, RBIND) for source, target in PLAN.files)),
    "InaccessiblePaths": tuple(f"-+{path}" for path in (*dropin._COVERED, *PLAN.hidden)),
    "Requires": ("sysinit.target", "weir-guard.service", "weir.slice"), "NeedDaemonReload": False,
}


def and_bound(name: str, source: str, target: str) -> tuple[object, ...]:
    before = IN_FORCE[name]
    assert isinstance(before, tuple)
    return (*before, (source, target, False, RBIND))


def lines(text: str) -> list[str]:
    return text.splitlines()


def test_the_file() -> None:
    text = lines(render_dropin(PLAN))
    assert text[:6] == [
        "# Written by `weir adopt crew.service`, for workload crew; `weir adopt --undo` takes it away.",
        "# It is made from /etc/weir/weir.toml: change that, and adopt again.",
        "[Unit]", "Requires=weir-guard.service", "Wants=weir-agent.service",
        "After=weir-guard.service weir-agent.service"]
    for line in (
            "Slice=weir.slice", "Delegate=no", "NoNewPrivileges=yes", "CapabilityBoundingSet=", "AmbientCapabilities=",
            "SystemCallArchitectures=native", "RestrictNamespaces=yes", "KeyringMode=private", "PrivateUsers=yes",
            "SecureBits=", "KillMode=control-group", "SendSIGKILL=yes", "FinalKillSignal=SIGKILL",
            "PermissionsStartOnly=no", "RootDirectoryStartOnly=no",
            "ProtectSystem=strict", "ProtectProc=invisible", "ProtectKernelTunables=yes", "PrivateIPC=yes",
            "RootDirectory=/var/lib/weir/units/crew/root", "BindPaths=/home/crew", "BindPaths=/srv/data",
            "BindReadOnlyPaths=/opt/crew",
            "BindReadOnlyPaths=/var/lib/weir/units/crew/resolv.conf:/etc/resolv.conf",
            "InaccessiblePaths=-+/etc/weir", "InaccessiblePaths=-+/sys/fs",
            "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
            "Environment=SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"):
        assert line in text, line
    assert 'Environment="ODD=a b%%c\\"d\\\\e$f"' in text
    assert "/run/systemd/notify" not in "\n".join(text)
    told = lines(render_dropin(replace(PLAN, notifies="main")))
    assert {"NotifyAccess=main", "BindReadOnlyPaths=-/run/systemd/notify"} <= set(told)
    filters = next(line for line in text if line.startswith("SystemCallFilter=~"))
    assert {"io_uring_setup:EPERM", "bpf:EPERM", "keyctl:EPERM", "perf_event_open:EPERM"} <= set(filters[18:].split())


def test_lists_are_emptied_before_they_are_filled() -> None:
    text = lines(render_dropin(PLAN))
    for name in dropin._EMPTIED:
        places = [number for number, line in enumerate(text) if line.startswith(f"{name}=")]
        assert text[places[0]] == f"{name}="


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not there: apt install systemd")
def test_systemd_reads_it(tmp_path: Path) -> None:
    """No word of it is unknown to this host's systemd, and the exposure that it computes is small."""
    (tmp_path / "crew.service").write_text("[Service]\nUser=daemon\nExecStart=/usr/bin/true\n")
    (tmp_path / "weir-guard.service").write_text("[Service]\nType=oneshot\nExecStart=/usr/bin/true\n")
    (tmp_path / "crew.service.d").mkdir()
    (tmp_path / "crew.service.d" / "50-weir.conf").write_text(render_dropin(PLAN))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", tmp_path / "crew.service"], capture_output=True,
                          text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    exposed = subprocess.run(["systemd-analyze", "security", "--offline=yes", "--threshold=35",
                              tmp_path / "crew.service"], capture_output=True, text=True, timeout=60)
    assert exposed.returncode == 0, exposed.stdout[-200:]


@pytest.mark.parametrize(("own", "left"), [
    ((False, ()), FAMILIES), ((False, ("AF_PACKET", "AF_NETLINK")), ("AF_UNIX", "AF_INET", "AF_INET6")),
    ((True, ("AF_INET", "AF_PACKET")), ("AF_INET",)), ((True, ()), ()),
])
def test_what_the_unit_has_given_up_it_does_not_get_back(own: object, left: tuple[str, ...]) -> None:
    assert families(Unit({"RestrictAddressFamilies": own}, ())) == left
    assert families(Unit({}, ())) == FAMILIES


def test_what_it_would_not_see() -> None:
    unit = Unit({"WorkingDirectory": "/srv/elsewhere", "StateDirectory": ("crew",), "RuntimeDirectory": ("crew",)}, (
        Command("ExecStart", "/opt/crew/bin/python", frozenset()), Command("ExecStop", "/opt/crewx", frozenset())))
    assert shows(PLAN, unit, "/var/lib/crew/x")
    assert shows(PLAN, unit, "/run/crew")
    assert not shows(PLAN, unit, "/run/dbus")
    found = list(unseen(PLAN, unit))
    assert [one.split(",")[0] for one in found] == ["ExecStop= is /opt/crewx", "WorkingDirectory= is /srv/elsewhere"]
    assert list(unseen(PLAN, Unit({"WorkingDirectory": "~"}, ()))) == []


def test_what_is_in_force_is_what_was_written() -> None:
    assert list(undone(PLAN, Unit(IN_FORCE, ()))) == []


@pytest.mark.parametrize(("changed", "said"), [
    ({"Slice": "system.slice"}, "Slice is system.slice, not weir.slice"),
    ({"NoNewPrivileges": False}, "NoNewPrivileges is no, not yes"),
    ({"CapabilityBoundingSet": 0x2000}, "CapabilityBoundingSet is 8192, not 0"),
    ({"AmbientCapabilities": 1}, "AmbientCapabilities"),
    ({"SecureBits": 1}, "SecureBits is 1, not 0"),
    ({"RestrictNamespaces": 1 << 30}, "RestrictNamespaces is"),
    ({"SystemCallArchitectures": ()}, "SystemCallArchitectures is empty, not native"),
    ({"RootDirectory": ""}, "RootDirectory is empty"),
    ({"PrivateUsers": False}, "PrivateUsers"),
    ({"Delegate": True}, "Delegate is yes"),
    ({"KillMode": "process"}, "KillMode is process, not control-group"),
    ({"SendSIGKILL": False}, "SendSIGKILL is no, not yes"),
    ({"FinalKillSignal": 15}, "FinalKillSignal is 15, not 9"),
    ({"PermissionsStartOnly": True}, "PermissionsStartOnly is yes, not no"),
    ({"RootDirectoryStartOnly": True}, "RootDirectoryStartOnly is yes, not no"),
    ({"Requires": ("sysinit.target",)}, "does not require weir-guard.service"),
    ({"RestrictAddressFamilies": (False, ())}, "RestrictAddressFamilies has no list of what is allowed"),
    ({"RestrictAddressFamilies": (False, ("AF_UNIX",))}, "RestrictAddressFamilies has no list"),
    ({"RestrictAddressFamilies": (True, ("AF_UNIX", "AF_PACKET"))}, "RestrictAddressFamilies has also AF_PACKET"),
    ({"SystemCallFilter": (False, ())}, "lets"),
    ({"SystemCallFilter": (False, tuple(name for name in REFUSED if name != "bpf"))}, "lets bpf through"),
    ({"SystemCallFilter": (True, ("read", "write", "io_uring_setup"))}, "lets io_uring_setup through"),
    ({"BindPaths": and_bound("BindPaths", "/run/dbus", "/run/dbus")}, "BindPaths has also /run/dbus"),
    ({"BindPaths": and_bound("BindPaths", "/", "/home/crew")}, "BindPaths has also /:/home/crew"),
    ({"BindReadOnlyPaths": and_bound("BindReadOnlyPaths", "/run", "/x")}, "BindReadOnlyPaths has also /run:/x"),
    ({"BindReadOnlyPaths": and_bound("BindReadOnlyPaths", "/run", "/usr")}, "BindReadOnlyPaths has also /run:/usr"),
    ({"BindReadOnlyPaths": (("/usr", "/usr", False, RBIND),)},
     "BindReadOnlyPaths lacks /var/lib/weir/units/crew/resolv.conf:/etc/resolv.conf"),
    ({"InaccessiblePaths": ("-+/sys/fs",)}, "InaccessiblePaths lacks -+/sys/kernel"),
    ({"InaccessiblePaths": ()}, "-+/etc/weir"),
    ({"TemporaryFileSystem": (("/etc", "rw"),)}, "TemporaryFileSystem is /etc rw, not empty"),
    ({"ReadWritePaths": ("/usr",)}, "ReadWritePaths is /usr, not empty"),
    ({"DeviceAllow": (("char-rtc", "r"), ("/dev/net/tun", "rw"))}, "DeviceAllow has /dev/net/tun rw"),
    ({"DeviceAllow": (("char-rtc", "rw"),)}, "DeviceAllow has char-rtc rw"),
    ({"DevicePolicy": "auto"}, "DevicePolicy is auto, not closed"),
    ({"NeedDaemonReload": True}, "daemon-reload"),
    ({"FileDescriptorStoreMax": 9}, "FileDescriptorStoreMax is 9, not 0"),
])
def test_what_another_drop_in_undoes(changed: dict[str, object], said: str) -> None:
    found = list(undone(PLAN, Unit({**IN_FORCE, **changed}, ())))
    assert len(found) == 1
    assert said in found[0]


def test_what_systemd_adds_for_a_user_of_its_own() -> None:
    """It can only show less."""
    home = {**IN_FORCE, "ProtectHome": "read-only"}
    assert list(undone(PLAN, Unit({**home, "DynamicUser": True}, ()))) == []
    assert list(undone(PLAN, Unit({**home, "DynamicUser": False}, ()))) == ["ProtectHome is read-only, not no"]
    assert list(undone(PLAN, Unit({**home, "DynamicUser": True, "ProtectHome": "tmpfs"}, ()))) != []


@pytest.mark.parametrize("name", IN_FORCE)
def test_what_is_not_said_is_not_in_force(name: str) -> None:
    found = list(undone(PLAN, Unit({key: value for key, value in IN_FORCE.items() if key != name}, ())))
    assert found or name in ("NeedDaemonReload", "BindPaths", "DeviceAllow")
    assert name in PROPERTIES or name == START_ONLY


def test_a_filter_of_its_own_that_allows_less_is_right() -> None:
    allowed = {**IN_FORCE, "SystemCallFilter": (True, ("read", "write", "connect")), "DevicePolicy": "strict",
               "RestrictAddressFamilies": (True, ()), "DeviceAllow": ()}
    assert list(undone(PLAN, Unit(allowed, ()))) == []
