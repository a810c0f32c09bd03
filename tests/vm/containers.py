"""Run inside the machine, as root: containers of podman's, by systemd's cgroups, in a workload's slice.

Not collected by an ordinary run, like checks.py.  What arrives is for the server to say.  In order: each check stands
on those before it.
"""
from __future__ import annotations

import json
import pwd
import shutil
import socket
import sqlite3
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from escape.sink import Sink
from lab.containers import Image
from lab.hosts import wait_until

from agent.techniques import Where

ETC, SLICE, UNIT, USER, WORKLOAD = Path("/etc/weir"), Path("/sys/fs/cgroup/weir.slice"), "weir-agent", "crew", "my-crew"
IMAGE, SERVER, ALLOWED = "localhost/weir-test", 7107, 7108
REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = f"""
[[egress]]
name = "allowed"
addresses = ["OWN"]
ports = [{ALLOWED}]
[[workload]]
name = "{WORKLOAD}"
users = ["{USER}"]
"""
WAYS = ("plain-ipv4", "fast-open-sendto", "udp", "udp-connected")


def run(*command: str, seconds: float = 120, input: bytes = b"") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, timeout=seconds, input=input, cwd="/")
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


def must(*command: str, seconds: float = 120, input: bytes = b"") -> str:
    done = run(*command, seconds=seconds, input=input)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def status() -> dict[str, object]:
    try:
        found: dict[str, object] = json.loads(run("weir", "status", "--json").stdout)
    except ValueError:
        return {"state": "", "reasons": []}
    return found


def reasons() -> str:
    return "; ".join(status()["reasons"])  # type: ignore[arg-type]


def events(name: str) -> list[dict[str, str]]:
    newest = max(Path("/var/lib/weir/recording").glob("recording-*.sqlite"), key=lambda path: path.stat().st_mtime)
    with closing(sqlite3.connect(f"file:{newest}?mode=ro", uri=True)) as db:
        return [json.loads(one) for one, in db.execute("SELECT detail FROM host_event WHERE name = ?", (name,))]


