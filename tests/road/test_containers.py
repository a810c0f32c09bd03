"""Containers below a workload's slice: a session as anywhere else, and no way round; what weakens one is said.

An OCI runtime makes them here (lab/containers.py); podman itself does in tests/vm.
"""
from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from clients.test_clients import environment
from escape.attempts import SINK, TECHNIQUES
from escape.sink import Sink, Wire
from lab.containers import Image, Network, container
from lab.hosts import DB, RUNTIME, USER, wait_until
from lab.lab import Lab
from lab.postgresql import NAME
from lab.weir import WORKLOAD, Inside, Installed, weir
from road.test_watch import events

pytestmark = pytest.mark.lab

# Over TCP and UDP of both families, past the addresses, past IP, past everything: as root of the container, if at all.
WAYS = ("plain-ipv4", "plain-ipv6", "link-local", "fast-open-sendto", "udp", "udp-ipv6", "udp-connected",
        "udp-broadcast", "raw-ip", "icmp-raw", "packet-socket", "packet-socket-past-the-queue")


@pytest.fixture(scope="module")
def shared(the_lab: Lab) -> Iterator[Installed]:
    with weir(the_lab) as made:
        yield made


@pytest.fixture(scope="module")
def image(the_lab: Lab) -> Image:
    return Image.make(the_lab.scratch)


@pytest.fixture
def installed(shared: Installed) -> Iterator[Installed]:
    with shared.overseen():
        yield shared


def arguments(installed: Installed) -> list[str]:
    """As an operator gets them; and the root file of the lab's own clients, which lies in a home."""
    done = installed.weir("container-args", WORKLOAD, "--manager", "cgroupfs")
    assert done.returncode == 0, done.stderr
    assert "~/db-ca.pem" in done.stderr
    return [*done.stdout.split(), f"--volume=/run/{RUNTIME}/trust/weir.pem:/home/db-ca.pem:ro"]


@pytest.fixture
def inside(installed: Installed, image: Image) -> Iterator[Inside]:
    with container(installed.lab, image, "plain", *arguments(installed)) as made:
        yield made


def select(crew: Inside, installed: Installed, host: str = NAME) -> str:
    chosen = environment(installed.lab, "wrong", PGHOST=host, PGSSLROOTCERT="/home/db-ca.pem")
    pairs = [f"{name}={value}" for name, value in chosen.items()]
    code, out, err = crew.run_inside(
        ["env", *pairs, "psql", "-X", "-A", "-t", "-w", "-c", "SELECT count(*) FROM products"])
    return out.strip() if code == 0 else err


def contained(crew: Inside, installed: Installed, host: str = NAME) -> None:
    """Waits until a session works; says what it was told where none does."""
    said = ""

    def works() -> bool:
        nonlocal said
        said = select(crew, installed, host)
        return said == "4"

    try:
        wait_until("it is contained", works, 20)
    except TimeoutError as reason:
        raise AssertionError(f"{reason}: {said}\n{installed.status()}\n{installed.tail()}") from None


@pytest.mark.parametrize("host", [NAME, pytest.param(DB.ipv4, marks=pytest.mark.slow), DB.ipv6])
def test_a_session(installed: Installed, inside: Inside, host: str) -> None:
    contained(inside, installed, host)
    assert installed.status()["state"] == "enforcing"


@pytest.mark.slow
def test_it_is_shown_and_recorded(installed: Installed, image: Image) -> None:
    with container(installed.lab, image, "shown", *arguments(installed)) as inside:
        wait_until("it is shown", lambda: shown(installed), 20)
        assert [(one["workload"], one["user"], one["network"], one["command"]) for one in shown(installed)] == [
            (WORKLOAD, USER, "container", "libpod-shown")]
        assert select(inside, installed) == "4"
    wait_until("its end is noticed", lambda: not shown(installed), 20)

    def ended() -> bool:
        return any(one["container"] == "libpod-shown" for one in events(installed, "container.ended"))

    wait_until("its end is recorded", ended, 20)
    assert any(one["container"] == "libpod-shown" for one in events(installed, "container.started"))


def shown(installed: Installed) -> list[dict[str, object]]:
    workloads: list[dict[str, object]] = installed.status()["workloads"]  # type: ignore[assignment]
    return [one for one in workloads if one["network"] == "container"]


# no way round


@pytest.fixture(scope="module")
def network(shared: Installed) -> Iterator[Network]:
    """With a link to the host, as podman and docker make it where they are not told otherwise."""
    with Network.made() as made:
        yield made


