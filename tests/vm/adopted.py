"""Run inside the machine, as root: units of systemd's that `weir adopt` makes workloads.

Not collected by an ordinary run, like checks.py.  What arrives is for the server to say; each attempt is made first by
the same unit as it was before, and arrives.  In order: each check stands on those before it.
"""
from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import sqlite3
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
from escape.sink import Sink
from lab.hosts import wait_until
from lab.weir import prefix

from agent.techniques import Where, start_of

ETC, SLICE, UNITS, HERE = Path("/etc/weir"), Path("/sys/fs/cgroup/weir.slice"), Path("/etc/systemd/system"), Path(
    "/opt/crewtest")
UNIT, DYNAMIC = "crewtest.service", "crewdyn.service"
SERVER, ALLOWED, DATABASE = 7107, 7108, 5433
REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = f"""
[[egress]]
name = "allowed"
addresses = ["OWN"]
ports = [{ALLOWED}]
[[workload]]
name = "crewtest"
users = ["crew"]
directories = ["~"]
read_only = ["{HERE}"]
unit = "{UNIT}"
[[workload]]
name = "dynamic"
read_only = ["{HERE}"]
unit = "{DYNAMIC}"
[[target]]
name = "shop"
protocol = "postgresql"
hosts = ["127.0.0.1"]
port = {DATABASE}
tls = "disable"
trust = ["/etc/ssl/shop-ca.pem"]
[[target.credential]]
user = "svc"
password_file = "/etc/weir/credentials/shop"
"""
SERVICE = """
import json, os, pathlib, socket, sys, time, traceback
host, port, asked = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
asked.mkdir(exist_ok=True)
try:                                    # the very first thing that it does
    first = socket.create_connection((host, port), 3)
    first.sendall(b"first-" + sys.argv[4].encode() + b"\\n")
except OSError:
    first = None
while True:
    for path in sorted(asked.glob("*.py")):
        said = {"code": 0, "said": None}
        try:
            space = {"host": host, "port": port, "first": first}
            exec(path.read_text(), space)
            said["said"] = space.get("said")
        except BaseException as reason:
            said = {"code": 1, "said": f"{type(reason).__name__}: {reason}"}
        path.with_suffix(".new").write_text(json.dumps(said))
        path.unlink()
        path.with_suffix(".new").rename(path.with_suffix(".out"))
    time.sleep(0.1)
"""
# What needs no privilege: each arrives, or opens, when the unit is not adopted.
WAYS = (
    "plain-ipv4", "v4-mapped", "loopback", "fast-open-sendto", "fast-open-connect", "multipath",
    "disconnect-and-again", "source-port-again", "udp", "udp-mapped", "udp-connected", "udp-loopback", "corked",
    "io-uring-connect", "io-uring-socket", "clone3", "double-fork", "new-session", "thread-of-dead-leader",
    "user-namespace", "user-namespace-by-clone", "netlink-diagnosis", "netlink-generic", "abstract",
    "memory-outside", "read-outside", "take-descriptor", "trace-outside", "shared-memory", "wake-up",
    "pidfd-of-another", "temporary-directory", "ssh-agent",
    "screen")
# Which no directive of systemd 252 stops (docs/decisions/0018-adopt.md): for want of a PID namespace; and of a Landlock
# scope and a filter by netlink's protocol, in whose place BPF LSM stands where the kernel has it.
NOT_CONTAINED, BY_LSM = {"wake-up", "pidfd-of-another"}, {"abstract", "netlink-diagnosis", "netlink-generic"}
# Whose word is the verdict: nothing can arrive.
SPEAKS_ITSELF = {"netlink-diagnosis", "netlink-generic", "memory-outside", "read-outside", "trace-outside",
                 "shared-memory", "wake-up", "pidfd-of-another", "user-namespace",
                 "user-namespace-by-clone"}


def run(*command: str, seconds: float = 120, input: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, input=input, cwd="/")


def right(*command: str, seconds: float = 120, input: str = "") -> str:
    done = run(*command, seconds=seconds, input=input)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def status() -> dict[str, object]:
    try:
        return json.loads(run("weir", "status", "--json").stdout)  # type: ignore[no-any-return]
    except ValueError:
        return {}


