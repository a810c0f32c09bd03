"""A unit that runs already when it is adopted: its cgroup, outside of the slice, is the crews' from then on.

The verdict is the server's; before the cgroup joins, each way leads to it.
"""
from __future__ import annotations

import json
import socket
import subprocess
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockhost import (
    DNS,
    DNS4,
    FLOOD,
    NAME,
    NOBODY,
    PORT,
    SERVER4,
    SERVER6,
    SINK,
    TOO_FAST,
    Block,
    listener,
    whose,
)
from lab.hosts import wait_until

from agent.block import cgroups, guard, holdings
from agent.block.cgroups import cgroup_id
from agent.block.containment import Containment
from probes import abi, libbpf

pytestmark = pytest.mark.kernel

OWN = """
import socket, sys
with socket.create_server(("127.0.0.1", 0)) as door:
    with socket.create_connection(door.getsockname(), 5) as one:
        door.accept()[0].sendall(b"itself")
        print(one.recv(9).decode(), flush=True)
    print(door.getsockname()[1], flush=True)
    sys.stdin.readline()
"""
SERVICE = """
import json, socket, sys
four, six, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
old = {"tcp": socket.create_connection((four, port), 5), "tcp6": socket.create_connection((six, port), 5),
       "udp": socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "unconnected": socket.socket(),
       "door": socket.create_server(("127.0.0.1", 0))}
old["udp"].connect((four, port))
if sys.argv[4:] == ["packet"]:
    old["packet"] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
print("ready", flush=True)
def say(how, token):
    if how == "new":
        with socket.create_connection((four, port), 3) as one:
            one.sendall(token)
    elif how == "new-udp":
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.connect((four, port))
            one.send(token)
    elif how == "unconnected":
        old[how].settimeout(3)
        old[how].connect((four, port))
        old[how].sendall(token)
    else:
        old[how].send(token)
for line in sys.stdin:
    how, token = line.split()
    try:
        say(how, token.encode())
        print("sent", flush=True)
    except OSError as reason:
        print(type(reason).__name__, flush=True)
"""


class Service:
    def __init__(self, block: Block, cgroup: Path, *more: str) -> None:
        def before() -> None:
            (cgroup / "cgroup.procs").write_text("0")

        cgroup.mkdir(parents=True, exist_ok=True)
        self.block, self.cgroup = block, cgroup
        self.process = subprocess.Popen(
            ["/usr/bin/python3", "-I", "-c", SERVICE, SERVER4, SERVER6, str(SINK), *more], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=before)
        block.started.append(self.process)
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def says(self, how: str, arrives: bool) -> str:
        """What it was told; whether the server has what it said."""
        token = f"token-{uuid.uuid4().hex}"
        assert self.process.stdin is not None
        self.process.stdin.write(f"{how} {token}\n")
        self.process.stdin.flush()
        told = self._line()
        if arrives:
            wait_until("the server", lambda: self.block.sink.saw(token), 5)
        else:
            assert not self.block.sink.saw(token)
        return told


@pytest.fixture
def cgroup(contained: Block) -> Iterator[Path]:
    path = contained.containment.slice.parent / f"{NAME}-other.slice" / "a-b@1.service"
    yield path
    if path.exists():
        cgroups.kill(path)
        wait_until("it is empty", lambda: not cgroups.populated(path))
        cgroups.remove(path.parent)
    contained.containment.leave(path)


