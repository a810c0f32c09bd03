"""paramiko: exec, shell, sftp, forwards, many channels, with RejectPolicy and plain lines of known_hosts; password."""
from __future__ import annotations

import hashlib
import os
import time

import paramiko
from common import HERE, HOST, LOGIN, SIZE, WORK, begin, binary, finish, make_binary, said, sha256, through

begin()


def connect(**more: object) -> paramiko.SSHClient:
    client = paramiko.SSHClient()
    client.load_host_keys(os.path.expanduser("~/.ssh/known_hosts"))
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    client.connect(HOST, username=LOGIN, timeout=20, **more)
    return client


client = connect()
for line in ("echo out; echo err >&2; exit 7", "kill -TERM $$", "true"):
    stdin, stdout, stderr = client.exec_command(line)
    said.append([stdout.read().decode(), stderr.read().decode(), stdout.channel.recv_exit_status()])
stdin, stdout, stderr = client.exec_command("wc -c")
stdin.write(binary(200_000))
stdin.channel.shutdown_write()
said.append(stdout.read().decode())
stdin, stdout, stderr = client.exec_command("echo $LAB_ONE; stty size", get_pty=True, environment={"LAB_ONE": "one"})
said.append(stdout.read().decode())
shell = client.invoke_shell(width=101, height=33)
shell.send(b"stty size; exit 4\n")
out = b""
while piece := shell.recv(65536):
    out += piece
said.append([b"33 101" in out, shell.recv_exit_status()])
channels = [client.get_transport().open_session() for _ in range(30)]
for number, channel in enumerate(channels):
    channel.exec_command(f"echo {number}")
said.append([channel.makefile().read().decode() for channel in channels])

sftp = client.open_sftp()
digest = make_binary(HERE / "big", SIZE)
sftp.put(str(HERE / "big"), f"{WORK}/big")
sftp.get(f"{WORK}/big", str(HERE / "back"))
assert sha256(HERE / "back") == digest
sftp.mkdir(f"{WORK}/d", 0o750)
with sftp.open(f"{WORK}/d/f", "w") as file:
    file.write("text\n" * 3)
with sftp.open(f"{WORK}/d/f", "a+") as file:
    file.write("more\n")
with sftp.open(f"{WORK}/d/f") as file:
    file.seek(5)
    said.append(file.read().decode())
sftp.rename(f"{WORK}/d/f", f"{WORK}/d/g")
sftp.posix_rename(f"{WORK}/d/g", f"{WORK}/d/h")
sftp.symlink("h", f"{WORK}/d/l")
sftp.chmod(f"{WORK}/d/h", 0o600)
sftp.truncate(f"{WORK}/d/h", 7)
sftp.utime(f"{WORK}/d/h", (10**9, 10**9))
status = sftp.stat(f"{WORK}/d/h")
said.append([status.st_size, oct(status.st_mode), status.st_mtime, sftp.readlink(f"{WORK}/d/l")])
said.append(sorted(sftp.listdir(f"{WORK}/d")))
said.append(sftp.normalize(f"{WORK}/d/../d").endswith(f"/{WORK}/d"))
for what in (lambda: sftp.remove(f"{WORK}/none"), lambda: sftp.open("/etc/shadow"), lambda: sftp.mkdir(f"{WORK}/d")):
    try:
        what()
        said.append("no error")
    except OSError as error:
        said.append([type(error).__name__, str(error)])
sftp.remove(f"{WORK}/d/l")
sftp.remove(f"{WORK}/d/h")
sftp.rmdir(f"{WORK}/d")
sftp.close()

there = ("127.0.0.1", int(os.environ["ECHO_PORT"]))
tunnel = client.get_transport().open_channel("direct-tcpip", there, ("127.0.0.1", 1))
tunnel.settimeout(30)
data = binary(500_000)
said.append(through(tunnel, data) == hashlib.sha256(data).hexdigest())
for _ in range(100):                   # paramiko waits for itself where a channel is closed while it makes new keys
    if not len(client.get_transport()._channels):
        break
    time.sleep(0.05)
client.get_transport().renegotiate_keys()
said.append(client.exec_command("echo after new keys")[1].read().decode())
client.get_transport().set_keepalive(1)
time.sleep(1.5)
said.append(client.get_transport().is_active())
client.close()

other = connect(password=os.environ.get("PASSWORD", "wrong"), look_for_keys=False, allow_agent=False)
said.append(other.exec_command("echo by password")[1].read().decode())
other.close()
finish()
