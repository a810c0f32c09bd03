"""Effects: what other processes say: a recording, by `weir egress suggest`; files of a user, by agent/init/home.py."""
from __future__ import annotations

import os
import pwd
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from agent.contract.said import safe
from agent.init.findings import OTHER, PORTS, Peer
from agent.init.strings import host_of, is_usual
from agent.processes import ENVIRONMENT, python_module, unprivileged
from agent.settings.credential_table import POSTGRESQL, SSH

_ANSWER: Final = 8 << 20              # bytes of a process that was asked
_CHUNK: Final = 1 << 16
_PATIENCE: Final = 60.0               # seconds for one
_SPEAKS: Final = {"postgresql": POSTGRESQL, "ssh": SSH}        # as a recording says what was spoken


def asked(command: Sequence[str], shape: Any, what: str, notes: list[str]) -> Any:
    """The JSON of a process, which others may have a hand in: bounded in bytes and time, and nothing that it says is
    repeated.  None, and a note, where it has none."""
    try:
        output, code = _output(command)
        if code == 0 and len(output) <= _ANSWER:
            return msgspec.json.decode(output, type=shape)
        wrong = (f"it would be more than {_ANSWER} bytes" if len(output) > _ANSWER else
                 f"who was to read it ended with {code}")
    except OSError as reason:
        wrong = reason.strerror or "nobody could be asked"
    except msgspec.MsgspecError:
        wrong = "what was said of it is not understood"
    notes.append(f"{what} not read: {wrong}")
    return None


def _output(command: Sequence[str]) -> tuple[bytes, int]:
    """One byte too many at most; and how it ended, -9 where it was too slow.  Others may hold its pipe open when it has
    ended: nobody waits for that.  A session of its own, for who may change what it does (ptrace(2)) would type on the
    terminal that root sits at (TIOCSTI, ioctl_tty(2)).  Raises OSError."""
    ends = time.monotonic() + _PATIENCE
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          env=ENVIRONMENT, cwd="/", start_new_session=True) as process:
        assert process.stdout is not None
        output, more = bytearray(), True
        while more and len(output) <= _ANSWER:
            if not select.select([process.stdout], [], [], max(0.0, ends - time.monotonic()))[0]:
                break
            output += (got := os.read(process.stdout.fileno(), _CHUNK))
            more = bool(got)
        try:
            if more:
                process.kill()
            return bytes(output), process.wait(max(0.0, ends - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            return b"", process.wait()


class _Place(msgspec.Struct):
    """As `weir egress suggest --json` has it."""

    kind: str
    host: str
    port: int
    speaks: tuple[str, ...]
    count: int
    workloads: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


def recorded_peers(recording: Path, notes: list[str]) -> Iterator[Peer]:
    """What crews reached in the modes `record` and `shadow`.  It is read by the user whose the recording is."""
    command = [*python_module("agent.cli"), "egress", "suggest", "--json", "--recording", str(recording)]
    if (owner := _owner(recording)) != "root":
        command = unprivileged(command, owner, role="look")
    found = asked(command, list[_Place], f"the recording in {recording} is", notes)
    for one in found or ():
        host = host_of(one.host)
        protocol = next((_SPEAKS[word] for word in one.speaks if word in _SPEAKS), PORTS.get(one.port, OTHER))
        if not host or one.kind not in ("egress", "target"):
            notes.append(f"recorded and not proposed: {safe(one.host)} port {one.port} ({safe(one.kind)}); weir egress "
                         "suggest says more")
            continue
        protocol = protocol if one.kind == "target" else OTHER
        yield Peer(protocol, (host,), one.port,
                   (f"{one.count} recorded connection{'' if one.count == 1 else 's'} of "
                    f"{', '.join(map(safe, one.workloads))}",),
                   addresses=tuple(filter(None, map(host_of, one.addresses))),
                   sure=protocol != OTHER or is_usual(host, one.port))


def _owner(recording: Path) -> str:
    try:
        return pwd.getpwuid(os.stat(recording).st_uid).pw_name
    except (OSError, KeyError):
        return "root"
