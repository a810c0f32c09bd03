"""asyncssh: processes, signals, break, window change, sftp, forwards, many sessions at once on one connection."""
from __future__ import annotations

import asyncio
import hashlib
import os
import socket

import asyncssh
from common import HERE, HOST, LOGIN, SIZE, WORK, begin, binary, finish, make_binary, said, sha256

ECHO_PORT = int(os.environ["ECHO_PORT"])


async def processes(connection: asyncssh.SSHClientConnection) -> None:
    done = await connection.run("echo out; echo err >&2; exit 7")
    said.append([done.stdout, done.stderr, done.exit_status])
    done = await connection.run("kill -USR1 $$")
    said.append([done.exit_status, done.exit_signal[0] if done.exit_signal else None, done.returncode])
    async with connection.create_process("cat; echo end") as process:
        process.stdin.write("half")
        process.stdin.write_eof()
        said.append(await process.stdout.read())
    trap = "trap 'echo got; exit 3' INT; echo ready; while :; do sleep 0.05; done"
    async with connection.create_process(trap) as process:
        said.append(await process.stdout.readline())
        process.send_signal("INT")
        said.append([await process.stdout.read(), (await process.wait()).exit_status])
    async with connection.create_process("stty size; read x; stty size", term_type="xterm",
                                         term_size=(91, 29)) as process:
        said.append((await process.stdout.readline()).strip())
        process.change_terminal_size(120, 50)
        await asyncio.sleep(0.3)
        process.send_break(500)
        process.stdin.write("\n")
        await process.stdout.readline()
        said.append((await process.stdout.readline()).strip())
    done = await connection.run("echo $LAB_ONE", env={"LAB_ONE": "one", "PATH_NOT": "x"})
    said.append(done.stdout)
    done = await connection.run("cat", input=binary(400_000), encoding=None)
    said.append(hashlib.sha256(done.stdout).hexdigest())


async def many(connection: asyncssh.SSHClientConnection) -> None:
    async def one(number: int) -> list[object]:
        done = await connection.run(f"echo {number}; exit {number % 5}")
        return [done.stdout, done.exit_status]

    said.append(await asyncio.gather(*(one(number) for number in range(100))))


async def files(connection: asyncssh.SSHClientConnection) -> None:
    digest = make_binary(HERE / "big", SIZE)
    async with connection.start_sftp_client() as sftp:
        await sftp.put(str(HERE / "big"), f"{WORK}/big")
        await sftp.get(f"{WORK}/big", str(HERE / "back"))
        assert sha256(HERE / "back") == digest
        await sftp.makedirs(f"{WORK}/a/b")
        async with sftp.open(f"{WORK}/a/b/f", "w") as file:
            await file.write("one\ntwo\n")
        await sftp.copy(f"{WORK}/a", f"{WORK}/c", recurse=True)
        said.append(sorted([one async for one in _names(sftp, f"{WORK}/c")]))
        said.append((await sftp.stat(f"{WORK}/c/b/f")).size)
        for what in (sftp.stat(f"{WORK}/none"), sftp.rmdir(f"{WORK}/a")):
            try:
                await what
                said.append("no error")
            except asyncssh.SFTPError as error:
                said.append([error.code, error.reason])
        await sftp.rmtree(f"{WORK}/c")
        said.append(await sftp.exists(f"{WORK}/c"))
    await asyncssh.scp(str(HERE / "back"), (connection, f"{WORK}/scp"))
    done = await connection.run(f"sha256sum {WORK}/scp | cut -c1-64")
    said.append(done.stdout.strip() == digest)


async def _names(sftp: asyncssh.SFTPClient, path: str):
    for name in await sftp.listdir(path):
        yield name


async def tunnels(connection: asyncssh.SSHClientConnection) -> None:
    data = binary(300_000)
    listener = await connection.forward_local_port("127.0.0.1", 0, "127.0.0.1", ECHO_PORT)
    said.append(await _through(listener.get_port(), data))
    listener.close()

    def accept(host: str, port: int):
        async def serve(reader: asyncssh.SSHReader, writer: asyncssh.SSHWriter) -> None:
            writer.write(await reader.read())
            writer.write_eof()
        return serve

    server = await connection.start_server(accept, "127.0.0.1", 0, encoding=None)
    line = (f"python3 -c 'import socket; s = socket.create_connection((\"127.0.0.1\", {server.get_port()})); "
            "s.sendall(b\"abc\"); s.shutdown(1); print(s.recv(9))'")
    said.append((await connection.run(line)).stdout)
    server.close()
    try:
        await connection.open_connection("127.0.0.1", 9)
    except asyncssh.ChannelOpenError as error:
        said.append([error.code, error.reason])


async def _through(port: int, data: bytes) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    writer.write_eof()
    back = await reader.read()
    writer.close()
    return back == data


async def main() -> None:
    async with asyncssh.connect(HOST, username=LOGIN, known_hosts=os.path.expanduser("~/.ssh/known_hosts"),
                                config=None, agent_path=None, family=socket.AF_INET) as connection:
        await processes(connection)
        await many(connection)
        await files(connection)
        await tunnels(connection)
    async with asyncssh.connect(HOST, username=LOGIN, known_hosts=os.path.expanduser("~/.ssh/known_hosts"),
                                config=None, client_keys=[], agent_path=None,
                                password=os.environ.get("PASSWORD", "wrong")) as connection:
        said.append((await connection.run("echo by password")).stdout)


begin()
asyncio.run(main())
finish()
