"""Who may start which workload as whom, and what the command is given: a decision without a host."""
from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec
import pytest

from agent.contract.control import Run
from agent.credential.trust import NO_TRUST, SYSTEM_BUNDLE, Trust
from agent.workload.launch import Launch, check_launch, parse_launch, render_frame
from agent.workload.view import Bind
from agent.workload.workloads import TRUST_VARIABLES, Account, Refusal, Surroundings, environment, expand, resolve_run

ANN = Account("ann", 1000, 1000, (1000, 27, 0, 990), "/home/ann")
BOB = Account("bob", 1001, 1001, (1001,), "/home/bob", "/bin/bash")
ROOT = Account("root", 0, 0, (0,), "/root")
TRUST = Trust("/run/weir/trust/roots.pem", "/run/weir/trust/weir.pem", SYSTEM_BUNDLE, (), {})
AROUND = Surroundings(
    number=7, owner=70, cgroup="/sys/fs/cgroup/weir.slice/crew-7", hidden=("/etc/weir", "/run/weir", "/var/lib/weir"),
    withheld=frozenset({990}), trust=NO_TRUST)


@dataclass(frozen=True)
class Configured:
    name: str = "crew"
    users: tuple[str, ...] = ("ann", "bob")
    directories: tuple[str, ...] = ("~", "~/work", "/srv/data/")
    read_only: tuple[str, ...] = ("/opt/venv",)
    root: bool = False
    network: str = "private"


CREW = Configured()
REQUEST = Run("crew", "", (b"psql", b"-c", b"select \xff"), b"/home/ann/work", {b"PATH": b"/usr/bin"}, True, 24, 80)


def request(**changes: object) -> Run:
    return msgspec.structs.replace(REQUEST, **changes)


def accepted(given: Run = REQUEST, workload: Configured | None = CREW, caller: Account = ANN,
             named: Account | None = None, around: Surroundings = AROUND) -> Launch:
    found = resolve_run(given, workload, caller, named, around)
    assert isinstance(found, Launch), found
    check_launch(found)
    return found


def refused(given: Run = REQUEST, workload: Configured | None = CREW, caller: Account = ANN,
            named: Account | None = None, around: Surroundings = AROUND) -> str:
    found = resolve_run(given, workload, caller, named, around)
    assert isinstance(found, Refusal), found
    assert found.code == 125
    return found.text


# who


def test_the_caller_as_it_is() -> None:
    launch = accepted()
    assert (launch.uid, launch.gid, launch.number, launch.owner) == (1000, 1000, 7, 70)
    assert (launch.argv, launch.cwd, launch.cgroup) == (REQUEST.argv, REQUEST.cwd, AROUND.cgroup)
    assert (launch.tty, launch.rows, launch.columns, launch.workload) == (True, 24, 80, "crew")


@pytest.mark.parametrize(("configured", "asked", "caller", "given"), [
    ("private", "", ANN, "private"), ("private", "private", ANN, "private"), ("private", "host", ROOT, "host"),
    ("host", "", ANN, "host"), ("host", "private", ANN, "private"), ("host", "host", ANN, "host"),
])
def test_which_network(configured: str, asked: str, caller: Account, given: str) -> None:
    workload = replace(CREW, network=configured)
    named = ANN if caller is ROOT else None
    assert accepted(request(network=asked, user=named.name if named else ""), workload, caller, named).network == given


def test_the_hosts_network_is_the_operators_to_permit() -> None:
    assert "only root may start it in the host's" in refused(request(network="host"))
    assert "there is no network 'none'" in refused(request(network="none"))


def test_neither_roots_group_nor_weirs_own_are_kept() -> None:
    assert accepted().groups == (1000, 27)


def test_the_launch_survives_its_frame() -> None:
    launch = accepted()
    assert parse_launch(render_frame(launch)[4:]) == launch


def test_a_caller_may_name_himself() -> None:
    assert accepted(request(user="ann"), named=ANN).uid == 1000