def wait_for_state(wanted: str, said: str = "", seconds: float = 60) -> None:
    def there() -> bool:
        now = status()
        return now.get("state") == wanted and said in json.dumps(now)

    try:
        wait_until(f"{wanted} {said}", there, seconds)
    except Exception as reason:
        raise AssertionError(f"{reason}: {json.dumps(status(), indent=1)[:3000]}") from None


def own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect(("192.0.2.1", 9))     # sends nothing
        return str(one.getsockname()[0])


def cgroup(unit: str = UNIT) -> str:
    return right("systemctl", "show", "-P", "ControlGroup", unit).strip()


def pid(unit: str = UNIT) -> int:
    return int(right("systemctl", "show", "-P", "MainPID", unit))


class Crew:
    """The unit's program, which does what it is asked."""

    def __init__(self, asked: Path) -> None:
        self.asked = asked

    def does(self, code: str, seconds: float = 60) -> tuple[bool, object]:
        """Whether it went well, and `said`; or the error."""
        name = uuid.uuid4().hex
        new, path = self.asked / f"{name}.tmp", self.asked / f"{name}.py"
        new.write_text(code)
        new.chmod(0o644)
        new.rename(path)
        out = path.with_suffix(".out")
        wait_until("the unit's answer", out.exists, seconds)
        answer = json.loads(out.read_text())
        return answer["code"] == 0, answer["said"]

    def says(self, token: str, where: str, port: int) -> bool:
        """What it was told; the server's word is asked elsewhere."""
        return self.does(f"import socket\nwith socket.create_connection(({where!r}, {port}), 5) as one:\n"
                         f"    one.sendall(b'HEAD /{token} HTTP/1.0\\r\\n\\r\\n')\n    one.settimeout(8)\n"
                         f"    said = one.recv(1000).decode()")[0]


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[int, Sink]]:
    with ExitStack() as stack:
        yield {port: stack.enter_context(Sink(port)) for port in (SERVER, ALLOWED)}


@pytest.fixture(scope="module")
def database() -> Iterator[None]:
    """PostgreSQL, which crews reach by the name of a target only."""
    data = Path("/var/lib/postgresql/crewtest")
    bin_ = next(Path("/usr/lib/postgresql").glob("*/bin"))
    as_postgres = ("runuser", "-u", "postgres", "--")
    shutil.rmtree(data, ignore_errors=True)
    Path("/var/tmp/pw").write_text("real-password\n")
    os.chmod("/var/tmp/pw", 0o644)
    right(*as_postgres, str(bin_ / "initdb"), "-D", str(data), "-A", "scram-sha-256", "-U", "svc",
          "--pwfile=/var/tmp/pw", "--no-sync", seconds=300)
    options = f"-p {DATABASE} -c listen_addresses=127.0.0.1 -c unix_socket_directories=/var/tmp"
    right(*as_postgres, str(bin_ / "pg_ctl"), "-D", str(data), "-w", "-l", "/var/tmp/pg.log", "-o", options, "start",
          seconds=120)
    yield
    run(*as_postgres, str(bin_ / "pg_ctl"), "-D", str(data), "-m", "immediate", "stop")


@pytest.fixture(scope="module", autouse=True)
def weir(servers: dict[int, Sink], database: None) -> Iterator[None]:
    assert os.geteuid() == 0, "run it as root, inside the machine"
    shutil.copytree(REPOSITORY / "packaging/default", ETC, dirs_exist_ok=True)
    if run("getent", "passwd", "crew").returncode:
        right("useradd", "-m", "crew")
    (ETC / "credentials").mkdir(mode=0o700, exist_ok=True)
    (ETC / "credentials/shop").write_text("real-password")
    (ETC / "credentials/shop").chmod(0o600)
    (ETC / "weir.toml").write_text(CONFIG.replace("OWN", own_address()))
    (ETC / "policies/all.cedar").write_text('@id("all") permit(principal, action, resource);\n')
    right("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=shop", "-keyout", "/dev/null",
          "-out", "/etc/ssl/shop-ca.pem", seconds=120)
    if not (link := Path("/usr/local/bin/weir")).exists():     # a quick machine's installation has none
        link.symlink_to(prefix() / "bin/weir")
    _units()
    right("weir", "check")
    right("systemctl", "daemon-reload")
    right("systemctl", "restart", "weir-agent", seconds=300)
    wait_for_state("enforcing", seconds=240)
    yield
    for unit in (UNIT, DYNAMIC):
        run("weir", "adopt", "--undo", unit)
        run("systemctl", "stop", unit)
    run("weir", "release", "--kill", seconds=300)
    run("systemctl", "stop", "weir-agent")


