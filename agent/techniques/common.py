"""What every way round needs: where to, how long, and the echo that says that it arrived."""
from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

WAIT = 3.0                            # seconds for any one attempt
libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Where:
    """The server and what stands around; rendered as KEY=VALUE words, so that a person can type them."""

    host4: str                        # the server
    host6: str
    port: int                         # which nobody registered
    listener: int = 0                 # the enforcer's, on loopback
    registered: int = 5432            # the port of the server that a target names
    own4: str = "127.0.0.1"           # addresses of the host that this runs on
    own6: str = "::1"
    link: str = ""                    # the server's link-local address
    calls: int = 0                    # the port that the server dials
    source: int = 0                   # the source port by which the server knows an attempt that carries no token
    pids: str = ""                    # of Weir's own processes, by commas
    bystander: int = 0                # a process of the same user outside, which holds a connection to the server
    began: int = 0                    # when it did, as `start_of` has it
    held: int = 0                     # its descriptor
    memory: int = 0                   # the key of its System V shared memory
    handing: str = ""                 # the Unix socket on which it hands sockets out
    door: str = ""                    # the Unix socket of a service of the host, which speaks to the server
    abstract: str = ""                # the same as an abstract name
    terminal: str = ""                # socket of a terminal multiplexer outside
    times: int = 40                   # that a socket of others is used, a tenth of a second apart, or until it is ended
    run: str = ""                     # Weir's run directory
    table: str = ""                   # Weir's nftables table

    def words(self) -> list[str]:
        return [f"{one.name}={getattr(self, one.name)}" for one in fields(self)]


def parse_where(words: Sequence[str]) -> Where:
    said: dict[str, str] = dict(word.split("=", 1) for word in words)
    numbers = {name: int(value) for name, value in said.items() if Where.__dataclass_fields__[name].type == "int"}
    return Where(**(said | numbers))  # type: ignore[arg-type]


Work = Callable[[bytes, Where], None]


def tcp(token: bytes, family: int, host: str, port: int, *, scope: int = 0) -> None:
    with socket.socket(family) as s:
        s.settimeout(WAIT)
        s.connect((host, port, 0, scope) if scope else (host, port))
        say(s, token)


def say(s: socket.socket, token: bytes) -> None:
    """The server echoes what it counts."""
    s.sendall(token + b"\n")
    echoed(s, token)


def echoed(s: socket.socket, token: bytes) -> None:
    got = s.recv(65536)
    if token not in got:
        raise OSError(f"no echo: {got[:80]!r}")


def start_of(pid: int) -> int:
    """Clock ticks after boot, proc_pid_stat(5) field 22: with its number, which is used again, it is the process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def was_the_bystander(to: Where) -> None:
    """What was reached by its number: in a PID namespace of its own, the number may be that of a process there."""
    with contextlib.suppress(FileNotFoundError):
        if start_of(to.bystander) != to.began:
            raise ProcessLookupError(f"{to.bystander} is another process here")


def called(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def in_child(work: Callable[[], None]) -> None:
    """Run it in a child; OSError where it did not get through."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except OSError as error:
            print(error, flush=True)
        finally:
            os._exit(1)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise OSError("the child did not get through")


def first(attempts: Sequence[Callable[[], None]]) -> None:
    """All at once, for each may wait; through where one of them is, else what each said."""
    with ThreadPoolExecutor(max(1, len(attempts))) as pool:
        said = [future.exception() for future in [pool.submit(one) for one in attempts]]
    for error in said:
        if error is not None and not isinstance(error, OSError):
            raise error
        print(error or "one of them", flush=True)
    if None not in said:
        raise OSError("none of them")


def collected(*works: Work) -> dict[str, Work]:
    return {work.__name__.replace("_", "-"): work for work in works}