@pytest.fixture(scope="module")
def own() -> str:
    """The machine's address, as a container at a bridge reaches it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect(("192.0.2.1", 9))
        return str(one.getsockname()[0])


@pytest.fixture(scope="module")
def sinks() -> Iterator[dict[int, Sink]]:
    made = {port: Sink(port) for port in (SERVER, ALLOWED)}
    with made[SERVER], made[ALLOWED]:
        yield made


@pytest.fixture(scope="module", autouse=True)
def agent(own: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    shutil.copytree(REPOSITORY / "packaging/default", ETC, dirs_exist_ok=True)
    (ETC / "weir.toml").write_text(CONFIG.replace("OWN", own))
    if run("getent", "passwd", USER).returncode:
        must("useradd", "-m", USER)
    must("weir", "check")
    must("systemctl", "restart", UNIT, seconds=600)
    wait_until("enforcing", lambda: status()["state"] == "enforcing", 300)
    image = Image.make(tmp_path_factory.mktemp("image"))
    must("podman", "import", "-", IMAGE, input=subprocess.run(
        ["tar", "-C", str(image.root), "-c", "."], check=True, capture_output=True).stdout, seconds=300)
    yield
    run("weir", "release", "--kill")
    run("systemctl", "stop", UNIT)


def arguments() -> list[str]:
    return must("weir", "container-args", WORKLOAD).split()


def linked() -> list[str]:
    return [one for one in arguments() if not one.startswith("--network")]


@contextmanager
def link(name: str) -> Iterator[str]:
    """A network namespace with a link to the machine, as podman makes it: without iptables netavark does not."""
    commands = (f"netns add {name}", f"link add v-{name[-8:]} type veth peer name eth0 netns {name}",
                f"address add 10.78.0.1/24 dev v-{name[-8:]}", f"link set v-{name[-8:]} up",
                *(f"-n {name} {one}" for one in (
                    "link set lo up", "link set eth0 up", "address add 10.78.0.2/24 dev eth0",
                    "route add default via 10.78.0.1")))
    try:
        for command in commands:
            must("ip", *command.split())
        yield f"--network=ns:/run/netns/{name}"
    finally:
        must("ip", "netns", "delete", name)


@contextmanager
def container(*options: str) -> Iterator[str]:
    """Its name.  With a link where no network is said."""
    name = f"weir-{uuid.uuid4().hex[:8]}"
    if not any(one.startswith("--network") for one in options):
        with link(name) as network, container(*options, network) as made:
            yield made
        return
    must("podman", "run", "--detach", "--name", name, "--volume=/usr:/usr:ro",
         f"--volume={REPOSITORY}/agent/techniques:/home/techniques:ro", *options, IMAGE, "/usr/bin/sleep", "infinity",
         seconds=300)
    try:
        yield name
    finally:
        run("podman", "rm", "--force", "--time", "0", name)


def attempts(name: str, own: str, sinks: dict[int, Sink], port: int = SERVER, ways: tuple[str, ...] = WAYS,
             ) -> dict[str, bool]:
    """What arrived of what is tried by `podman exec`: tasks that come from outside."""
    words = Where(host4=own, host6="::1", port=port).words()
    tokens = {way: f"token-{uuid.uuid4().hex}" for way in ways}
    batch = json.dumps([[way, token, *words] for way, token in tokens.items()])
    must("podman", "exec", name, "sh", "-c", f"cd /home && echo '{batch}' | python3 -m techniques batch", seconds=300)
    return {way: sinks[port].saw(token) for way, token in tokens.items()}


def test_the_ways_exist(own: str, sinks: dict[int, Sink]) -> None:
    """The control: podman's own defaults, in no slice of Weir's."""
    with container() as name:
        assert attempts(name, own, sinks, ways=("plain-ipv4", "udp")) == {"plain-ipv4": True, "udp": True}
        assert attempts(name, own, sinks, ALLOWED, ("plain-ipv4",)) == {"plain-ipv4": True}


@pytest.mark.parametrize("network", ["none", "link"])
def test_a_container_reaches_what_is_allowed_and_nothing_else(network: str, own: str, sinks: dict[int, Sink]) -> None:
    with container(*(arguments() if network == "none" else linked())) as name:
        wait_until("it is contained", lambda: attempts(name, own, sinks, ALLOWED, ("plain-ipv4",))["plain-ipv4"], 60)
        assert attempts(name, own, sinks) == dict.fromkeys(WAYS, False)
        assert status()["state"] == "enforcing", reasons()
        assert [one["network"] for one in status()["workloads"]] == ["container"]  # type: ignore[union-attr]
        place = must("podman", "exec", name, "sh", "-c", "id -u; cat /etc/resolv.conf").split()
        assert place[:2] == [str(pwd.getpwnam(USER).pw_uid), "nameserver"]
        assert place[2].startswith("127.")
    assert list((SLICE / "weir-my\\x2dcrew.slice").glob("libpod-*")) == []
    wait_until("its end is recorded", lambda: len(events("container.ended")) == len(events("container.started")), 30)


def test_a_privileged_one_is_said_and_gets_nothing_out(own: str, sinks: dict[int, Sink]) -> None:
    with container("--cgroup-parent=weir-my\\x2dcrew.slice", "--privileged") as name:
        wait_until("it is said", lambda: status()["state"] == "degraded", 60)
        assert attempts(name, own, sinks) == dict.fromkeys(WAYS, False)
        said = reasons()
        for one in ("it is privileged", "no seccomp filter", "runs as root of the host's user namespace"):
            assert one in said, said
    wait_until("it is over", lambda: status()["state"] == "enforcing", 60)
    assert any("privileged" in one["reason"] for one in events("container.degraded"))


def test_who_joins_its_network_is_said(own: str, sinks: dict[int, Sink]) -> None:
    """From no slice of Weir's: it gets nothing out there either, for the link's end is closed to everybody."""
    with container(*linked()) as first, container(f"--network=container:{first}") as second:
        wait_until("it is said", lambda: "is no crew's" in reasons(), 60)
        assert attempts(second, own, sinks, ways=("plain-ipv4", "udp")) == {"plain-ipv4": False, "udp": False}


def test_systemd_leaves_them_where_they_are(own: str, sinks: dict[int, Sink]) -> None:
    with container(*linked()) as name:
        wait_until("it is contained", lambda: attempts(name, own, sinks, ALLOWED, ("plain-ipv4",))["plain-ipv4"], 60)
        before = status()["workloads"]
        for command in ("daemon-reload", "daemon-reexec"):
            must("systemctl", command)
        time.sleep(2)
        assert status()["workloads"] == before
        assert status()["state"] == "enforcing", reasons()
        assert attempts(name, own, sinks) == dict.fromkeys(WAYS, False)


def test_the_block_goes_with_the_last(own: str, sinks: dict[int, Sink]) -> None:
    assert run("weir", "release").returncode == 0
    assert "netdev weir" not in must("nft", "list", "tables")
    with container() as name:
        assert attempts(name, own, sinks, ways=("plain-ipv4",)) == {"plain-ipv4": True}
