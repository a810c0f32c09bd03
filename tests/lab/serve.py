"""One of the lab's servers on this machine itself, in the foreground until it is told to end: what the machines of
vagrant/ run.

    python -m lab.serve ROLE [DIRECTORY] [--address IPV4 IPV6]      as root; ROLE: db, ssh, kube, idp, dns

It is made anew at each start, below DIRECTORY (/var/lib/weir-lab/ROLE), with keys and passwords of its own.  When it
answers, systemd is told, and DIRECTORY/handout.json has what the crew's host needs of it (lab/enrol.py): texts by name.
"""
from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from lab import certificates
from lab.hosts import CREW, DB, KUBE, NAMES, OTHER, SSH, Here, Host, ip
from lab.keycloak import keycloak
from lab.kubernetes import cluster, kubeconfig
from lab.postgresql import postgresql
from lab.servers import listening, python, python_environment, server
from lab.sshd import sshd

STATE = Path("/var/lib/weir-lab")
SSH_PORT = 2022                       # the machine's own SSH server has 22
LOGIN = "deploy"
SERVICE_USER = "crewbot"              # whom Weir is in the cluster
CREW_CA = "/home/labcrew/.kube/ca.pem"
Handout = dict[str, str]


@dataclass(frozen=True)
class Role:
    """`host`: of the lab, whose place and addresses the machine has."""

    host: Host
    serve: Callable[[Path, Host], Iterator[Handout]]


def _database(place: Path, host: Host) -> Iterator[Handout]:
    with postgresql(place, host) as made:
        yield {"ca.pem": made.ca.read_text(), "password": made.passwords["crew_svc"]}


def _ssh(place: Path, host: Host) -> Iterator[Handout]:
    with sshd(place, host, SSH_PORT) as made:
        _files(made.home(LOGIN))
        yield {"known_hosts": made.known_hosts, "key": made.real_key.read_text()}


def _files(home: Path) -> None:
    """Something to be looked at."""
    (home / "app.log").write_text("".join(f"2026-01-0{day} order {day * 7} shipped\n" for day in range(1, 6)))
    (home / "deploy.env").write_text("REGION=eu-central-1\nAWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE\n")


def _cluster(place: Path, host: Host) -> Iterator[Handout]:
    with cluster(place, host, audit="Metadata") as made:
        yield {"ca.pem": made.ca.read_text(), "token": made.tokens[SERVICE_USER],
               "config": kubeconfig(made.url, Path(CREW_CA), {"token": "worthless"})}


def _provider(place: Path, host: Host) -> Iterator[Handout]:
    with keycloak(place, certificates.make_authority(), host) as made:
        yield {"ca.pem": made.ca.read_text(), "issuer": made.issuer,
               "people": "".join(f"{name} {made.passwords[name]}\n" for name in ("ada", "grace"))}


def _names(place: Path, host: Host) -> Iterator[Handout]:
    log = place / "dns.log"
    with server(host, python("lab.dns", host.ipv4), log, environment=python_environment()) as process:
        listening(host, host.ipv4, 53, process, log)
        yield {}


ROLES = {"db": Role(DB, _database), "ssh": Role(SSH, _ssh), "kube": Role(KUBE, _cluster), "idp": Role(OTHER, _provider),
         "dns": Role(CREW, _names)}


@contextmanager
def served(role: str, place: Path, addresses: tuple[str, str] = ("", "")) -> Iterator[Handout]:
    """A server that answers while the block runs.  `addresses`: of this machine; else those of the lab's host, which it
    has to have then."""
    chosen = ROLES[role].host
    own = Here(chosen.name, chosen.number, (addresses[0] or chosen.ipv4, addresses[1] or chosen.ipv6))
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o755, parents=True)
    parts = contextmanager(ROLES[role].serve)(place, own)
    with parts as handout:
        file = place / "handout.json"
        file.touch(0o600)
        file.write_text(json.dumps(handout))
        yield handout


def tell(message: str) -> None:
    """systemd, if it asked to be told: sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
            one.connect(address.replace("@", "\0", 1) if address.startswith("@") else address)
            one.send(message.encode())


def _second_address(host: Host) -> None:
    """Vagrant gives a machine its IPv4 address: the other one goes to the same link.  RuntimeError without it."""
    done = subprocess.run(["ip", "-o", "-4", "address", "show", "to", host.ipv4], capture_output=True, text=True,
                          check=True)
    if not done.stdout:
        raise RuntimeError(f"this machine does not have the address {host.ipv4}")
    ip(f"address replace {host.ipv6}/64 dev {done.stdout.split()[1]} nodad")


def _end(number: int, _: FrameType | None) -> None:
    sys.exit(0)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m lab.serve", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("role", choices=list(ROLES), nargs="?")
    parser.add_argument("--hosts", action="store_true", help="print the lines of /etc/hosts that the machines need")
    parser.add_argument("directory", type=Path, nargs="?")
    parser.add_argument("--address", nargs=2, default=("", ""), metavar=("IPV4", "IPV6"))
    chosen = parser.parse_args(argv)
    if chosen.hosts:
        print("".join(f"{host.ipv4} {name}\n" for name, host in NAMES.items()), end="")
        return 0
    if chosen.role is None:
        parser.error("which role?")
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    os.umask(0o022)
    if not any(chosen.address):
        _second_address(ROLES[chosen.role].host)
    with served(chosen.role, chosen.directory or STATE / chosen.role, tuple(chosen.address)):
        print(f"{chosen.role}: it answers", flush=True)
        tell("READY=1")
        while True:
            signal.pause()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
