"""ControlMaster: many channels on one connection, one by one and at once; ControlPersist, forwards added later."""
from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import threading

from common import AT, begin, finish, reachable, run, said, say, through

begin()
with tempfile.TemporaryDirectory() as place:
    control = f"{place}/c"
    options = ["-o", f"ControlPath={control}"]
    master = subprocess.Popen(["ssh", "-M", "-N", *options, AT], stdin=subprocess.DEVNULL)
    reachable(control, socket.AF_UNIX).close()
    check = run("ssh", *options, "-O", "check", AT)
    said.append([check[0], "Master running" in check[2]])
    for number in range(5):
        say("ssh", *options, AT, f"echo {number}; exit {number}")
    said.append(run("ssh", *options, AT, "echo $SSH_CONNECTION | wc -w"))
    ports = {run("ssh", *options, AT, "echo $SSH_CONNECTION | cut -d' ' -f2")[1] for _ in range(3)}
    said.append(len(ports))
    many: list[object] = [None] * 60

    def one(number: int) -> None:
        done = subprocess.run(["ssh", *options, AT, f"echo {number}; cat; exit {number % 7}"], capture_output=True,
                              input=b"x" * number)
        many[number] = [done.returncode, len(done.stdout)]

    threads = [threading.Thread(target=one, args=(n,)) for n in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    said.append(many)
    say("sftp", *options, "-b", "-", AT, input=b"pwd\n")
    door = f"{place}/echo"
    added = run("ssh", *options, "-O", "forward", "-L", f"{door}:{os.environ['ECHO_SOCKET']}", AT)
    said.append(added[0])
    with reachable(door, socket.AF_UNIX) as there:
        said.append(through(there, b"added later" * 1000))
    say("ssh", *options, "-O", "exit", AT)
    said[-1] = said[-1][0]
    said.append(master.wait(20))
finish()
