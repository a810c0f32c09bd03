"""Which units are refused, and why; pure."""
from __future__ import annotations

from dataclasses import replace

import pytest

from agent.unit.adoptable import Command, Unit
from agent.unit.objections import Host, Place, overlap, refusals

ROOT = "/var/lib/weir/units/crew/root"
CREW, GID = 990, 991
UNIT = Unit({
    "Id": "crew.service", "LoadState": "loaded", "User": "crew", "StandardInput": "null", "StandardOutput": "journal",
    "StandardError": "inherit"}, (Command("ExecStart", "/usr/bin/python3", frozenset({"ignore-failure"})),))
DYNAMIC = Unit({**UNIT.properties, "User": "crew", "Group": "crew", "DynamicUser": True}, ())
HOST = Host(uid=CREW, gids=frozenset({GID, 44}), unknown=(), own={700: "weir", 702: "weir-approvers"},
            hidden=("/etc/weir", "/run/weir", "/var/lib/weir"), databases=("/run/postgresql/.s.PGSQL.5432",),
            places={}, sockets={})
NOBODY = replace(HOST, uid=-1, gids=frozenset())
USERS = ("crew", "other", "toor")


def unit(base: Unit = UNIT, **changed: object) -> Unit:
    return Unit({**base.properties, **changed}, base.commands)


def refused(one: Unit, host: Host = HOST) -> list[str]:
    return list(refusals(one, USERS, host, ROOT))


def test_what_is_right() -> None:
    assert refused(UNIT) == []
    assert refused(unit(RootDirectory=ROOT, StandardInput="data", StandardOutput="null")) == []
    assert refused(DYNAMIC, NOBODY) == []
    assert refused(DYNAMIC, replace(NOBODY, uid=61200)) == [], "it runs"
    assert refused(unit(DYNAMIC, User="_du0123456789abcdef"), NOBODY) == []
    assert refused(unit(DYNAMIC, Id="crew@a.service"), NOBODY) == []


@pytest.mark.parametrize(("changed", "said"), [
    ({"LoadState": "not-found"}, "no such unit of this host's systemd; units of users' own managers"),
    ({"LoadState": "masked"}, "that it is masked"),
    ({"LoadState": "bad-setting", "LoadError": "x"}, "bad-setting x"),
    ({"Transient": True}, "`weir run` starts commands"),
    ({"User": ""}, "runs as root, which no workload does: write User="),
    ({"User": "root"}, "runs as root"),
    ({"User": "somebody"}, "not among the `users`"),
    ({"PermissionsStartOnly": True}, "PermissionsStartOnly=yes"),
    ({"RootDirectoryStartOnly": True}, "RootDirectoryStartOnly=yes"),
    ({"PAMName": "login"}, "PAMName="),
    ({"RootDirectory": "/srv/root"}, "root file system of its own"),
    ({"RootImage": "/srv/root.raw"}, "root file system of its own"),
    ({"ExtensionDirectories": ("/srv/x",)}, "root file system of its own"),
    ({"MountImages": (("/x", "/y", False, ()),)}, "root file system of its own"),
    ({"PrivateNetwork": True}, "network namespace of its own"),
    ({"NetworkNamespacePath": "/run/netns/x"}, "network namespace of its own"),
    ({"IPCNamespacePath": "/proc/1/ns/ipc"}, "joins namespaces of others"),
    ({"JoinsNamespaceOf": ("other.service",)}, "joins namespaces of others"),
    ({"Type": "dbus"}, "another Type="),
    ({"BusName": "org.crew"}, "another Type="),
    ({"LogNamespace": "crew"}, "LogNamespace="),
    ({"BPFProgram": (("connect4", "/sys/fs/bpf/x"),)}, "BPFProgram puts BPF programs before Weir's"),
    ({"IPEgressFilterPath": ("/sys/fs/bpf/x",)}, "IPEgressFilterPath puts"),
    ({"OpenFile": (("/etc/shadow", "x", 0),)}, "OpenFile hands it what systemd opens"),
    ({"USBFunctionStrings": "/x"}, "USBFunctionStrings hands it"),
    ({"TTYPath": "/dev/tty9"}, "TTYPath is about a terminal"),
    ({"TTYVHangup": True}, "TTYVHangup is about a terminal"),
    *(({"StandardInput": one}, f"StandardInput={one} is opened by systemd, as root and outside of the sandbox: "
       "StandardInput=null would be right") for one in ("tty", "tty-force", "tty-fail", "socket", "fd", "file", "new")),
    *(({name: one}, f"{name}={one} is opened by systemd, as root and outside of the sandbox: {name}=journal would")
      for name in ("StandardOutput", "StandardError")
      for one in ("tty", "kmsg", "journal+console", "kmsg+console", "file", "append", "truncate", "socket", "fd", "")),
])
def test_what_is_refused(changed: dict[str, object], said: str) -> None:
    found = refused(unit(**changed))
    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize("flag", ["privileged", "no-setuid", "ambient", "a-newer-one"])