def test_what_runs_is_contained_from_then_on(contained: Block, cgroup: Path) -> None:
    containment, service = contained.containment, Service(contained, cgroup)
    for how in ("tcp", "tcp6", "udp", "new", "new-udp"):
        assert service.says(how, arrives=True) == "sent"
    assert not containment.is_crew(service.process.pid)

    found = containment.join(cgroup, holdings.CONNECTION)

    assert sorted((one.family, one.peer, one.done) for one in found if one.peer) == [
        ("INET datagram", f"{SERVER4} {SINK}", "left: its packets are dropped"),
        ("INET stream", f"{SERVER4} {SINK}", "its connection was ended"),
        ("INET6 stream", f"{SERVER6} {SINK}", "its connection was ended")]
    assert containment.problems() == []
    assert containment.is_crew(service.process.pid)
    assert containment.crew() >= {service.process.pid}
    for how in ("tcp", "tcp6"):
        assert service.says(how, arrives=False) != "sent"
    for how in ("udp", "new-udp"):
        service.says(how, arrives=False)
    with listener() as enforcer:
        for how in ("new", "unconnected"):
            assert service.says(how, arrives=False) == "sent"
            with enforcer.accept()[0] as accepted:
                origin = whose(contained, accepted)
            assert origin is not None
            assert (origin.owner, origin.tgid, origin.cgroup) == (0, service.process.pid, cgroup_id(cgroup))
            assert (origin.destination, origin.port) == (SERVER4, SINK)
    assert containment.foreign_sockets(holdings.RECORD) == [], "said when it joined, and no alarm later"


def test_what_is_only_reported_is_dropped(contained: Block, cgroup: Path) -> None:
    service = Service(contained, cgroup)
    found = contained.containment.join(cgroup, holdings.RECORD)
    assert {one.done for one in found} == {"left: its packets are dropped"}
    for how in ("tcp", "tcp6", "udp"):
        service.says(how, arrives=False)


def test_a_socket_that_no_rule_sees_ends_its_process(contained: Block, cgroup: Path) -> None:
    service = Service(contained, cgroup, "packet")
    found = contained.containment.join(cgroup, holdings.CONNECTION)
    assert ("PACKET raw", "its process was killed") in {(one.family, one.done) for one in found}
    assert service.process.wait(10) == -9


def test_each_layer_alone(contained: Block, cgroup: Path) -> None:
    """New connects: the hooks rewrite them, the rules redirect or drop them."""
    from agent.block import nft

    service = Service(contained, cgroup)
    contained.containment.join(cgroup, holdings.CONNECTION)
    nft.delete_table(NAME)
    for how in ("new", "unconnected"):
        assert service.says(how, arrives=False) == "ConnectionRefusedError", "the listener is not there"
    contained.containment.repair()
    contained.containment.close()
    for pin in contained.containment.bpffs.glob("link_*"):
        pin.unlink()
    for how in ("new", "new-udp"):
        service.says(how, arrives=False)
    contained.containment.repair()
    assert contained.containment.problems() == []


def test_another_agent_finds_it_again(contained: Block, cgroup: Path) -> None:
    service = Service(contained, cgroup)
    contained.containment.join(cgroup, holdings.CONNECTION)
    another = Containment(NAME, port=PORT, resolver=(DNS4, DNS), redirect=True, run=contained.run,
                          headers=contained.run / "headers")
    another.install()
    try:
        assert another.joined() == (cgroup,)
        assert another.problems() == []
        assert another.is_crew(service.process.pid)
        service.says("new", arrives=False)
    finally:
        another.close()


def test_a_guard_beside_the_agent_knows_it(contained: Block, cgroup: Path) -> None:
    """It runs before each start of an adopted unit: also while others are joined, and come and go."""
    guarding = contained.fresh()
    other = cgroup.with_name("c-d@2.service")
    for one in (cgroup, other):
        one.mkdir(parents=True)
        contained.containment.join(one, holdings.RECORD)
        assert guard._problems(guarding) == []
    other.rmdir()
    contained.containment.leave(other)
    assert guard._problems(guarding) == []
    libbpf.update(contained.containment._map("joined"), bytes(4), bytes(16))
    assert guard._problems(guarding) != [], "it still looks"
    contained.containment.repair()