def _units() -> None:
    HERE.mkdir(mode=0o755, exist_ok=True)
    shutil.copytree(REPOSITORY / "agent/techniques", HERE / "techniques", dirs_exist_ok=True)
    (HERE / "service.py").write_text(SERVICE)
    own = own_address()
    for name, who, asked in ((UNIT, "User=crew", "/home/crew/asked"),
                             (DYNAMIC, "DynamicUser=yes\nStateDirectory=crewdyn\nNotifyAccess=all",
                              "/var/lib/crewdyn/asked")):
        (UNITS / name).write_text(
            f"[Unit]\nDescription=A crew\nStartLimitIntervalSec=0\n[Service]\n{who}\nRestart=always\nRestartSec=0.2\n"
            f"Environment=PYTHONDONTWRITEBYTECODE=1\n"
            f"ExecStart=/usr/bin/python3 {HERE}/service.py {own} {SERVER} {asked} {name}\n")


@pytest.fixture(scope="module")
def crew() -> Crew:
    return Crew(Path("/home/crew/asked"))


@pytest.fixture(scope="module")
def bystander() -> Iterator[dict[str, int]]:
    """A process of the same user outside, which holds a connection to the server; and a service of the host's."""
    script = (REPOSITORY / "tests/escape/outside.py").read_text()
    user = pwd.getpwnam("crew")
    command = ["/usr/bin/python3", "-I", "-c", script]
    one = subprocess.Popen([*command, "bystander", own_address(), str(SERVER), "/home/crew/handing", "7110"], text=True,
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, user=user.pw_uid, group=user.pw_gid)
    doors = ["@crewtest-door", "/tmp/weirtest.sock", f"/tmp/ssh-weirtest{user.pw_uid}/agent.1",
             f"/run/screen/S-{user.pw_uid}/1.test"]      # as agent/techniques/doors.py has them
    other = subprocess.Popen([*command, "relay", own_address(), str(SERVER), *doors], text=True,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        assert one.stdout is not None
        assert other.stdout is not None
        number, held, memory = map(int, one.stdout.readline().split())
        assert other.stdout.readline() == "ready\n"
        yield {"bystander": number, "began": start_of(number), "held": held, "memory": memory}
    finally:
        for process in (one, other):
            process.terminate()
            process.communicate(timeout=20)


def attempts(crew: Crew, servers: dict[int, Sink], bystander: dict[str, int]) -> dict[str, bool]:
    """Technique -> whether it got through."""
    own = own_address()
    where = Where(own, "::1", SERVER, 15432, own4=own, abstract="crewtest-door", **bystander)
    tokens = {name: f"token-{uuid.uuid4().hex}" for name in WAYS}

    def tried(names: Sequence[str]) -> dict[str, int]:
        rounds = [[name, tokens[name], *where.words()] for name in names]
        code = (f"import json, subprocess, sys\nrounds = {rounds!r}\n"
                f"done = subprocess.run([sys.executable, '-m', 'techniques', 'batch'], cwd={str(HERE)!r}, text=True,\n"
                "                      input=json.dumps(rounds) + chr(10), stdout=subprocess.PIPE)\n"
                "said = json.loads(done.stdout)")
        well, said = crew.does(code, seconds=600)
        assert well, said
        assert isinstance(said, list)
        for name, result, text in said:
            print(f"{name}: {result} {str(text).strip()[-200:]}")
        return {name: result for name, result, _ in said}

    results = tried(WAYS)
    for name in [name for name, result in results.items() if result == -1]:
        results |= tried([name])          # no end within its time, on an emulated processor, is no verdict
    believed = {name: result == 0 for name, result in results.items()}
    return {name: believed[name] if name in SPEAKS_ITSELF else any(one.saw(tokens[name]) for one in servers.values())
            for name in WAYS}


def rows(query: str) -> list[tuple[object, ...]]:
    file = sorted(Path("/var/lib/weir/recording").glob("*.sqlite"))[-1]
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as recording:
        return recording.execute(query).fetchall()


def test_before(crew: Crew, servers: dict[int, Sink], bystander: dict[str, int]) -> None:
    """The control: a unit as it is reaches everything."""
    right("systemctl", "restart", UNIT)
    wait_until("its first word", lambda: servers[SERVER].saw(f"first-{UNIT}"), 60)
    assert cgroup() == f"/system.slice/{UNIT}"
    through = attempts(crew, servers, bystander)
    assert [name for name, arrived in through.items() if not arrived] == []


def test_what_would_be_done(crew: Crew) -> None:
    said = json.loads(right("weir", "adopt", "--dry-run", "--json", UNIT))
    assert said["state"] == "would be adopted"
    assert any(one["peer"] == f"{own_address()} {SERVER}" for one in said["sockets"])
    assert not Path(said["file"]).exists()
    Path("/tmp/50-weir.conf").write_text(said["text"])
    assert "Slice=weir.slice" in said["text"]


@pytest.mark.parametrize(("unit", "said"), [
    ("nothing-of-this-name.service", "no [[workload]]"), ("ssh.service", "the host's own"),
    ("crewtest@.service", "template"), ("weir-agent.service", "Weir's own"), ("crewtest.socket", "NAME.service"),
])
def test_what_is_refused(unit: str, said: str) -> None:
    done = run("weir", "adopt", unit)
    assert done.returncode == 1
    assert said in done.stderr


@pytest.mark.parametrize(("text", "said"), [
    ("[Service]\nUser=root\n", "runs as root"), ("[Service]\nUser=nobody\n", "not among the `users`"),
    ("[Service]\nExecStartPre=+/bin/true\n", "past User="), ("[Service]\nPrivateNetwork=yes\n", "network namespace"),
    ("[Service]\nPermissionsStartOnly=yes\n", "PermissionsStartOnly"), ("[Service]\nPAMName=login\n", "PAMName="),
    ("[Service]\nWorkingDirectory=/srv\n", "WorkingDirectory= is /srv"),
    ("[Service]\nRootDirectory=/srv\n", "root file"),
    ('[Service]\nExecStartPre=+/bin/sh -c "id\\nexit 0"\n', "past User="),
    ("[Service]\nStandardOutput=append:/home/crew/log\n", "StandardOutput=journal would be right"),
    ("[Service]\nEnvironmentFile=-/home/crew/.env\n", "not root alone decides"),
    ("[Service]\nStateDirectory=weir\n", "which is Weir's own"), ("[Service]\nRuntimeDirectory=dbus\n", "not its own"),
    ("[Service]\nSupplementaryGroups=0\n", "the group root"),
])
def test_what_a_unit_says_that_cannot_be(text: str, said: str) -> None:
    other = UNITS / f"{UNIT}.d" / "10-other.conf"
    other.parent.mkdir(exist_ok=True)
    other.write_text(text)
    try:
        right("systemctl", "daemon-reload")
        done = run("weir", "adopt", UNIT)
        assert done.returncode == 1
        assert said in done.stderr
        assert not (UNITS / f"{UNIT}.d" / "50-weir.conf").exists()
    finally:
        other.unlink()
        other.parent.rmdir()
        right("systemctl", "daemon-reload")


def test_what_runs_is_contained_at_once(crew: Crew, servers: dict[int, Sink]) -> None:
    before = pid()
    control = f"token-{uuid.uuid4().hex}"
    assert crew.does(f"first.sendall(b'{control}')")[0]
    wait_until("the server", lambda: servers[SERVER].saw(control), 10)

    said = json.loads(right("weir", "adopt", "--json", UNIT))

    assert (said["state"], said["degraded"], said["restarted"]) == ("adopted", [], False)
    assert ("INET stream", f"{own_address()} {SERVER}", "its connection was ended") in {
        (one["family"], one["peer"], one["done"]) for one in said["sockets"]}
    assert (pid(), cgroup()) == (before, f"/system.slice/{UNIT}"), "it goes on where it is"
    for code in ("first.sendall(b'{}')", "import socket\nsocket.create_connection((host, port), 3).sendall(b'{}')"):
        token = f"token-{uuid.uuid4().hex}"
        crew.does(code.format(token))
        time.sleep(1)                     # for it to arrive
        assert not servers[SERVER].saw(token)
    token = f"token-{uuid.uuid4().hex}"
    assert crew.says(token, own_address(), ALLOWED)
    assert servers[ALLOWED].saw(token), "what is permitted goes on, through Weir"
    wait_for_state("degraded", "runs since before it was adopted")
    text = run("weir", "status").stdout      # its exit code says degraded
    assert UNIT in text


def test_what_is_its_own_stays_its_own(crew: Crew) -> None:
    """By BPF LSM as well, while it is only contained: its abstract names, and what its children have."""
    assert crew.does("""import os, socket, subprocess
one = socket.socket(socket.AF_UNIX)
one.bind("\\0crewtest-own")
one.listen()
socket.socket(socket.AF_UNIX).connect("\\0crewtest-own")
child = subprocess.Popen(["sleep", "60"])
said = os.readlink(f"/proc/{child.pid}/cwd")
child.kill()
child.wait()""") == (True, "/")


def test_from_its_next_start_on_it_is_confined(crew: Crew, servers: dict[int, Sink]) -> None:
    right("systemctl", "restart", UNIT)
    assert cgroup() == f"/weir.slice/{UNIT}"
    assert crew.does("said = 1") == (True, 1)
    wait_for_state("enforcing", UNIT)
    assert not Path(f"/sys/fs/cgroup/system.slice/{UNIT}").exists()
    token = f"token-{uuid.uuid4().hex}"
    assert crew.says(token, own_address(), ALLOWED)
    assert servers[ALLOWED].saw(token)


def test_the_database_through_weir(crew: Crew) -> None:
    """Its own password is nobody's; the recording knows unit, process and user."""
    code = ("import subprocess\ndone = subprocess.run(['psql', '-XAtc', 'select 6 * 7', 'host=127.0.0.1 "
            f"port={DATABASE} dbname=postgres user=whoever sslmode=disable'], text=True, stdout=subprocess.PIPE,\n"
            "    stderr=subprocess.STDOUT, env={'PGPASSWORD': 'x', 'PATH': '/usr/bin', 'HOME': '/home/crew'})\n"
            "said = done.stdout")
    assert crew.does(code) == (True, "42\n")
    wait_until("it is on record", lambda: bool(rows("SELECT 1 FROM sessions WHERE workload = 'crewtest'")), 20)
    [(subject, exe, role)] = set(rows("SELECT subject, exe, role FROM sessions WHERE workload = 'crewtest'"))
    assert (subject, role) == ("local:crew", "whoever")
    assert "psql" in str(exe)
    flows = rows("SELECT subject, exe, pid, destination FROM flows WHERE workload = 'crewtest'")
    assert ("local:crew", f"{own_address()} {ALLOWED}") in {(one[0], one[3]) for one in flows}
    assert pid() in {one[2] for one in flows}
    names = {one[0] for one in rows("SELECT name FROM host_events WHERE workload = 'crewtest'")}
    assert {"unit.adopted", "unit.socket", "unit.started", "unit.ended"} <= names
    assert rows("SELECT 1 FROM refusals WHERE workload = 'crewtest' AND destination = "
                f"'{own_address()} {SERVER}'")


def test_ways_round(crew: Crew, servers: dict[int, Sink], bystander: dict[str, int]) -> None:
    through = attempts(crew, servers, bystander)
    left = NOT_CONTAINED if str(status()["lsm"]).startswith("on") else NOT_CONTAINED | BY_LSM
    assert {name for name, arrived in through.items() if arrived} == left


def test_what_it_sees(crew: Crew) -> None:
    code = """
import os, socket
def there(path):
    return os.path.lexists(path)
def fails(work):
    try:
        work()
    except OSError as reason:
        return type(reason).__name__
    return "done"
said = {
    "top": sorted(os.listdir("/")), "run": sorted(os.listdir("/run")), "weir": fails(lambda: os.listdir("/etc/weir")),
    "state": there("/var/lib/weir"), "root": fails(lambda: os.listdir("/root")),
    "spool": there("/var/spool"), "home": os.listdir("/home"),
    "sysfs": fails(lambda: os.listdir("/sys/fs/cgroup")), "kernel": fails(lambda: os.listdir("/sys/kernel")),
    "usr": fails(lambda: open("/usr/x", "w")), "etc": fails(lambda: open("/etc/x", "w")),
    "opt": fails(lambda: open("/opt/crewtest/x", "w")), "own": fails(lambda: open("/home/crew/x", "w")),
    "tmp": fails(lambda: open("/tmp/x", "w")), "core": fails(lambda: open("/proc/sys/kernel/core_pattern", "w")),
    "resolv": open("/etc/resolv.conf").read(), "trust": open("/etc/ssl/shop-ca.pem").read().count("BEGIN"),
    "bundle": os.environ.get("SSL_CERT_FILE"), "devices": sorted(os.listdir("/dev")),
    "capabilities": [line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "CapBnd"))],
    "init": fails(lambda: os.listdir("/proc/1")), "packet": fails(lambda: socket.socket(17, 3)),
    "vsock": fails(lambda: socket.socket(40, 1)), "ping": fails(lambda: socket.socket(2, 2, 1)),
}
"""
    well, said = crew.does(code)
    assert well, said
    assert isinstance(said, dict)
    print(json.dumps(said, indent=1))
    assert set(said["top"]) <= {"bin", "dev", "etc", "home", "lib", "lib64", "lib32", "libx32", "opt", "proc", "root",
                                "run", "sbin", "sys", "tmp", "usr", "var"}
    assert set(said["run"]) <= {"trust", "systemd", "credentials"}
    assert said["home"] == ["crew"]
    assert [said[name] for name in ("state", "spool")] == [False, False]
    assert {said[name] for name in ("root", "weir", "sysfs", "kernel")} <= {"PermissionError", "FileNotFoundError"}
    assert {said[name] for name in ("usr", "etc", "opt", "core")} <= {"OSError", "PermissionError"}
    assert (said["own"], said["tmp"]) == ("done", "done")
    assert said["resolv"].startswith("nameserver 127.53.53.53")
    assert said["trust"] == 2, "its own authority, and Weir's"
    assert said["bundle"] == "/etc/ssl/certs/ca-certificates.crt"
    assert set(said["capabilities"]) == {"0000000000000000"}
    assert said["init"] == "FileNotFoundError"
    assert {said[name] for name in ("packet", "vsock", "ping")} <= {"OSError", "PermissionError"}


def test_it_is_killed_and_comes_up_again_inside(crew: Crew, servers: dict[int, Sink]) -> None:
    for _ in range(3):
        before = pid()
        right("systemctl", "kill", "--signal=KILL", UNIT)
        wait_until("it runs again", lambda before=before: pid() not in (0, before), 200)
        assert cgroup() == f"/weir.slice/{UNIT}"
        assert crew.does("said = first is None or not first.sendall(b'again-after-kill')")[0]
    assert not servers[SERVER].saw("again-after-kill")


def test_the_slice_is_stopped_and_the_unit_started(crew: Crew, servers: dict[int, Sink]) -> None:
    """With the slice goes its cgroup: nothing starts in the next one before the guard has run."""
    right("systemctl", "stop", "weir.slice")
    assert run("systemctl", "is-active", UNIT).stdout.strip() == "inactive"
    right("systemctl", "start", UNIT, seconds=400)      # the guard puts the block in place again
    token = f"token-{uuid.uuid4().hex}"
    crew.does(f"import socket\nsocket.create_connection((host, port), 3).sendall(b'{token}')")
    assert not servers[SERVER].saw(token)
    wait_for_state("enforcing", UNIT)


def test_it_is_adopted_already() -> None:
    assert json.loads(right("weir", "adopt", "--json", UNIT))["state"] == "unchanged"
    assert run("weir", "check").stdout.count("is not adopted yet") == 1, "the other one"


def test_systemd_has_nothing_to_say_against_it() -> None:
    done = run("systemd-analyze", "verify", "--man=no", UNIT)
    assert (done.returncode, done.stderr) == (0, "")
    print(run("systemd-analyze", "security", "--no-pager", UNIT).stdout)
    right("systemd-analyze", "security", "--threshold=35", UNIT)


@pytest.mark.parametrize(("text", "said"), [
    ("[Service]\nSlice=system.slice\n", "Slice is system.slice"),
    ("[Service]\nBindPaths=/run/dbus\n", "BindPaths has also /run/dbus"),
    ("[Service]\nSystemCallFilter=\n", "SystemCallFilter lets"),
    ("[Service]\nBindReadOnlyPaths=/run:/usr\n", "BindReadOnlyPaths has also /run:/usr"),
    ("[Service]\nExecStartPre=+/bin/true\n", "past User="),
])
def test_a_later_drop_in_that_undoes_it(text: str, said: str) -> None:
    later = UNITS / f"{UNIT}.d" / "60-later.conf"
    later.write_text(text)
    try:
        right("systemctl", "daemon-reload")
        done = run("weir", "adopt", UNIT)
        assert done.returncode == 1
        assert said in done.stdout + done.stderr
        wait_for_state("degraded", said)
        assert said in run("weir", "check").stdout
    finally:
        later.unlink()
        right("systemctl", "daemon-reload")
    wait_for_state("enforcing")


def test_a_dropin_that_was_changed() -> None:
    file = UNITS / f"{UNIT}.d" / "50-weir.conf"
    text = file.read_text()
    file.write_text(text.replace("PrivateUsers=yes", "PrivateUsers=no"))
    right("systemctl", "daemon-reload")
    wait_for_state("degraded", "its drop-in is not what Weir would write")
    assert json.loads(right("weir", "adopt", "--json", UNIT))["state"] == "adopted"
    assert file.read_text() == text
    wait_for_state("enforcing")


def test_a_unit_with_a_user_of_its_own(servers: dict[int, Sink]) -> None:
    """DynamicUser=: nobody else has its uid; adopted before it is started first."""
    right("weir", "adopt", DYNAMIC)
    right("systemctl", "start", DYNAMIC)
    asked = Path("/var/lib/crewdyn/asked")
    wait_until("it is up", asked.exists, 30)
    crew, token = Crew(asked), f"token-{uuid.uuid4().hex}"
    assert crew.says(token, own_address(), ALLOWED)
    assert servers[ALLOWED].saw(token)
    assert not servers[SERVER].saw(f"first-{DYNAMIC}")
    wait_until("it is on record", lambda: bool(rows("SELECT 1 FROM flows WHERE workload = 'dynamic'")), 20)
    assert set(rows("SELECT subject FROM flows WHERE workload = 'dynamic'")) == {("local:crewdyn",)}
    assert crew.does("import os\nsaid = os.listdir('/home') if os.path.exists('/home') else []") == (True, [])
    wait_for_state("enforcing", DYNAMIC)


def test_nothing_is_released_while_it_runs(servers: dict[int, Sink]) -> None:
    done = run("weir", "release")
    assert done.returncode == 1
    assert "processes run in the slice" in done.stderr


def test_undone(crew: Crew, servers: dict[int, Sink]) -> None:
    right("weir", "adopt", "--undo", DYNAMIC, "--running", "restart")
    wait_until("it is free", lambda: servers[SERVER].saw(f"first-{DYNAMIC}"), 60)
    said = json.loads(right("weir", "adopt", "--undo", "--json", UNIT))
    assert said["state"] == "undone"
    assert "runs in the slice, confined, until it is started again" in said["notes"][0]
    token = f"token-{uuid.uuid4().hex}"
    crew.does(f"import socket\nsocket.create_connection((host, port), 3).sendall(b'{token}')")
    assert not servers[SERVER].saw(token)
    right("systemctl", "restart", UNIT)
    assert cgroup() == f"/system.slice/{UNIT}"
    token = f"token-{uuid.uuid4().hex}"
    assert crew.does(f"import socket\nsocket.create_connection((host, port), 3).sendall(b'{token}')")[0]
    wait_until("the server", lambda: servers[SERVER].saw(token), 10)
    assert not (UNITS / f"{UNIT}.d").exists()
    done = run("weir", "adopt", "--undo", UNIT)
    assert (done.returncode, "is not adopted" in done.stderr) == (1, True)


def test_restarted_when_it_is_adopted(crew: Crew, servers: dict[int, Sink]) -> None:
    said = json.loads(right("weir", "adopt", "--json", "--running", "restart", UNIT))
    assert (said["state"], said["restarted"], said["degraded"]) == ("adopted", True, [])
    assert cgroup() == f"/weir.slice/{UNIT}"
    wait_for_state("enforcing", UNIT)
    right("weir", "adopt", "--undo", UNIT, "--running", "restart")


LEFT = """
import pathlib, socket, sys, time
while True:
    token = pathlib.Path("/home/crew/token").read_bytes()
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2])), 3) as one:
            one.sendall(token)
    except OSError:
        pass
    time.sleep(0.2)
"""


def test_what_a_stopped_unit_has_left(crew: Crew, servers: dict[int, Sink]) -> None:
    """systemd calls it inactive, and ends nothing of it at the next start."""
    other, token = UNITS / f"{UNIT}.d" / "10-other.conf", Path("/home/crew/token")
    other.parent.mkdir(exist_ok=True)
    other.write_text("[Service]\nKillMode=process\n")
    (before, after) = (f"token-{uuid.uuid4().hex}" for _ in range(2))
    token.write_text(before)
    right("systemctl", "daemon-reload")
    right("systemctl", "restart", UNIT)
    assert crew.does(f"import subprocess\nsubprocess.Popen([sys.executable, '-c', {LEFT!r}, host, str(port)])\n"
                     .replace("import subprocess", "import subprocess, sys"))[0]
    right("systemctl", "stop", UNIT)
    wait_until("what is left", lambda: servers[SERVER].saw(before), 20)
    place = Path(f"/sys/fs/cgroup/system.slice/{UNIT}")
    [left] = (place / "cgroup.procs").read_text().split()
    try:
        said = json.loads(right("weir", "adopt", "--json", UNIT))
        assert (said["state"], said["degraded"]) == ("adopted", [])
        token.write_text(after)
        wait_for_state("degraded", "runs since before it was adopted")
        right("systemctl", "start", UNIT)
        time.sleep(2)                     # for it to arrive
        assert (place / "cgroup.procs").read_text().split()[0] == left
        assert not servers[SERVER].saw(after)
        right("systemctl", "stop", UNIT)
        assert not place.exists(), "by the drop-in a stop ends all of it"
    finally:
        with suppress(FileNotFoundError):
            (place / "cgroup.kill").write_text("1")
        other.unlink()
    right("systemctl", "daemon-reload")
    right("systemctl", "start", UNIT)
    assert cgroup() == f"/weir.slice/{UNIT}"
    wait_for_state("enforcing", UNIT)
    right("weir", "adopt", "--undo", UNIT, "--running", "restart")


def test_reported_and_undone_while_it_runs(crew: Crew, servers: dict[int, Sink]) -> None:
    """Nothing of it is started again: what it had open stalls meanwhile, and goes on."""
    token = f"token-{uuid.uuid4().hex}"
    assert crew.does("said = 1")[0]
    said = json.loads(right("weir", "adopt", "--json", "--running", "report", UNIT))
    assert {one["done"] for one in said["sockets"]} == {"left: its packets are dropped"}
    crew.does(f"first.sendall(b'{token}')")
    time.sleep(1)
    assert not servers[SERVER].saw(token)
    done = run("weir", "release")
    assert "was adopted while it ran" in done.stdout + done.stderr
    right("weir", "adopt", "--undo", UNIT)
    wait_until("the server", lambda: servers[SERVER].saw(token), 60)
