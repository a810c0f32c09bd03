"""What systemd says of a unit over D-Bus, closed on what it does not know; and which names are adopted."""
from __future__ import annotations

import json

import pytest

from agent.unit.adoptable import PROPERTIES, Unit, object_path, parse_sockets, parse_unit, wrong_name

_EMPTY: dict[str, object] = {"s": "", "b": False, "i": 0, "u": 0, "t": 0, "(ss)": ["", ""], "(bas)": [False, []]}
NO = b'{"type":"b","data":false}'


def line(path: str, *flags: str, arguments: tuple[str, ...] = ()) -> list[object]:
    return [path, [path, *arguments], list(flags), 0, 0, 0, 0, 0, 0, 0]


def answer(changed: dict[str, object], **types: str) -> bytes:
    """busctl's, of a unit that says nothing but what is `changed`."""
    said = {name: {"type": signature, "data": changed.get(name, _EMPTY.get(signature, []))}
            for name, signature in {**PROPERTIES, **types}.items()}
    return json.dumps({"type": "a{sv}", "data": [said]}).encode()


def parsed(**changed: object) -> Unit:
    return parse_unit(answer(changed), NO)


def test_what_systemd_says() -> None:
    one = parsed(
        ExecStartEx=[line("/usr/bin/python3", arguments=("/opt/crew/main.py",))], ActiveState="active",
        ControlGroup="/system.slice/crew.service", DynamicUser=True, WorkingDirectory="!/opt/crew",
        Environment=["A=b c", 'D=e"f', "PLAIN=1"], EnvironmentFiles=[["/etc/default/crew", True]],
        TriggeredBy=["crew.socket", "crew.timer"], LoadError=["org.x", "why"])
    assert one.running
    assert one.dynamic
    assert one.environment == {"A": "b c", "D": 'e"f', "PLAIN": "1"}
    assert one.environment_files == ("/etc/default/crew",)
    assert one.directory == "/opt/crew"
    assert one.sockets == ("crew.socket",)
    assert [command.path for command in one.commands] == ["/usr/bin/python3"]
    assert one["LoadError"] == "why"
    assert not one.yes("PermissionsStartOnly")
    assert parse_unit(answer({}), b'{"type":"b","data":true}').yes("PermissionsStartOnly")


def test_arguments_do_not_speak_for_systemd() -> None:
    one = parsed(PAMName="login", ExecStartPreEx=[line("/bin/sh", "privileged", arguments=("-c", "id\nexit 0"))],
                 ExecStopEx=[line("/bin/a", arguments=("}\nPAMName=\n", " ; flags= ; "))])
    assert [(command.property, command.flags) for command in one.commands] == [
        ("ExecStartPre", {"privileged"}), ("ExecStop", frozenset())]
    assert one["PAMName"] == "login"


def test_what_only_a_newer_systemd_says() -> None:
    assert parsed().all("OpenFile") == ()
    assert parse_unit(answer({"OpenFile": [["/x", "y", 0]]}, OpenFile="a(sst)"), NO).all("OpenFile")


@pytest.mark.parametrize("text", [
    b"", b"{}", b"null", b'{"type":"a{sv}","data":[]}', b'{"type":"a{sv}","data":[{}]}', b'{"type":"s","data":[{}]}',
    answer({})[:-1], answer({"User": 0}), answer({"ExecStartEx": [["/x", ["/x"], "privileged", 0, 0, 0, 0, 0, 0, 0]]}),
    answer({"ExecStartEx": [["/x", ["/x"]]]}), answer({}, User="as"), answer({"BindPaths": [["/x", "/y"]]}),
    answer({}, ExecStartEx="a(sasbttttuii)"),
])
def test_what_is_not_understood_is_an_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"systemd says"):
        parse_unit(text, NO)


def test_nothing_may_be_missing() -> None:
    for name in PROPERTIES:
        said = json.loads(answer({}))
        del said["data"][0][name]
        with pytest.raises(ValueError, match=name):
            parse_unit(json.dumps(said).encode(), NO)


def test_start_only_may_not_be_missing() -> None:
    with pytest.raises(ValueError, match="PermissionsStartOnly"):
        parse_unit(answer({}), b'{"type":"s","data":"no"}')


def test_sockets() -> None:
    assert parse_sockets(b'{"type":"a(ss)","data":[["Special","/dev/x"]]}') == (("Special", "/dev/x"),)
    with pytest.raises(ValueError, match="Listen"):
        parse_sockets(b'{"type":"as","data":["Special"]}')


def test_where_a_unit_is_on_the_bus() -> None:
    assert object_path("1crew@a-b.service") == "/org/freedesktop/systemd1/unit/_31crew_40a_2db_2eservice"


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