@pytest.fixture(scope="module")
def neighbour(network: Network) -> Iterator[tuple[Sink, Wire]]:
    with network.neighbour.entered():
        sink, wire = Sink(SINK), Wire()
    with sink, wire:
        yield sink, wire


@dataclass
class Attempts:
    network: Network
    neighbour: tuple[Sink, Wire]
    lab: Lab

    @property
    def volume(self) -> str:
        return f"--volume={TECHNIQUES}:/home/techniques:ro"

    def run(self, inside: Inside) -> dict[str, bool]:
        """What the neighbour saw of each."""
        words = self.network.where().words()
        tokens = {one: f"token-{uuid.uuid4().hex}" for one in WAYS}
        batch = json.dumps([[one, token, *words] for one, token in tokens.items()])
        code, _, err = inside.run_inside(["sh", "-c", f"cd /home && echo '{batch}' | python3 -m techniques batch"])
        assert code == 0, err
        return {one: any(who.saw(token) for who in self.neighbour) for one, token in tokens.items()}


@pytest.fixture
def attempts(shared: Installed, network: Network, neighbour: tuple[Sink, Wire]) -> Attempts:
    return Attempts(network, neighbour, shared.lab)


def bridged(network: Network) -> str:
    return f"--network=ns:{network.box.path}"


def test_the_ways_exist(shared: Installed, image: Image, attempts: Attempts) -> None:
    """The control: the same container, not below the slice."""
    with container(shared.lab, image, "control", "--cgroup-parent=/weirlab.outside", bridged(attempts.network),
                   "--cap-add=CAP_NET_ADMIN", attempts.volume) as inside:
        assert attempts.run(inside) == dict.fromkeys(WAYS, True)


def test_a_user_gets_nothing_out(installed: Installed, image: Image, attempts: Attempts) -> None:
    chosen = [one for one in arguments(installed) if not one.startswith("--network")]
    with container(installed.lab, image, "user", *chosen, bridged(attempts.network), attempts.volume) as inside:
        contained(inside, installed)
        assert attempts.run(inside) == dict.fromkeys(WAYS, False)
        assert installed.status()["state"] == "enforcing"


ROOT = (f"--cgroup-parent=/{RUNTIME}.slice/{RUNTIME}-{WORKLOAD}.slice", "--cap-add=CAP_NET_ADMIN",
        "--security-opt=seccomp=unconfined")


def test_root_gets_nothing_out_and_is_said(installed: Installed, image: Image, attempts: Attempts) -> None:
    """With every right over its network: the host's end of its link is what holds then."""
    with container(installed.lab, image, "root", *ROOT, bridged(attempts.network), attempts.volume) as inside:
        wait_until("it is said", lambda: installed.status()["state"] == "degraded", 20)
        assert attempts.run(inside) == dict.fromkeys(WAYS, False)
        inside.run_inside(["nft", "flush", "ruleset"])
        assert attempts.run(inside) == dict.fromkeys(WAYS, False)
        reasons = "; ".join(installed.status()["reasons"])  # type: ignore[arg-type]
        for one in ("NET_ADMIN, NET_RAW", "runs as root", "no seccomp filter"):
            assert one in reasons, reasons
    wait_until("it is over", lambda: installed.status()["state"] == "enforcing", 20)
    said = {one["reason"] for one in events(installed, "container.degraded")}
    assert "it has NET_ADMIN, NET_RAW" in said


def test_what_else_is_said(installed: Installed, image: Image) -> None:
    control = f"--volume=/run/{RUNTIME}/control.sock:/run/weir.sock:rw"
    with (container(installed.lab, image, "host", *ROOT, "--network=host", control),
          container(installed.lab, image, "nobody", f"--cgroup-parent=/{RUNTIME}.slice/{RUNTIME}-other.slice",
                    "--network=none")):
        def said() -> bool:
            text = "; ".join(installed.status()["reasons"])  # type: ignore[arg-type]
            return all(one in text for one in (
                "in the host's network namespace", "control.sock of the host shows at /run/weir.sock",
                "container libpod-nobody of other: there is no such workload"))

        wait_until("everything is said", said, 20)


@pytest.mark.slow
def test_one_that_starts_without_an_agent_is_cut_off(installed: Installed, image: Image, attempts: Attempts) -> None:
    """From its first packet; and the next agent contains it.  The last test here: `installed` has another agent."""
    chosen = [one for one in arguments(installed) if not one.startswith("--network")]
    installed.kill("agent")
    with container(installed.lab, image, "early", *chosen, bridged(attempts.network), attempts.volume) as inside:
        assert attempts.run(inside) == dict.fromkeys(WAYS, False)
        next_one = installed.again()
        next_one.wait()
        contained(inside, next_one)
