"""What is found on this host: real processes with real connections, and units of a systemd of the test's own."""
from __future__ import annotations

import os
import pty
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

import pytest
from click.testing import CliRunner
from privatesystemd import PrivateSystemd, missing, private_systemd
from sources import open_way

from agent.cli import weir
from agent.init import finding, recorded, talking
from agent.init.files import read_file
from agent.init.finding import find
from agent.init.findings import COMMAND, OTHER, UNIT, Crew, Peer
from agent.init.home import Said
from agent.init.recorded import asked
from agent.init.talking import peers_of
from agent.layout import cgroup_root
from agent.processes import python_module, unprivileged
from agent.settings.check import check_policies, load_config
from agent.settings.credential_table import SSH
from agent.unit import systemd

NOBODY = pwd.getpwnam("nobody")
SCRIPT = """
import socket, sys
{imports}
served = socket.create_server(("127.0.0.1", 0))
itself = socket.create_connection(served.getsockname())
held = [socket.create_connection(("127.0.0.1", int(port))) for port in sys.argv[1:]]
print(served.getsockname()[1], flush=True)
sys.stdin.read()
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it looks at processes of other users")


@contextmanager
def running(directory: Path, imports: str, *ports: int, **environment: str) -> Iterator[int]:
    """A program of nobody's with a connection to each port and a server of its own, whose port this is."""
    open_way(directory)
    script = directory / "main.py"
    script.write_text(SCRIPT.format(imports=imports))
    with subprocess.Popen(
        ["/usr/bin/python3", "main.py", *map(str, ports)], cwd=directory, user=NOBODY.pw_uid, group=NOBODY.pw_gid,
        extra_groups=[], env={"PATH": "/usr/bin:/bin", **environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.communicate()


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def of_nobody(crews: tuple[Crew, ...]) -> Crew:
    [found] = [one for one in crews if one.name == "nobody"]
    return found


CREWAI = "try:\n    import crewai\nexcept ImportError:\n    pass"


def test_a_process_that_looks_like_a_crew_and_whom_it_talks_to(tmp_path: Path, server: socket.socket) -> None:
    port = server.getsockname()[1]
    with running(tmp_path, CREWAI, port, DATABASE_URL=f"postgresql://svc:hunter2@localhost:{port}/shop",
                 OPENAI_BASE_URL="http://10.9.9.9:8000/v1") as own:
        found = of_nobody(find((), (), None).crews)
    assert (found.kind, found.user) == (COMMAND, "nobody")
    assert found.why.endswith("main.py imports crewai")
    assert str(tmp_path) in found.needs
    said = [(one.protocol, one.hosts, one.port, one.user, one.database) for one in found.peers]
    assert ("postgresql", ("localhost",), port, "svc", "shop") in said
    assert (OTHER, ("127.0.0.1",), port, "", "") in said
    assert (OTHER, ("10.9.9.9",), 8000, "", "") in said
    assert not [one for one in found.peers if one.port == own], "its own server is nobody that it talks to"
    [database] = [one for one in found.peers if one.protocol == "postgresql"]
    assert "127.0.0.1" in database.addresses
    assert [one.value for one in database.secrets] == ["hunter2"]
    assert "hunter2" not in repr(found)


def test_what_looks_like_none_is_found_where_it_is_named(tmp_path: Path, server: socket.socket) -> None:
    port = server.getsockname()[1]
    with running(tmp_path, "", port):
        assert not [one for one in find((), (), None).crews if str(tmp_path) in one.needs]
        found = of_nobody(find((), ("nobody",), None).crews)
    assert found.why == "you named it"
    assert port in [one.port for one in found.peers]


def test_a_user_that_is_not_there_and_root() -> None:
    found = find((), ("no-such-user", "root", "nobody"), None)
    assert [one.name for one in found.crews] == ["nobody"]
    assert "there is no user 'no-such-user' on this host" in found.notes
    assert any(note.startswith("user root: a workload never runs as root") for note in found.notes)


def test_a_file_that_waits_for_its_reader_is_not_read(tmp_path: Path) -> None:
    """The kernel's log, by a link of a crew's as well; a FIFO; a device."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/proc/kmsg")
    (tmp_path / "proc").symlink_to("/proc")
    (tmp_path / "file").write_text("x")
    for path in ("/proc/kmsg", "/sys/kernel/uevent_seqnum", "/dev/zero", "fifo", "link", "proc/kmsg", "."):
        assert read_file(str(tmp_path / path)) == b"", path
    assert read_file(str(tmp_path / "file")) == b"x"
    assert read_file(str(tmp_path / "file"), {NOBODY.pw_uid}) == b""


def test_an_environment_of_any_size_and_bytes(tmp_path: Path, server: socket.socket) -> None:
    port = server.getsockname()[1]
    more = {f"X{number}": "postgresql://h/" + "d" * 100_000 for number in range(8)}
    with running(tmp_path, CREWAI, port, EVIL='postgresql://h"\n[[target]]/d', URL="postgresql://db.lab/\x1b[2J",
                 BYTES="\udcff\udcfe", **more):
        found = of_nobody(find((), (), None).crews)
    assert [(one.hosts, one.database) for one in found.peers if one.protocol] == [(("db.lab",), "")]


def test_files_are_read_as_the_user_whose_they_are(tmp_path: Path) -> None:
    """Root's own is not read for who names it in KUBECONFIG."""
    open_way(tmp_path)
    secret = tmp_path / "root.yaml"
    secret.write_text("clusters: [{name: c, cluster: {server: 'https://secret.lab'}}]\n"
                      "contexts: [{name: x, context: {cluster: c}}]\n")
    command = unprivileged([*python_module("agent.init.home"), str(secret)], "nobody", role="look")
    notes: list[str] = []
    secret.chmod(0o644)
    said = asked(command, Said, "files are", notes)
    assert (notes, [one.hosts for one in said.peers]) == ([], [("secret.lab",)])
    secret.chmod(0o600)
    said = asked(command, Said, "files are", notes)
    assert said.peers == ()
    assert said.notes == (f"{secret} is not read: Permission denied",)


@pytest.mark.parametrize("program", ["print('[1, 2')", "raise SystemExit('\\x1b[2Jno')", "print('x' * (9 << 20))"])
def test_an_answer_that_is_none(program: str) -> None:
    notes: list[str] = []
    assert asked([sys.executable, "-c", program], Said, "files are", notes) is None
    assert len(notes) == 1
    assert notes[0].isprintable()


def test_who_holds_the_pipe_of_what_was_asked_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:
    """Processes of the crew's user may open it by /proc."""
    monkeypatch.setattr(recorded, "_PATIENCE", 1.0)
    held = tmp_path / "pid"
    program = ("import subprocess, sys; h = subprocess.Popen(['sleep', '300']); "
               f"open({str(held)!r}, 'w').write(str(h.pid))")
    notes: list[str] = []
    try:
        with bounded(60):
            assert asked([sys.executable, "-c", program], Said, "files are", notes) is None
            assert asked([sys.executable, "-c", "import os, time; os.close(1); time.sleep(300)"], Said, "files are",
                         notes) is None
    finally:
        os.kill(int(held.read_text()), signal.SIGKILL)
    assert len(notes) == 2


def test_what_is_asked_as_a_user_has_no_way_to_the_terminal_of_root(tmp_path: Path) -> None:
    """Processes of that user may make it do anything."""
    asks = ("import sys; sys.path.insert(0, sys.argv[1]); from agent.init.recorded import asked; "
            "print(asked(['/bin/sh', '-c', '(: </dev/tty) 2>/dev/null && echo true || echo false'], bool, 'x', []))")
    leader, follower = pty.openpty()
    try:
        shell = f"exec 9<>{os.ttyname(follower)}; (: </dev/tty) && exec \"$@\""
        done = subprocess.run(["sh", "-c", shell, "sh", sys.executable, "-c", asks,
                               str(Path(__file__).resolve().parents[3])], start_new_session=True, capture_output=True,
                              text=True, timeout=60)
    finally:
        os.close(leader)
        os.close(follower)
    assert done.stdout == "False\n", done.stderr


@contextmanager
def bounded(seconds: int) -> Iterator[None]:
    """It fails, and does not wait for ever."""
    def late(*_: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("program", ["/" + "a" * 5000, "/" + "a/" * 3000 + "b", "/\udcff/b/c", "/", "relative/b"])
def test_a_process_that_says_any_path_of_itself_is_no_mistake(program: str) -> None:
    assert finding._packages(program) == ()


def test_an_environment_with_more_packages_than_there_are_is_looked_at_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(finding, "LISTED", 50)
    (tmp_path / "pyvenv.cfg").touch()
    for number in range(100):
        site = tmp_path / f"lib/python3.{number}/site-packages"
        site.mkdir(parents=True)
        for name in range(2):
            (site / f"x{name}").mkdir()
    assert len(finding._packages(f"{tmp_path}/bin/python")) == 50
    for number in range(100):
        (tmp_path / f"lib/python3.0/site-packages/y{number}").mkdir()
    assert len(finding._packages(f"{tmp_path}/bin/python")) <= 100


def test_proc_is_not_read_wherever_it_is_mounted(tmp_path: Path) -> None:
    """As in a chroot."""
    made = subprocess.run(
        ["unshare", "-m", "sh", "-c", 'mount -t proc proc "$1" && exec "$2" -I -c "$3" "$1" "$4"', "sh", str(tmp_path),
         sys.executable, "import sys; sys.path.insert(0, sys.argv[2]); from agent.init.files import read_file; "
         "print([read_file(f'{sys.argv[1]}/{one}') for one in ('kmsg', 'self/environ', 'version')])",
         str(Path(__file__).resolve().parents[3])], capture_output=True, text=True, timeout=60)
    if "mount:" in made.stderr:
        pytest.skip("no file system can be mounted here")
    assert made.stdout == "[b'', b'', b'']\n", made.stderr


def test_what_root_has_written_into_a_unit_comes_before_what_the_crew_says_of_itself(
    tmp_path: Path, server: socket.socket,
) -> None:
    """As many variables as it likes."""
    port = server.getsockname()[1]
    more = {f"A{number}": "x" for number in range(5000)}
    with running(tmp_path, CREWAI, port, A="postgresql://svc@evil.lab/shop", **more):
        peers = peers_of("nobody", [in_directory(tmp_path)], {"DATABASE_URL": "postgresql://svc@db.lab/shop"}, None,
                         [], [])
    assert [one.hosts for one in peers if one.protocol] == [("db.lab",), ("evil.lab",)]


def test_a_password_is_for_the_host_of_its_own_process(tmp_path: Path, server: socket.socket) -> None:
    """Debian's psql, which a crew may start, is told its PGHOST by the wrapper."""
    port = server.getsockname()[1]
    (tmp_path / "crew").mkdir()
    (tmp_path / "psql").mkdir()
    with (running(tmp_path / "crew", CREWAI, port, PGHOST="db.lab", PGUSER="svc", PGPASSWORD="hunter2"),
          running(tmp_path / "psql", CREWAI, port, PGHOST="/run/postgresql", PGPORT="5433", PGUSER="ann")):
        pids = [in_directory(tmp_path / one) for one in ("crew", "psql")]
        of_both = peers_of("nobody", pids, {}, None, [], [])
        of_unit = peers_of("nobody", pids, {"PGHOST": "db.lab", "PGPORT": "5432"}, None, [], [])
    assert [(one.hosts, one.socket, one.user, [secret.value for secret in one.secrets]) for one in of_both] == [
        (("db.lab",), "", "svc", ["hunter2"]), ((), "/run/postgresql/.s.PGSQL.5433", "ann", [])]
    assert [(one.hosts, one.user) for one in of_unit] == [(("db.lab",), "svc")]


def test_of_places_without_end_some_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talking, "PEERS", 3)
    notes: list[str] = []
    many = {f"URL{number}": f"postgresql://db{number}.lab/d" for number in range(5)}
    assert [one.hosts for one in peers_of("x", [], many, None, [], notes)] == [
        ("db0.lab",), ("db1.lab",), ("db2.lab",)]
    assert notes == ["x: it is known to talk to 5 places; 3 of them are looked at"]


def test_of_hosts_without_end_some_are_looked_for_in_known_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG10eEI6aW+ZfURANj2dwOHwSyiuIcF30QoBCZWZmE40"
    hosts = [f"127.0.0.{number}" for number in range(1, 40)]
    monkeypatch.setattr(talking, "asked", lambda *_: Said((), f"{','.join(hosts)} {key}\n" + "#" * (8 << 20)))
    found = list(talking._of_home(NOBODY, [Peer(SSH, (host,), 22, ("open",)) for host in hosts], "", []))
    assert [one.hosts for one in found] == [(host,) for host in hosts[:talking.SSH_HOSTS]]
    assert {one.keys for one in found} == {(key,)}


@contextmanager
def placed(name: str, pid: int) -> Iterator[None]:
    """The process in a cgroup as systemd would have made it; it has to end before this does."""
    made = [path for path in (cgroup_root() / name, *(cgroup_root() / name).parents) if not path.exists()]
    (cgroup_root() / name).mkdir(parents=True)
    try:
        (cgroup_root() / name / "cgroup.procs").write_text(str(pid))
        yield
        (cgroup_root() / "cgroup.procs").write_text(str(pid))
    finally:
        for path in made:
            path.rmdir()


def in_directory(directory: Path) -> int:
    """Who runs there."""
    for path in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            if path.readlink() == directory:
                return int(path.parent.name)
    raise AssertionError(f"nobody runs in {directory}")


def test_a_unit_of_the_users_own_manager_is_named_as_what_cannot_be(tmp_path: Path) -> None:
    with running(tmp_path, CREWAI) as _, placed("user.slice/user@65534.service/crew-x.service", in_directory(tmp_path)):
        found = find((), (), None)
    assert of_nobody(found.crews).kind == COMMAND
    assert any(note.startswith("crew-x.service is a unit of nobody's own manager") for note in found.notes)


# units


@pytest.fixture(scope="module")
def manager() -> Iterator[PrivateSystemd]:
    if why := missing():
        pytest.skip(why)
    with private_systemd() as made, pytest.MonkeyPatch.context() as patched:
        patched.setattr(systemd, "BUS", (f"--address={made.address}",))
        yield made


def unit(manager: PrivateSystemd, name: str, *lines: str) -> None:
    manager.write(name, "\n".join(("[Service]", *lines, "")))


@pytest.fixture
def rooted() -> Iterator[Path]:
    """A directory that root alone decides on: pytest's is below /tmp."""
    made = Path(mkdtemp(prefix="weir-test-", dir="/var"))
    yield made
    shutil.rmtree(made)


def test_units(manager: PrivateSystemd, tmp_path: Path, rooted: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text("from crewai import Crew\n")
    file = rooted / "env"
    file.write_text('PGHOST="10.1.1.1"\nPGPASSWORD=hunter2\n')
    unit(manager, "crew.service", f"ExecStart=/usr/bin/python3 {script}", "User=nobody", f"EnvironmentFile={file}",
         'Environment="DATABASE_URL=postgresql://svc:hunter2@db.lab/shop"')
    unit(manager, "web.service", "ExecStart=/usr/sbin/nginx")
    unit(manager, "template@.service", f"ExecStart=/usr/bin/python3 {script}")
    manager.reload()
    found = find((), (), None)
    [crew] = [one for one in found.crews if one.kind == UNIT]
    assert (crew.name, crew.user, crew.why) == ("crew.service", "nobody", f"{script} imports crewai")
    assert [(one.hosts, one.database, one.secrets[0].place) for one in crew.peers] == [
        (("db.lab",), "shop", "DATABASE_URL of crew.service"), (("10.1.1.1",), "", "PGPASSWORD of crew.service")]
    unit(manager, "web.service", "ExecStart=/usr/sbin/nginx", "DynamicUser=yes")
    unit(manager, "crew.service", "ExecStart=/usr/bin/crewai run")
    manager.reload()
    [named] = find(("web.service",), (), None).crews
    assert (named.name, named.user, named.why) == ("web.service", "", "you named it")
    of_root = find((), (), None)
    assert not [one for one in of_root.crews if one.kind == UNIT]
    assert any("crew.service: a workload never runs as root" in note for note in of_root.notes)
    for name in ("crew.service", "web.service", "template@.service"):
        manager.remove(name)


def test_a_packaged_unit_is_found_by_its_process(
    manager: PrivateSystemd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(finding, "_PACKAGED", (str(manager.units),))
    unit(manager, "packaged.service", "ExecStart=/usr/bin/packaged", "User=nobody")
    manager.reload()
    assert not [one for one in find((), (), None).crews if one.kind == UNIT]
    with running(tmp_path, CREWAI), placed("system.slice/packaged.service", in_directory(tmp_path)), \
            monkeypatch.context() as patched:
        # Its systemd starts nothing, and so does not say where it runs.
        patched.setattr(finding, "_pids_of", lambda unit: [in_directory(tmp_path)])
        found = find((), (), None).crews
    [crew] = [one for one in found if one.kind == UNIT]
    assert (crew.name, crew.user, crew.why) == ("packaged.service", "nobody", f"{tmp_path}/main.py imports crewai")
    assert not [one for one in found if one.name == "nobody"], "it is the unit's"
    manager.remove("packaged.service")


def test_an_environment_file_of_others_is_not_read(manager: PrivateSystemd, tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("PGHOST=10.1.1.1\n")
    os.chown(file, NOBODY.pw_uid, NOBODY.pw_gid)
    unit(manager, "crew.service", "ExecStart=/usr/bin/crewai run", "User=nobody", f"EnvironmentFile=-{file}")
    manager.reload()
    found = find(("crew.service",), (), None)
    assert found.crews[0].peers == ()
    assert any(f"EnvironmentFile= {file} is not read" in note for note in found.notes)
    manager.remove("crew.service")


@pytest.mark.parametrize(("name", "said"), [
    ("none-of-this.service", "systemd says not-found"), ("ssh.service", "the host's own"), ("x\n.service", "no name"),
    ("crew@.service", "is a template")])
def test_a_unit_that_can_be_none(manager: PrivateSystemd, name: str, said: str) -> None:
    found = find((name,), (), None)
    assert found.crews == ()
    assert any(said in note for note in found.notes)




def test_weir_init_of_a_unit(manager: PrivateSystemd, tmp_path: Path) -> None:
    """From a unit to its workload; what stands in the way of `weir adopt` is said before."""
    unit(manager, "crew.service", "ExecStart=/opt/crew/bin/crewai run", "User=nobody", "PAMName=login",
         "WorkingDirectory=/",
         'Environment="DATABASE_URL=postgresql://svc:hunter2@10.255.255.1/shop"')
    manager.reload()
    file = tmp_path / "etc" / "weir.toml"
    done = CliRunner().invoke(weir, ["--config", str(file), "init", "--yes", "--unit", "crew.service",
                                     "--take-credentials", "--egress", "record"])
    assert done.exit_code == 0, done.output
    assert "hunter2" not in done.output
    config = load_config(file)
    [workload] = config.workloads
    assert (workload.name, workload.unit, workload.users, workload.read_only, workload.egress) == (
        "crew", "crew.service", ("nobody",), ("/opt/crew",), "record")
    [target] = config.targets
    assert (target.name, target.hosts, target.credentials[0].user) == ("shop", ("10.255.255.1",), "svc")
    assert not check_policies(config)
    assert "note: weir adopt will refuse crew.service: PAMName=" in done.output
    assert f"sudo weir --config {file} adopt --running restart crew.service" in done.output
    manager.remove("crew.service")


def test_what_weir_init_has_written_weir_adopt_takes(manager: PrivateSystemd, tmp_path: Path, rooted: Path) -> None:
    (rooted / "bin").mkdir()
    (rooted / "bin/crewai").write_text("#!/bin/sh\n")
    rooted.chmod(0o755)
    unit(manager, "crew.service", f"ExecStart={rooted}/bin/crewai run", "User=nobody", "WorkingDirectory=/",
         "StandardOutput=journal", "StandardError=journal", 'Environment="PGHOST=10.255.255.1" "PGPASSWORD=x"')
    manager.write("weir-guard.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n")
    manager.reload()
    file = tmp_path / "etc" / "weir.toml"
    done = CliRunner().invoke(weir, ["--config", str(file), "init", "--yes", "--unit", "crew.service",
                                     "--take-credentials"])
    assert (done.exit_code, "will refuse" in done.output) == (0, False), done.output
    shown = CliRunner().invoke(weir, ["--config", str(file), "adopt", "--dry-run", "crew.service"])
    assert (shown.exit_code, f"BindReadOnlyPaths={rooted}" in shown.output) == (0, True), shown.output
    for name in ("crew.service", "weir-guard.service"):
        manager.remove(name)