def test_commands_past_the_sandbox(flag: str) -> None:
    one = Unit(UNIT.properties, (Command("ExecStartPre", "/bin/x", frozenset({flag})),))
    assert [flag in text and "ExecStartPre= has /bin/x" in text for text in refused(one)] == [True]


# who


def test_uid_0_by_another_name() -> None:
    assert "runs as root" in refused(unit(User="toor"), replace(HOST, uid=0))[0]


def test_a_user_who_is_not_there() -> None:
    assert refused(UNIT, replace(HOST, uid=-1)) == ["it runs as crew, and there is no such user"]


@pytest.mark.parametrize(("changed", "said"), [
    ({"gids": frozenset({GID, 0})}, "it has the group root, by Group=, SupplementaryGroups= or as a member"),
    ({"gids": frozenset({702, GID, 700})}, "it has Weir's own group weir, weir-approvers"),
    ({"unknown": ("later",)}, "it names the group later, which is not there"),
])
def test_groups_by_number(changed: dict[str, object], said: str) -> None:
    for one, host in ((UNIT, HOST), (DYNAMIC, NOBODY)):
        found = refused(one, replace(host, **changed))  # type: ignore[arg-type]
        assert len(found) == 1
        assert said in found[0]


@pytest.mark.parametrize(("user", "uid", "said"), [
    ("root", 0, "User=root is an account of the host's, and that is what it would run as"),
    ("crew", CREW, "User=crew is an account of the host's"), ("other", 1000, "User=other is an account of the host's"),
    ("0", 0, "is a number"), ("61200", -1, "is a number"),
    ("stranger", -1, "neither its own name nor among the `users`"), ("", -1, "neither its own name"),
    ("stranger", 61200, "neither its own name"),
])
def test_dynamic_user_is_no_way_past_the_users(user: str, uid: int, said: str) -> None:
    found = refused(unit(DYNAMIC, User=user), replace(NOBODY, uid=uid))
    assert len(found) == 1
    assert said in found[0]


# what systemd does as root


def at(path: str, **what: object) -> Host:
    return replace(HOST, places={path: Place(**{"rooted": True, "real": path, **what})})  # type: ignore[arg-type]


def reads(path: str) -> tuple[Unit, ...]:
    return (unit(EnvironmentFiles=((path, True),)), unit(LoadCredential=(("key", path),)),
            unit(LoadCredentialEncrypted=(("key", path),)))


@pytest.mark.parametrize(("path", "what", "said"), [
    ("/etc/crew.env", {"kind": "file", "uid": 0}, ""), ("/etc/none.env", {}, ""),
    ("/etc/crew.env", {"kind": "file", "uid": CREW}, ""),
    ("/home/crew/.env", {"rooted": False, "kind": "file"}, "not root alone decides what is there"),
    ("/etc/crew.d", {"kind": "directory"}, "not root alone"), ("/run/vault.sock", {"kind": "other"}, "not root alone"),
    ("/etc/crew*.env", {}, "not root alone"),
    ("/etc/weir/credentials/orders", {"kind": "file"}, "is Weir's own"), ("/var/lib/weir", {}, "is Weir's own"),
    ("/etc/link", {"kind": "file", "real": "/etc/weir/weir.toml"}, "is Weir's own"),
])
def test_what_systemd_reads_for_it(path: str, what: dict[str, object], said: str) -> None:
    for one in reads(path):
        found = refused(one, at(path, **what))
        assert [said in text for text in found] == [True] if said else found == []
    assert not said or refused(reads(path)[0]), "a path that was not looked at"


def test_credentials_that_are_no_paths() -> None:
    assert refused(unit(LoadCredential=(("key", "name"), ("other", "")))) == []


TREE = {"kind": "directory", "uid": CREW}


@pytest.mark.parametrize(("name", "word", "top"), [
    ("StateDirectory", "crew", "/var/lib"), ("CacheDirectory", "crew/sub", "/var/cache"),
    ("LogsDirectory", "crew", "/var/log"), ("RuntimeDirectory", "crew", "/run"),
    ("ConfigurationDirectory", "crew", "/etc")])
@pytest.mark.parametrize(("what", "said"), [
    ({}, ""), (TREE, ""), ({**TREE, "uid": 33}, "which is there and not its own: systemd gives it to the unit"),
    ({**TREE, "kind": "file"}, "not its own"), ({**TREE, "real": "/srv/x"}, "not its own"),
    ({"rooted": False}, "not root alone decides what that name is"),
])
def test_directories_of_its_own(name: str, word: str, top: str, what: dict[str, object], said: str) -> None:
    found = refused(unit(**{name: (word,)}), at(f"{top}/{word}", **what))
    assert [said in text for text in found] == [True] if said else found == []