@pytest.mark.parametrize(("given", "workload", "caller", "named", "word"), [
    (request(workload="x"), None, ANN, None, "no workload 'x'"),
    (REQUEST, Configured(users=("bob",)), ANN, None, "not among the `users`"),
    (REQUEST, Configured(users=()), ANN, None, "not among the `users`"),
    (REQUEST, Configured(users=("an", "annn", "ANN", "1000")), ANN, None, "not among the `users`"),
    (request(user="nosuch"), CREW, ROOT, None, "no user 'nosuch'"),
    (request(user="nosuch"), CREW, ANN, None, "no user 'nosuch'"),
    (request(user="bob"), CREW, ANN, BOB, "only root"),
    (request(user="root"), CREW, ANN, ROOT, "only root"),
    (REQUEST, Configured(users=("root",)), ROOT, None, "--user"),
    (request(user="root"), Configured(users=("root",)), ROOT, ROOT, "never runs as root"),
    (request(user="bob"), Configured(users=("ann",)), ROOT, BOB, "not among the `users`"),
    (request(user="bob"), CREW, ROOT, replace(BOB, gid=0), "uid or gid 0"),
    (REQUEST, CREW, replace(ANN, gid=0), None, "uid or gid 0"),
    (REQUEST, CREW, replace(ANN, home="home/ann"), None, "home directory"),
    (REQUEST, CREW, replace(ANN, home=""), None, "home directory"),
    (REQUEST, CREW, replace(ANN, home="/home/a\nb"), None, "home directory"),
    # Another account of uid 0, whatever its name.
    (request(user="toor"), Configured(users=("toor",)), ROOT, replace(ROOT, name="toor"), "never runs as root"),
])
def test_refused(given: Run, workload: Configured | None, caller: Account, named: Account | None, word: str) -> None:
    assert word in refused(given, workload, caller, named)


def test_root_starts_it_for_somebody() -> None:
    env = {b"PATH": b"/usr/bin", b"HOME": b"/root", b"USER": b"root", b"SUDO_USER": b"eve", b"MAIL": b"/m",
           b"XDG_CACHE_HOME": b"/root/.cache", b"LANG": b"C"}
    launch = accepted(request(user="bob", cwd=b"/root", env=env), caller=ROOT, named=BOB)
    assert (launch.uid, launch.gid, launch.groups, launch.cwd) == (1001, 1001, (1001,), b"/home/bob")
    assert launch.env == {b"PATH": b"/usr/bin", b"LANG": b"C", b"HOME": b"/home/bob", b"USER": b"bob",
                          b"LOGNAME": b"bob", b"SHELL": b"/bin/bash"}
    assert launch.view.home == "/home/bob"


def test_roots_directory_stays_where_the_view_shows_it() -> None:
    assert accepted(request(user="bob", cwd=b"/srv/data/x"), caller=ROOT, named=BOB).cwd == b"/srv/data/x"


# malformed


@pytest.mark.parametrize("given", [
    request(argv=()), request(argv=(b"",)), request(argv=(b"a\0b",)), request(argv=(b"a", b"\0")),
    request(env={b"": b"x"}), request(env={b"a=b": b"x"}), request(env={b"a\0": b"x"}), request(env={b"a": b"x\0y"}),
    request(cwd=b""), request(cwd=b"work"), request(cwd=b"/a\0b"), request(argv=(b"x" * (1 << 21), b"y")),
    request(env={b"a": b"x" * (1 << 21)}), request(env={b"%d" % number: b"" for number in range(4097)}),
])
def test_malformed(given: Run) -> None:
    assert refused(given)


def test_as_much_as_is_allowed() -> None:
    assert len(accepted(request(env={b"%d" % number: b"" for number in range(4096)})).env) == 4096


# environment


def test_what_changes_the_c_library_or_names_a_socket_of_the_host_goes() -> None:
    dropped = (b"LD_PRELOAD", b"LD_AUDIT", b"LD_", b"GCONV_PATH", b"GLIBC_TUNABLES", b"RES_OPTIONS", b"HOSTALIASES",
               b"SSH_AUTH_SOCK", b"DBUS_SESSION_BUS_ADDRESS", b"XDG_RUNTIME_DIR", b"NOTIFY_SOCKET", b"LISTEN_FDS")
    kept = {b"LD_LIBRARY_PATH": b"/opt/lib", b"PGHOST": b"db", b"PYTHONPATH": b"/opt", b"ld_preload": b"x",
            b"SUDO_USER": b"eve", b"ODD": b"\xff=\n"}
    assert environment(dict.fromkeys(dropped, b"x") | kept, ANN, ANN, NO_TRUST) == kept


def test_trust_variables_name_the_bundle_as_it_shows() -> None:
    env = environment({}, ANN, ANN, TRUST)
    assert env == {name: SYSTEM_BUNDLE.encode() for name in TRUST_VARIABLES}
    # To libpq a root file that exists turns `require` into verification: that is the client's own choice.
    assert b"PGSSLROOTCERT" not in env
    assert b"SSL_CERT_DIR" not in env


