"""What matrix.toml has no row for: the registered port itself, the start, the control socket."""
from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from escape.attempts import SINK
from escape.sink import Sink
from lab.hosts import DB, OTHER, USER
from lab.lab import Lab
from lab.weir import Installed, weir

pytestmark = pytest.mark.lab

RACES = int(os.environ.get("WEIR_RACES", "40"))
AT_A_TIME = 4                         # which races all the more


@pytest.fixture(scope="module")
def contained(the_lab: Lab) -> Iterator[Installed]:
    with weir(the_lab) as installed:
        yield installed


def test_the_registered_port_reaches_only_the_enforcer(contained: Installed) -> None:
    """Dialled by hand, the database's port answers as the enforcer: a startup that policy refuses gets Weir's words."""
    script = (
        "import socket, struct\n"
        "body = struct.pack('!I', 196608) + b'user\\0crew_svc\\0database\\0postgres\\0replication\\0true\\0\\0'\n"
        f"s = socket.create_connection(('{DB.ipv4}', 5432), 10)\n"
        "s.sendall(struct.pack('!I', len(body) + 4) + body)\n"
        "print(s.recv(4096))\n"
    )
    done = contained.crew("/usr/bin/python3", "-c", script)
    assert "Weir does not carry replication" in done.stdout, done.stdout + done.stderr


def test_start_race(contained: Installed, sink: Sink) -> None:
    """A command that connects in its first instructions, many times over: never once past the block."""
    source = contained.lab.home / "race.c"
    source.write_text(RACE)
    program = contained.lab.home / "race"
    subprocess.run(["gcc", "-O2", "-o", program, source], check=True)
    token = f"token-{uuid.uuid4().hex}"

    def race(number: int) -> None:
        done = contained.crew(str(program), DB.ipv4, str(SINK), f"{token}-{number}", timeout=30, network="host")
        assert done.returncode in (1, 2), done.stderr

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        list(pool.map(race, range(RACES)))
    assert not sink.saw(token)
    control = subprocess.run(OTHER.argv([str(program), DB.ipv4, str(SINK), f"{token}-control"]), timeout=30)
    assert control.returncode == 0
    assert sink.saw(f"{token}-control")


RACE = r"""
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    struct timeval wait = {2, 0};
    char back[16];
    int s = socket(AF_INET, SOCK_STREAM, 0);
    inet_pton(AF_INET, argv[1], &to.sin_addr);
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    if (connect(s, (struct sockaddr *)&to, sizeof to) != 0) return 1;
    if (write(s, argv[3], strlen(argv[3])) < 0) return 2;
    return read(s, back, sizeof back) > 0 ? 0 : 2;
}
"""


def test_crews_are_refused_at_the_control_socket(contained: Installed) -> None:
    """By kernel identity, whatever the uid: the socket is not in the view, and where it is, it refuses."""
    done = contained.crew(str(contained.prefix / "bin" / "weir"), "--config", str(contained.config), "status")
    assert done.returncode != 0
    assert "enforcing" not in done.stdout
    assert contained.weir("status", user=USER).returncode in (0, 1)