@pytest.mark.parametrize(("name", "word", "path", "said"), [
    ("StateDirectory", "weir", "/var/lib/weir", "is /var/lib/weir, which is Weir's own"),
    ("StateDirectory", "weir/units", "/var/lib/weir/units", "which is Weir's own"),
    ("RuntimeDirectory", "weir", "/run/weir", "which is Weir's own"),
    ("ConfigurationDirectory", "weir/credentials", "/etc/weir/credentials", "which is Weir's own"),
    ("RuntimeDirectory", "postgresql", "/run/postgresql", "where a registered database listens"),
    ("StateDirectory", ".", "/var/lib/.", "not one directory"),
    ("StateDirectory", "a/../../../etc", "/var/lib/a/../../../etc", "not one directory"),
])
def test_directories_that_are_not_for_it(name: str, word: str, path: str, said: str) -> None:
    found = refused(unit(**{name: (word,)}), at(path))
    assert [said in text for text in found] == [True]


def test_a_directory_of_roots() -> None:
    """Nobody is made its owner below /etc."""
    assert refused(unit(ConfigurationDirectory=("crew",)), at("/etc/crew", kind="directory", uid=0)) == []
    assert refused(unit(StateDirectory=("crew",)), at("/var/lib/crew", kind="directory", uid=0))


def test_links_of_its_own() -> None:
    one = unit(StateDirectory=("crew",), StateDirectorySymlink=(("crew", "weir", 0),))
    assert ["which is Weir's own" in text for text in refused(one, replace(HOST, places={
        "/var/lib/crew": Place(True), "/var/lib/weir": Place(True)}))] == [True]
    one = unit(StateDirectory=("crew",), StateDirectorySymlink=(("crew", "short", 0),))
    tree = Place(True, "directory", "/var/lib/crew", CREW)
    assert refused(one, replace(HOST, places={"/var/lib/crew": tree, "/var/lib/short": tree})) == []
    led = replace(tree, real="/var/lib/others")
    assert refused(one, replace(HOST, places={"/var/lib/crew": tree, "/var/lib/short": led}))


def test_one_directory_within_another() -> None:
    """The outer one is its own: it could make the inner one a link."""
    host = replace(HOST, places={"/run/crew": Place(True), "/run/crew/sub": Place(True)})
    assert ["within another directory of its own" in text
            for text in refused(unit(RuntimeDirectory=("crew", "crew/sub")), host)] == [True]


@pytest.mark.parametrize(("what", "right"), [
    ({"uid": 61200}, True), ({"uid": 61200, "user": "crew"}, True), ({"uid": 61200, "user": "other"}, False),
    ({"uid": 1000}, False), ({"uid": 0}, False), ({"uid": 61200, "kind": "file"}, False),
])
def test_directories_of_a_user_of_systemds(what: dict[str, object], right: bool) -> None:
    """/var/lib/crew is a link to /var/lib/private/crew."""
    real = "/var/lib/private/crew"
    tree = Place(**{"rooted": True, "kind": "directory", "real": real, **what})  # type: ignore[arg-type]
    host = replace(NOBODY, places={"/var/lib/crew": tree, real: tree})
    assert (refused(unit(DYNAMIC, StateDirectory=("crew",)), host) == []) == right


@pytest.mark.parametrize(("listens", "said"), [
    (("Stream", "/run/crew.sock"), ""), (("Datagram", "@crew"), ""), (("SequentialPacket", "/run/x"), ""),
    (("Stream", "127.0.0.1:80"), "made outside of the slice"), (("Stream", "[::]:80"), "made outside of the slice"),
    (("Stream", "vsock::9"), "made outside of the slice"),
    (("Special", "/dev/mem"), "crew.socket opens /dev/mem (Special) as root"), (("FIFO", "/run/x"), "(FIFO)"),
    (("MessageQueue", "/x"), "(MessageQueue)"), (("USBFunction", "/x"), "(USBFunction)"),
    (("Netlink", "route 0"), "(Netlink)"),
])
def test_sockets_that_it_is_given(listens: tuple[str, str], said: str) -> None:
    found = refused(UNIT, replace(HOST, sockets={"crew.socket": (listens,)}))
    assert [said in text for text in found] == [True] if said else found == []


def test_overlap() -> None:
    assert overlap("/a", "/a/b")
    assert overlap("/a/b", "/a")
    assert not overlap("/a", "/ab")
    assert not overlap("", "/a")