def test_the_callers_own_choice_stays_and_is_added_to() -> None:
    env = {b"REQUESTS_CA_BUNDLE": b"/home/ann/own.pem", b"PGSSLROOTCERT": b"/home/ann/pg.pem",
           b"SSL_CERT_FILE": b"relative.pem", b"CURL_CA_BUNDLE": b"/etc/a\nb", b"PIP_CERT": SYSTEM_BUNDLE.encode()}
    launch = accepted(request(env=env), around=replace(AROUND, trust=TRUST))
    assert {name: launch.env[name] for name in env} == env
    added = {bind.target for bind in launch.view.binds if bind.append}
    assert added == {"/home/ann/own.pem", "/home/ann/pg.pem", "/home/ann/.postgresql/root.crt"}
    # What the variables name is added to, never replaced.
    assert all(bind.source == TRUST.authorities for bind in launch.view.binds if bind.append)


def test_libpqs_word_for_the_systems_roots_is_no_file() -> None:
    launch = accepted(request(env={b"PGSSLROOTCERT": b"system"}), around=replace(AROUND, trust=TRUST))
    assert launch.env[b"PGSSLROOTCERT"] == b"system"
    assert not [bind for bind in launch.view.binds if bind.target.endswith("system")]


def test_without_targets_nothing_of_trust_is_touched() -> None:
    env = {b"SSL_CERT_FILE": b"/home/ann/own.pem"}
    launch = accepted(request(env=env))
    assert launch.env == env
    assert launch.view.binds == ()


# view


def test_the_view_is_the_workloads() -> None:
    view = accepted(around=replace(AROUND, resolv="/run/weir/resolv.conf", hosts="/run/weir/hosts")).view
    assert view.home == "/home/ann"
    assert view.writable == ("/home/ann", "/home/ann/work", "/srv/data")
    assert view.readable == ("/opt/venv",)
    assert view.hidden == AROUND.hidden
    assert view.binds == (Bind("/run/weir/resolv.conf", "/etc/resolv.conf", absent="make"),
                          Bind("/run/weir/hosts", "/etc/hosts", absent="make"))


@pytest.mark.parametrize(("path", "full"), [
    ("~", ("/home/ann",)), ("~/a", ("/home/ann/a",)), ("~bob", ()), ("a", ()), ("", ()), ("/srv//x/../y", ("/srv/y",)),
    ("/x/~", ("/x/~",)), ("~/..", ("/home",)),
])
def test_expand(path: str, full: tuple[str, ...]) -> None:
    assert expand((path, path), "/home/ann/") == full


# the launcher looks again


@pytest.mark.parametrize("changes", [
    {"uid": 0}, {"uid": -1}, {"gid": 0}, {"groups": (1000, 0)}, {"argv": ()}, {"argv": (b"a\0",)}, {"env": {b"": b""}},
    {"env": {b"a=": b""}}, {"env": {b"a": b"\0"}}, {"cgroup": "weir.slice"}, {"cgroup": "/sys/../x"}, {"cwd": b"x"},
    {"owner": -1}, {"owner": 0xFFFFFFFF},
])
def test_a_launch_that_may_not_be_carried_out(changes: dict[str, object]) -> None:
    launch = accepted()
    with pytest.raises(ValueError):
        check_launch(msgspec.structs.replace(launch, **changes))


# what is shown of it


def test_root_inside_is_the_workloads_to_say() -> None:
    assert not accepted().root
    launch = accepted(workload=replace(CREW, root=True))
    assert (launch.root, launch.uid, launch.gid) == (True, 1000, 1000)


def test_no_directory_of_a_workload_holds_a_databases_socket() -> None:
    around = replace(AROUND, socket_directory="/run/weir/sockets", sockets=(("/run/p/a", "orders"),),
                     real_sockets=("/run/p/a", "/srv/pg/real"))
    view = accepted(around=around).view
    assert (view.socket_directory, view.sockets) == ("/run/weir/sockets", (("/run/p/a", "orders"),))
    assert view.hidden[-2:] == ("/run/p/a", "/srv/pg/real"), "whatever leads there"
    for directory in ("/srv", "/srv/pg", "/run/p"):
        said = refused(workload=replace(CREW, read_only=(directory,)), around=around)
        assert "a registered target's own socket" in said