@pytest.mark.parametrize("end", [holdings.CONNECTION, holdings.RECORD])
@pytest.mark.parametrize("when", ["meanwhile", "begun before", "ended after"])
def test_what_it_had_open_is_no_alarm(
    contained: Block, cgroup: Path, monkeypatch: pytest.MonkeyPatch, end: str, when: str,
) -> None:
    """The watch looks at what crews hold at any moment of it."""
    service, containment = Service(contained, cgroup), contained.containment
    crew, noted, alarms = containment.crew, containment._noted, []
    once = iter([True])

    def looked(*what: object) -> str:
        if next(once, False):
            alarms.extend(containment.foreign_sockets(holdings.CONNECTION))
        return noted(*what)  # type: ignore[arg-type]

    def joined() -> set[int]:
        before = crew()
        if next(once, False):
            containment.join(cgroup, end)
        return before if when == "begun before" else crew()

    if when == "meanwhile":
        monkeypatch.setattr(containment, "_noted", looked)
        found = containment.join(cgroup, end)
        assert len(found) == 5
        assert {one.done for one in found if one.peer and "stream" in one.family} == {
            "its connection was ended" if end == holdings.CONNECTION else "left: its packets are dropped"}
    else:
        monkeypatch.setattr(containment, "crew", joined)
        alarms.extend(containment.foreign_sockets(holdings.CONNECTION))
    for _ in range(3):
        alarms.extend(containment.foreign_sockets(holdings.CONNECTION))
    assert alarms == []
    assert service.process.poll() is None


def test_what_it_is_handed_later_is_one(contained: Block, cgroup: Path) -> None:
    service = Service(contained, cgroup)
    contained.containment.join(cgroup, holdings.CONNECTION)
    with socket.create_connection((SERVER4, SINK), 5) as link:
        process = started(contained, cgroup, "input()", handed=link)
        [found] = contained.containment.foreign_sockets(holdings.CONNECTION)
        assert (found.place.pid, found.peer, found.done) == (
            process.pid, f"{SERVER4} {SINK}", "its connection was ended")
    assert service.process.poll() is None


def test_it_leaves(contained: Block, cgroup: Path) -> None:
    service = Service(contained, cgroup)
    containment = contained.containment
    containment.join(cgroup, holdings.CONNECTION)
    service.says("new", arrives=False)
    containment.leave(cgroup)
    assert containment.problems() == []
    assert service.says("new", arrives=True) == "sent"
    assert not containment.is_crew(service.process.pid)


def started(
    block: Block, cgroup: Path, script: str, *arguments: object, handed: socket.socket | None = None,
) -> subprocess.Popen[str]:
    """In a cgroup."""
    def before() -> None:
        (cgroup / "cgroup.procs").write_text("0")

    process = subprocess.Popen(["/usr/bin/python3", "-I", "-c", script, *map(str, arguments)], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=before,
                               pass_fds=[handed.fileno()] if handed else [])
    block.started.append(process)
    return process


def test_its_turn_is_its_own(contained: Block, cgroup: Path) -> None:
    """Whatever it makes below; not its slice's, in which other units are."""
    deep, other = cgroup / "below" / "again", cgroup.with_name("c-d@2.service")
    deep.mkdir(parents=True)
    other.mkdir()
    for one in (cgroup, other):
        contained.containment.join(one, holdings.CONNECTION)
    said = Counter(json.loads(started(contained, deep, FLOOD, abi.CONNECTS_AT_ONCE + 1000).communicate(timeout=60)[0]))
    assert started(contained, other, FLOOD, 1).communicate(timeout=30)[0] == f'{{"{NOBODY}": 1}}\n'
    [told] = contained.containment.bounded()
    assert (told.owner, told.cgroup, told.refused) == (0, cgroup_id(cgroup), said[TOO_FAST])
    assert said[TOO_FAST] > 0
    other.rmdir()
    contained.containment.leave(other)


def test_on_loopback_it_reaches_itself_alone(contained: Block, cgroup: Path) -> None:
    cgroup.mkdir(parents=True)
    contained.containment.join(cgroup, holdings.CONNECTION)
    server = started(contained, cgroup, OWN)
    assert server.stdout is not None
    assert server.stdout.readline() == "itself\n"
    port = int(server.stdout.readline())
    with socket.socket() as host:
        host.settimeout(0.5)
        with pytest.raises(TimeoutError):
            host.connect(("127.0.0.1", port))
    crew = contained.python("import socket, sys\ntry: socket.create_connection(('127.0.0.1', int(sys.argv[1])), 1)\n"
                            "except OSError as error: print(error.strerror)", port, mark=12)
    assert crew.communicate(timeout=20)[0] == f"{NOBODY}\n", "it is sent to the listener, which is not there"
    with socket.create_server(("127.0.0.1", 0)) as door:
        process = started(contained, cgroup, FLOOD.replace('"203.0.113.9", 9', '"127.0.0.1", int(sys.argv[2])'), 1,
                          door.getsockname()[1])
        assert process.communicate(timeout=20)[0] == f'{{"{NOBODY}": 1}}\n'


