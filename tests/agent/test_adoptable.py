"""What systemd says of a unit, and which are refused: from the texts of systemctl, systemd 252."""
from __future__ import annotations

import pytest

from agent.adoptable import Unit, parse_command, parse_show, refusals, wrong_name

GOOD = """\
Type=simple
ExecStartEx={ path=/usr/bin/python3 ; argv[]=/usr/bin/python3 /opt/crew/main.py ; flags= ; start_time=[n/a] ; pid=0 }
Id=crew.service
LoadState=loaded
ActiveState=active
ControlGroup=/system.slice/crew.service
User=crew
Group=
DynamicUser=no
WorkingDirectory=!/opt/crew
Environment="A=b c" "D=e\\"f" PLAIN=1
EnvironmentFiles=/etc/default/crew (ignore_errors=yes)
StandardInput=null
StandardOutput=journal
RestrictAddressFamilies=~
TriggeredBy=crew.socket crew.timer
"""
ROOT = "/var/lib/weir/units/crew/root"


def unit(**changed: str) -> Unit:
    found = parse_show(GOOD)
    commands = found.commands
    if "command" in changed:
        commands = (*commands, parse_command("ExecStartPreEx", changed.pop("command")))
    return Unit({**found.properties, **changed}, commands)


def refused(one: Unit) -> list[str]:
    return list(refusals(one, ("crew", "other"), ("weir", "weir-audit", "weir-approvers"), ROOT))


def test_what_systemd_says() -> None:
    one = unit()
    assert one.running
    assert one.environment == {"A": "b c", "D": 'e"f', "PLAIN": "1"}
    assert one.environment_files == ("/etc/default/crew",)
    assert one.directory == "/opt/crew"
    assert one.sockets == ("crew.socket",)
    assert [command.path for command in one.commands] == ["/usr/bin/python3"]
    assert refused(one) == []
    assert refused(unit(User="", DynamicUser="yes")) == []
    assert refused(unit(RootDirectory=ROOT)) == []


def test_arguments_do_not_speak_for_systemd() -> None:
    text = "{ path=/bin/a ; argv[]=/bin/a ; flags= ; path=/bin/b ; flags=privileged ; start_time=[n/a] }"
    assert parse_command("ExecStartEx", text).flags == {"privileged"}
    text = "{ path=/bin/a ; argv[]=/bin/a x ; flags=no-setuid ignore-failure ; start_time=[n/a] ; status=0/0 }"
    assert parse_command("ExecStartEx", text).flags == {"no-setuid", "ignore-failure"}


@pytest.mark.parametrize(("changed", "said"), [
    ({"LoadState": "not-found"}, "no such unit of this host's systemd; units of users' own managers"),
    ({"LoadState": "masked"}, "that it is masked"),
    ({"LoadState": "bad-setting", "LoadError": "x"}, "bad-setting x"),
    ({"Transient": "yes"}, "`weir run` starts commands"),
    ({"User": ""}, "runs as root, which no workload does: write User="),
    ({"User": "root"}, "runs as root"),
    ({"User": "0"}, "runs as root"),
    ({"User": "somebody"}, "not among the `users`"),
    ({"Group": "root"}, "group root"),
    ({"SupplementaryGroups": "audio 0"}, "group root"),
    ({"SupplementaryGroups": "weir-approvers"}, "Weir's own group weir-approvers"),
    ({"PermissionsStartOnly": "yes"}, "PermissionsStartOnly=yes"),
    ({"PAMName": "login"}, "PAMName="),
    ({"RootDirectory": "/srv/root"}, "root file system of its own"),
    ({"RootImage": "/srv/root.raw"}, "root file system of its own"),
    ({"PrivateNetwork": "yes"}, "network namespace of its own"),
    ({"NetworkNamespacePath": "/run/netns/x"}, "network namespace of its own"),
    ({"Type": "dbus"}, "another Type="),
    ({"StandardInput": "tty-force"}, "StandardInput=tty-force"),
    ({"StandardOutput": "socket"}, "StandardOutput=socket"),
    ({"command": "{ path=/bin/x ; argv[]=/bin/x ; flags=privileged ; start_time=[n/a] }"}, "ExecStartPre= has /bin/x"),
    ({"command": "{ path=/bin/x ; argv[]=/bin/x ; flags=no-setuid ; start_time=[n/a] }"}, "no-setuid"),
    ({"command": "{ path=/bin/x ; argv[]=/bin/x ; flags=ambient ; start_time=[n/a] }"}, "ambient"),
])
def test_what_is_refused(changed: dict[str, str], said: str) -> None:
    found = refused(unit(**changed))
    assert any(said in one for one in found), found


@pytest.mark.parametrize(("name", "said"), [
    ("crew.service", ""), ("crew@a-b.service", ""), ("a\\x2db.service", ""), ("postgresql@15-main.service", ""),
    ("crew@.service", "name one of its instances, like crew@1.service"), ("crew", "no name of a service"),
    ("crew.socket", "no name of a service"), ("../x.service", "no name of a service"), ("a b.service", "no name"),
    ("", "no name"), ("-x", "no name"), ("@.service", "no name"),
    ("dbus.service", "the host's own"), ("dbus-broker.service", "the host's own"), ("ssh.service", "the host's own"),
    ("ssh@1.service", "the host's own"), ("systemd-resolved.service", "the host's own"),
    ("user@1000.service", "the host's own"), ("getty@tty1.service", "the host's own"), ("cron.service", "host's own"),
    ("serial-getty@ttyS0.service", "the host's own"), ("docker.service", "the host's own"),
    ("weir-agent.service", "Weir's own"), ("weir-guard.service", "Weir's own"), ("lab-x.service", "Weir's own"),
])
def test_names(name: str, said: str) -> None:
    found = wrong_name(name, "lab")
    assert (said in found) if said else found == "", found
