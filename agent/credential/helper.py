"""The exec helper of a [[target.credential]]: a program of root's that prints a credential as one JSON object.

It runs as the unprivileged user that the row names, in a cgroup of its own that is killed when it ends or takes too
long, with an empty standard input, no other descriptor and an environment that holds what the row is for.  Nothing that
a crew chose reaches it.  What it writes to standard error may hold secrets and is thrown away.
"""
from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final

import msgspec

from agent.contract.credential import Credential
from agent.credential.kept import Fetched, keep_until
from agent.credential.secrets import PASSWORD_LIMIT, PEM_LIMIT, SecretError
from agent.processes import ENVIRONMENT, unprivileged
from agent.services import end_all, wait_empty
from agent.settings.credential_table import CredentialRow

OUTPUT: Final = 2 * PEM_LIMIT + (1 << 16)     # bytes: a chain, a key, a password
USER_LIMIT: Final = 256               # characters
GONE: Final = 5.0                     # seconds that killed processes may take to go
_CHUNK: Final = 1 << 16
Parse = Callable[[bytes, str, float], tuple[Credential, float]]       # as parse_output
NONE: Final[Mapping[str, str]] = MappingProxyType({})


class Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a helper prints."""

    user: Annotated[str, msgspec.Meta(max_length=USER_LIMIT)] = ""
    password: Annotated[str, msgspec.Meta(max_length=PASSWORD_LIMIT)] = ""
    certificate: Annotated[str, msgspec.Meta(max_length=PEM_LIMIT)] = ""
    key: Annotated[str, msgspec.Meta(max_length=PEM_LIMIT)] = ""
    expires: Annotated[datetime, msgspec.Meta(tz=True)] | None = None

    def __repr__(self) -> str:
        return "Said(...)"


_DECODER: Final = msgspec.json.Decoder(Said)


def parse_output(output: bytes, user: str, now: float, *, ssh: bool = False) -> tuple[Credential, float]:
    """Pure: the credential, and when it expires (Unix seconds, 0: not said).  `user`: the row's, "" where it has none;
    with SSH the crew says one then, and a key need not have a certificate.
    Raises SecretError, without a word of the output."""
    try:
        said = _DECODER.decode(output)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise SecretError("printed something else than the JSON object that a helper prints") from None
    if any("\0" in text for text in (said.user, said.password)):
        raise SecretError("printed a zero byte")
    if user and said.user not in ("", user):
        raise SecretError("printed another user than the row names")
    if not (said.user or user or ssh):
        raise SecretError("printed no user, and the row names none")
    if ssh and not (said.password or said.key):
        raise SecretError("printed neither a password nor a key")
    if not ssh and (bool(said.certificate) != bool(said.key) or not (said.password or said.certificate)):
        raise SecretError("printed neither a password nor a certificate with its key")
    expires = said.expires.timestamp() if said.expires else 0.0
    if said.expires and expires <= now:
        raise SecretError("printed a credential that has expired")
    return Credential(said.user or user, said.password, said.certificate, said.key, int(expires)), expires


parse_ssh: Final = partial(parse_output, ssh=True)


class Helper:
    """Runs helpers, each start in a cgroup of its own below `cgroup`."""

    def __init__(self, cgroup: Path) -> None:
        self._cgroup, self._numbers = cgroup, itertools.count(1)

    async def fetch(
        self, target: str, program: str, row: CredentialRow, *, parse: Parse = parse_output,
        variables: Mapping[str, str] = NONE,
    ) -> Fetched:
        """`program`: as rooted.program found it; `variables`: of its environment besides.  Raises SecretError."""
        assert row.exec
        try:
            output = await self.run(
                [program, *row.exec[1:]], row.exec_user or "", row.exec_timeout,
                {"WEIR_TARGET": target, "WEIR_DATABASE": row.database, "WEIR_ROLE": row.role, **variables})
            credential, expires = parse(output, row.user or "", time.time())
        except SecretError as reason:
            raise SecretError(f"its helper {row.exec[0]} {reason}") from None
        except OSError as reason:
            raise SecretError(f"its helper {row.exec[0]} cannot be started: {reason.strerror}") from None
        return Fetched(credential, keep_until(expires) if expires else 0.0)

    async def run(
        self, command: Sequence[str], user: str, seconds: float, variables: Mapping[str, str] = NONE,
        given: bytes | None = None, role: str = "",
    ) -> bytes:
        """Its output.  `given`: its standard input, empty where it is None; `role`: of agent.confined.roles, for code
        of Weir's own.  Raises SecretError, OSError."""
        cgroup = self._cgroup / str(next(self._numbers))
        cgroup.mkdir(parents=True, exist_ok=True)
        end_all(cgroup)               # of an agent that was killed
        try:
            down = unprivileged(command, user, cgroup=cgroup, dies_with_parent=True, variables=variables,
                                role=role)
            process = await asyncio.create_subprocess_exec(
                *down, stdin=asyncio.subprocess.DEVNULL if given is None else asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=ENVIRONMENT, cwd="/",
                start_new_session=True)
            try:
                return await _listen(process, cgroup, seconds, given)
            finally:
                _end(process, cgroup)
                await process.wait()
        finally:
            await wait_empty(cgroup, GONE)
            with suppress(OSError):
                cgroup.rmdir()


async def _listen(
    process: asyncio.subprocess.Process, cgroup: Path, seconds: float, given: bytes | None = None,
) -> bytes:
    """Its output.  What it started ends with it.  Raises SecretError."""
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            output = group.create_task(_read(process.stdout, process, cgroup))
            noise = group.create_task(_discard(process.stderr))
            if given is not None:
                await _give(process, given)
            await _exit(process.pid)
            end_all(cgroup)           # what it left running, which may hold its output open
    except TimeoutError:
        raise SecretError(f"took longer than {seconds:.0f} s and was killed") from None
    if len(output.result()) > OUTPUT:
        raise SecretError(f"printed more than {OUTPUT} bytes and was killed")
    if await process.wait():
        raise SecretError(_ended(process.returncode or 0, noise.result()))
    return output.result()


async def _give(process: asyncio.subprocess.Process, content: bytes) -> None:
    assert process.stdin is not None
    with suppress(ConnectionError):   # it has ended: its exit code says more
        process.stdin.write(content)
        await process.stdin.drain()
        process.stdin.close()


async def _exit(pid: int) -> None:
    """Until it has exited.  asyncio's own wait() goes on until its output is closed, which others may hold open."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(fd, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)


async def _read(stream: asyncio.StreamReader, process: asyncio.subprocess.Process, cgroup: Path) -> bytes:
    found = bytearray()
    while len(found) <= OUTPUT and (chunk := await stream.read(_CHUNK)):
        found += chunk
    if len(found) > OUTPUT:
        _end(process, cgroup)
    return bytes(found)


async def _discard(stream: asyncio.StreamReader) -> int:
    """How much there was."""
    size = 0
    while chunk := await stream.read(_CHUNK):
        size += len(chunk)
    return size


def _end(process: asyncio.subprocess.Process, cgroup: Path) -> None:
    """Also where it has not entered its cgroup yet."""
    end_all(cgroup)
    with suppress(ProcessLookupError):
        process.kill()


def _ended(code: int, noise: int) -> str:
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return how + (f"; the {noise} bytes that it wrote to standard error are not shown" if noise else "")