def test_it_stands_still_with_the_slice(contained: Block, cgroup: Path) -> None:
    containment = contained.containment
    cgroup.mkdir(parents=True)

    def frozen() -> bool:
        return (cgroup / "cgroup.freeze").read_text() == "1\n"

    containment.join(cgroup, holdings.CONNECTION)
    containment.freeze(True)
    try:
        assert frozen()
        containment.leave(cgroup)
        assert not frozen(), "it is nobody's any more"
        containment.join(cgroup, holdings.CONNECTION)
        assert frozen()
    finally:
        containment.freeze(False)
    assert not frozen()


def test_what_the_probes_know_is_looked_at(contained: Block, cgroup: Path) -> None:
    containment = contained.containment
    cgroup.mkdir(parents=True)
    containment.join(cgroup, holdings.CONNECTION)
    libbpf.update(containment._map("joined"), bytes(4), bytes(16))
    assert containment.problems() == ["the probes know other cgroups outside of the slice"]
    containment.repair()
    assert containment.problems() == []


def test_it_ends_and_is_made_again(contained: Block, cgroup: Path) -> None:
    """systemd removes the cgroup of a unit that stops; where the unit comes up outside of the slice once more, it is
    taken in again."""
    containment, service = contained.containment, Service(contained, cgroup)
    containment.join(cgroup, holdings.CONNECTION)
    service.process.kill()
    service.process.wait()
    wait_until("it is empty", lambda: not cgroups.populated(cgroup))
    cgroup.rmdir()
    assert containment.problems() == [], "the rules hold a number that nothing has"
    service = Service(contained, cgroup)
    assert [one for one in containment.problems() if "made again" in one]
    containment.repair()
    assert containment.problems() == []
    service.says("new", arrives=False)


def test_a_unit_below_no_slice(contained: Block) -> None:
    """Slice=-.slice."""
    path = contained.containment.slice.parent / f"{NAME}.service"
    service = Service(contained, path)
    try:
        contained.containment.join(path, holdings.CONNECTION)
        assert contained.containment.problems() == []
        service.says("new", arrives=False)
    finally:
        contained.end()
        cgroups.kill(path)
        wait_until("it is empty", lambda: not cgroups.populated(path))
        path.rmdir()
        contained.containment.leave(path)


def test_what_may_not_join(contained: Block, cgroup: Path) -> None:
    root = contained.containment.slice.parent
    for wrong in (root, root / "system.slice", contained.containment.slice / "one", Path("/tmp/a/b"),
                  root / "a.slice" / ".." / ".."):
        with pytest.raises((ValueError, OSError)):
            contained.containment.join(wrong, holdings.RECORD)
    with pytest.raises(FileNotFoundError):
        contained.containment.join(root / "a.slice" / "nothing.service", holdings.RECORD)
    assert contained.containment.joined() == ()


def test_no_more_than_fit(contained: Block, cgroup: Path) -> None:
    containment = contained.containment
    made = [cgroup.with_name(f"u{number}.service") for number in range(abi.JOINED + 1)]
    try:
        for one in made:
            one.mkdir(parents=True)
        for one in made[:-1]:
            containment.join(one, holdings.RECORD)
        assert containment.problems() == []
        with pytest.raises(ValueError, match="restart one"):
            containment.join(made[-1], holdings.RECORD)
        made[0].rmdir()
        containment.join(made[-1], holdings.RECORD)
        assert json.dumps(sorted(map(str, containment.joined()))) == json.dumps(sorted(map(str, made[1:])))
        assert containment.problems() == []
    finally:
        for one in made:
            if one.exists():
                one.rmdir()
            containment.leave(one)
        cgroup.parent.rmdir()
