"""One measurement of an SSH client, run as the crew's user.  Prints {"rate": per second, "p50": µs, "count": N}.

    ssh_client.py MEASURE COUNT        MEASURE: handshake, exec, echo, sessions; read, write, get, put in bytes
"""
from __future__ import annotations

import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import time

import asyncssh

HOST, LOGIN, WORK = os.environ["HOST"], os.environ["LOGIN"], os.environ["WORK"]
AT = f"{LOGIN}@{HOST}"
TOGETHER = 16                         # logins that are under way at once


def connect() -> asyncssh.connect:
    return asyncssh.connect(HOST, username=LOGIN, known_hosts=os.path.expanduser("~/.ssh/known_hosts"), config=None,
                            agent_path=None, client_keys=[os.path.expanduser("~/.ssh/id_ed25519")])


def say(rate: float, p50: float, count: float) -> None:
    print(json.dumps({"rate": rate, "p50": p50 * 1e6, "count": count}))


async def handshake(count: int) -> None:
    """Connect, be let in, leave; one after the other."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        async with connect():
            took.append(time.perf_counter() - began)
    say(count / sum(took), statistics.median(took), count)


async def execute(count: int) -> None:
    """Commands on one connection, one after the other."""
    took = []
    async with connect() as connection:
        await connection.run("true")
        for number in range(count):
            began = time.perf_counter()
            done = await connection.run(f"echo {number}")
            took.append(time.perf_counter() - began)
            assert done.stdout == f"{number}\n", done
    say(count / sum(took), statistics.median(took), count)


async def echo(count: int) -> None:
    """A key pressed in a terminal, until it is seen."""
    took = []
    async with connect() as connection, connection.create_process("cat", term_type="xterm") as process:
        for number in range(count):
            letter = "abcdefghij"[number % 10]
            began = time.perf_counter()
            process.stdin.write(letter)
            assert await process.stdout.readexactly(1) == letter
            took.append(time.perf_counter() - began)
            if number % 64 == 63:     # a line of a terminal is only so long
                process.stdin.write("\n")
                await process.stdout.readuntil("\n")
                await process.stdout.readuntil("\n")
    say(count / sum(took), statistics.median(took), count)


async def sessions(count: int) -> None:
    """So many connections that are open at once, a command in each."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    gate, took = asyncio.Semaphore(TOGETHER), []
    all_in, waiting = asyncio.Event(), [count]

    async def one(number: int) -> None:
        async with gate:
            connection = await connect()
        async with connection:
            waiting[0] -= 1
            if not waiting[0]:
                all_in.set()
            await all_in.wait()
            began = time.perf_counter()
            done = await connection.run(f"echo {number}")
            took.append(time.perf_counter() - began)
            assert done.stdout == f"{number}\n", done

    began = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(count)))
    say(count / (time.perf_counter() - began), statistics.median(took), count)


def bulk(measure: str, count: int) -> None:
    """OpenSSH's own programs; rate in bytes."""
    argv = {
        "read": ["sh", "-c", f"ssh {AT} 'head -c {count} /dev/zero' | wc -c"],
        "write": ["sh", "-c", f"head -c {count} /dev/zero | ssh {AT} 'wc -c'"],
        "get": ["sh", "-c", f"echo 'get {WORK}/zeros /dev/null' | sftp -q -b - {AT} >&2 && echo {count}"],
        "put": ["sh", "-c", f"head -c {count} /dev/zero >zeros && echo 'put zeros /dev/null' | sftp -q -b - {AT} >&2 "
                            f"&& rm zeros && echo {count}"],
    }[measure]
    if measure == "get":
        subprocess.run(["ssh", AT, f"head -c {count} /dev/zero > {WORK}/zeros"], check=True)
    began = time.perf_counter()
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True)
    took = time.perf_counter() - began
    assert done.stdout.strip() == str(count), done.stdout
    say(count / took, took, count / 1e6)


def main() -> None:
    measure, count = sys.argv[1], int(sys.argv[2])
    if measure in ("read", "write", "get", "put"):
        bulk(measure, count)
    else:
        asyncio.run({"handshake": handshake, "exec": execute, "echo": echo, "sessions": sessions}[measure](count))


main()
