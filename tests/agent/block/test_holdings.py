"""Which sockets are looked at, and that nobody but a crew's process is touched.  With this process' own children: no
privilege is needed to copy their descriptors."""
from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from agent.block import holdings
from agent.block.holdings import CONNECTION, ELSEWHERE, OWN, PROCESS, RECORD, SENT, Holdings, Place


def everything(_pid: int) -> bool:
    return True


def nothing(*_what: object) -> bool:
    return False


def others(_copy: socket.socket, _pid: int) -> str:
    return ELSEWHERE


def looker(**given: object) -> Holdings:
    parts = {"crew": everything, "whose": others, "outside": nothing} | given
    return Holdings(**parts)  # type: ignore[arg-type]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as door, socket.create_connection(door.getsockname()) as one:
        other, _ = door.accept()
        with other:
            yield one, other


@pytest.fixture
def child(pair: tuple[socket.socket, socket.socket]) -> Iterator[subprocess.Popen[bytes]]:
    """It holds the first of the pair."""
    with subprocess.Popen([sys.executable, "-c", "import sys; print('ready', flush=True); sys.stdin.read()"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(pair[0].fileno(),)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def opened() -> int:
    return len(os.listdir("/proc/self/fd"))


def copies() -> bool:
    """Whether this machine lets a process copy a child's descriptors."""
    try:
        pidfd = os.pidfd_open(os.getpid())
    except OSError:
        return False
    fd = holdings._libc.syscall(438, pidfd, 0, 0)
    os.close(pidfd)
    if fd >= 0:
        os.close(fd)
    return bool(fd >= 0)


needs_copies = pytest.mark.skipif(not copies(), reason="pidfd_getfd is refused here: run as root, Linux 5.6 or later")


@needs_copies
def test_a_socket_of_a_crew_is_ended_once(
    child: subprocess.Popen[bytes], pair: tuple[socket.socket, socket.socket],
) -> None:
    looking = looker()
    [found] = looking.look([child.pid], CONNECTION)
    assert (found.place.pid, found.done) == (child.pid, "its connection was ended")
    assert looking.look([child.pid], CONNECTION) == []
    with pytest.raises(OSError):
        pair[0].send(b"x")
    assert child.poll() is None


@needs_copies
@pytest.mark.parametrize("end", [CONNECTION, RECORD])
def test_a_socket_that_is_connected_again_is_noticed_again(
    child: subprocess.Popen[bytes], pair: tuple[socket.socket, socket.socket], end: str,
) -> None:
    """Whoever else holds it connects it past the hooks: they know the task, and that is none of a crew's."""
    looking = looker()
    assert len(looking.look([child.pid], end)) == 1
    with socket.create_server(("127.0.0.1", 0)) as door:
        for _ in range(2):
            holdings._libc.connect(pair[0].fileno(), holdings._UNSPECIFIED, len(holdings._UNSPECIFIED))
            assert looking.look([child.pid], end) == [], "nothing is new"
            pair[0].connect(door.getsockname())
            [again] = looking.look([child.pid], end)
            assert again.peer == f"127.0.0.1 {door.getsockname()[1]}"
            assert looking.look([child.pid], end) == []


@needs_copies
def test_what_a_crews_own_connect_sent_is_looked_at_again(
    child: subprocess.Popen[bytes], pair: tuple[socket.socket, socket.socket],
) -> None:
    """That is true of this connection alone: the next one may be another's."""
    answers = iter([SENT, SENT, ELSEWHERE])
    looking = looker(whose=lambda *_what: next(answers))
    assert [len(looking.look([child.pid], CONNECTION)) for _ in range(3)] == [0, 0, 1]


@needs_copies
@pytest.mark.parametrize("end", [CONNECTION, PROCESS, RECORD])
def test_a_process_that_is_no_crews_any_more_is_not_touched(
    child: subprocess.Popen[bytes], pair: tuple[socket.socket, socket.socket], end: str,
) -> None:
    """It has got the number of a crew's process between the list of them and the look."""
    assert looker(crew=nothing, outside=everything).look([child.pid], end) == []
    pair[0].send(b"x")
    time.sleep(0.05)
    assert child.poll() is None


@needs_copies
def test_what_is_no_socket_any_more_leaves_nothing_open() -> None:
    reading, writing = os.pipe()
    before = opened()
    for _ in range(5):
        with pytest.raises(OSError), looker()._process(Place(os.getpid(), os.getpid(), reading)) as process:
            holdings._copy(process, Place(os.getpid(), os.getpid(), reading))
    assert opened() == before
    os.close(reading)
    os.close(writing)


def test_who_waits_longest_is_looked_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    looking, order, fresh = looker(), [], iter(range(1000, 100_000))
    held: dict[int, Place] = {7: Place(1, 1, 3)}
    monkeypatch.setattr(holdings, "MOST", 10)
    monkeypatch.setattr(looking, "_examine", lambda inode, *_rest: (OWN, order.append(inode)))
    for _ in range(3):                # each time more new ones than are looked at, and all before it
        held = {next(fresh): Place(1, 1, 4) for _ in range(15)} | {7: Place(1, 1, 3)}
        monkeypatch.setattr(holdings, "_sockets", lambda _pids, held=held: iter(held.items()))
        looking.look([1], RECORD)
    assert 7 in order


def test_a_number_that_always_moves_on_is_known_by_its_inode(monkeypatch: pytest.MonkeyPatch) -> None:
    me = os.getpid()
    monkeypatch.setattr(holdings, "_sockets", lambda _pids: iter([(7, Place(me, me, 1 << 20))]))
    looking = looker(outside=everything)
    found = [looking.look([me], RECORD) for _ in range(holdings.MISSED + 1)]
    assert [len(one) for one in found] == [0] * holdings.MISSED + [1]


@needs_copies
def test_a_crew_cannot_have_a_look_wait_for_its_own_linger(pair: tuple[socket.socket, socket.socket]) -> None:
    """Its own descriptor is closed while the copy is looked at: then close(2) of the copy waits."""
    crews, _ = pair
    crews.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    crews.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            crews.send(bytes(1 << 16))
    crews.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
    copy = socket.socket(fileno=os.dup(crews.fileno()))
    os.close(crews.detach())
    done = threading.Thread(target=holdings._let_go, args=(copy,), daemon=True)
    done.start()
    done.join(5)
    assert not done.is_alive()
