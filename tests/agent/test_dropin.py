"""The drop-in as text, as systemd reads it, and as systemd says that it has it in force."""
from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from agent import dropin
from agent.adoptable import Command, Unit
from agent.dropin import FAMILIES, Plan, families, render_dropin, shows, undone, unseen
from agent.seccomp import REFUSED

PLAN = Plan(
    unit="crew.service", workload="crew", slice="weir.slice", root="/var/lib/weir/units/crew/root", home="/home/crew",
    writable=("/home/crew", "/srv/data"), readable=("/opt/crew",),
    files=(("/var/lib/weir/units/crew/resolv.conf", "/etc/resolv.conf"),
           ("/var/lib/weir/units/crew/roots.pem", "/etc/ssl/certs/ca-certificates.crt")),
    hidden=("/etc/weir", "/run/weir", "/var/lib/weir"),
    environment=(("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"), ("ODD", 'a b%c"d\\e$f')),
    families=FAMILIES, notifies="")
# As `systemctl show` of systemd 252 has it, where exactly this is in force.
IN_FORCE = {
    **dropin._ALWAYS, "Slice": "weir.slice", "RootDirectory": PLAN.root, "RootImage": "", "TemporaryFileSystem": "",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_NETLINK AF_UNIX",
    "SystemCallFilter": "~" + " ".join(f"{name}:EPERM" for name in REFUSED),
    "BindPaths": "/home/crew:/home/crew:rbind /srv/data:/srv/data:rbind",
    "BindReadOnlyPaths": "/usr:/usr:rbind /etc:/etc:rbind -/lib64:/lib64:rbind /opt/crew:/opt/crew:rbind "
    "/var/lib/weir/units/crew/resolv.conf:/etc/resolv.conf:rbind "
    "/var/lib/weir/units/crew/roots.pem:/etc/ssl/certs/ca-certificates.crt:rbind",
    "Requires": "sysinit.target weir-guard.service weir.slice", "NeedDaemonReload": "no",
}


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
    ("", FAMILIES), ("~", FAMILIES), ("~AF_PACKET AF_NETLINK", ("AF_UNIX", "AF_INET", "AF_INET6")),
    ("AF_INET AF_PACKET", ("AF_INET",)), ("none", ()),
])
def test_what_the_unit_has_given_up_it_does_not_get_back(own: str, left: tuple[str, ...]) -> None:
    assert families(Unit({"RestrictAddressFamilies": own}, ())) == left


def test_what_it_would_not_see() -> None:
    unit = Unit({"WorkingDirectory": "/srv/elsewhere", "StateDirectory": "crew:alias", "RuntimeDirectory": "crew"}, (
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
    ({"NoNewPrivileges": "no"}, "NoNewPrivileges is no"),
    ({"CapabilityBoundingSet": "cap_net_raw"}, "CapabilityBoundingSet is cap_net_raw, not empty"),
    ({"AmbientCapabilities": "cap_net_raw"}, "AmbientCapabilities"),
    ({"RestrictNamespaces": "net"}, "RestrictNamespaces is net"),
    ({"RootDirectory": ""}, "RootDirectory is empty"),
    ({"PrivateUsers": "no"}, "PrivateUsers"),
    ({"Delegate": "yes"}, "Delegate is yes"),
    ({"Requires": "sysinit.target"}, "does not require weir-guard.service"),
    ({"RestrictAddressFamilies": "~"}, "RestrictAddressFamilies has also ~"),
    ({"RestrictAddressFamilies": "AF_UNIX AF_PACKET"}, "has also AF_PACKET"),
    ({"SystemCallFilter": "~"}, "lets"),
    ({"SystemCallFilter": "~" + " ".join(name for name in REFUSED if name != "bpf")}, "lets bpf through"),
    ({"SystemCallFilter": "read write io_uring_setup"}, "lets io_uring_setup through"),
    ({"BindPaths": IN_FORCE["BindPaths"] + " /run/dbus:/run/dbus:rbind"}, "BindPaths has also /run/dbus"),
    ({"BindReadOnlyPaths": IN_FORCE["BindReadOnlyPaths"] + " /run:/x:rbind"}, "BindReadOnlyPaths has also /x"),
    ({"BindReadOnlyPaths": "/usr:/usr:rbind"}, "BindReadOnlyPaths lacks /etc/resolv.conf"),
    ({"TemporaryFileSystem": "/etc:rw"}, "TemporaryFileSystem is /etc:rw"),
    ({"DeviceAllow": "/dev/net/tun rw"}, "DeviceAllow"),
    ({"NeedDaemonReload": "yes"}, "daemon-reload"),
    ({"FileDescriptorStoreMax": "9"}, "FileDescriptorStoreMax"),
])
def test_what_another_drop_in_undoes(changed: dict[str, str], said: str) -> None:
    found = list(undone(PLAN, Unit({**IN_FORCE, **changed}, ())))
    assert any(said in one for one in found), found


def test_a_filter_of_its_own_that_allows_less_is_right() -> None:
    assert list(undone(PLAN, Unit({**IN_FORCE, "SystemCallFilter": "read write connect"}, ()))) == []
    assert list(undone(PLAN, Unit({**IN_FORCE, "RestrictAddressFamilies": "none"}, ()))) == []
