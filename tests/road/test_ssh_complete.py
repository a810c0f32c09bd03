"""SSH's completeness: what the login shell and internal-sftp did is what the recording says, over a random mix."""
from __future__ import annotations

import os
import random
import shlex
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from lab import ssh_oracle
from lab.ssh import LOGIN, TARGET, SshLab, ssh_weir
from lab.sshd import NAME
from lab.weir import Installed

pytestmark = pytest.mark.lab

AT = f"{LOGIN}@{NAME}"
SEED = int(os.environ.get("WEIR_SEED", "6"))
ROUNDS = int(os.environ.get("WEIR_SSH_MIX", "24"))
LINES = (
    "echo {n}", "printf '%s\\n' 'a  b' \"c\td\" # {n}", "cat /etc/hostname | wc -c; exit {n}", "  echo  leading {n}  ",
    "echo 'line one\nline two' {n}", "echo ü€ {n}", "for i in 1 2 3; do echo $i; done; true {n}", "false {n}",
    "kill -9 $$ # {n}",
    "head -c {n}00 /dev/zero | md5sum", "echo $((6*{n})) > {work}/out; cat {work}/out", "exec echo {n}",
)
BATCHES = (
    "put small {work}/a{n}\nget {work}/a{n} got{n}\nrm {work}/a{n}\n",
    "-mkdir {work}/d\nput small {work}/d/b{n}\nrename {work}/d/b{n} {work}/d/c{n}\nchmod 600 {work}/d/c{n}\n"
    "ls -l {work}/d\n",
    "-mkdir {work}/e{n}\n-rmdir {work}/e{n}\n-rm {work}/missing{n}\n-get {work}/missing{n}\n",
    "put small {work}/f{n}\nln -s f{n} {work}/l{n}\nln {work}/f{n} {work}/h{n}\ndf {work}\n",
    "cd {work}\npwd\nls -la\nls missing{n}\n",
    "put small \"{work}/ü {n}\"\nrm \"{work}/ü {n}\"\n",
)


def mix(drawn: random.Random, number: int) -> list[str]:
    """One command of a client's."""
    work = f"mix{number % 4}"
    line = drawn.choice(LINES).format(n=number, work=work)
    kind = drawn.randrange(8)
    if kind == 0:
        batch = drawn.choice(BATCHES).format(n=number, work=work)
        return ["sh", "-c", f"printf %s {shlex.quote(batch)} | sftp -q -b - {AT}"]
    if kind == 1:
        return ["scp", "-q", *(["-O"] if drawn.random() < 0.5 else []), "small", f"{AT}:{work}/scp{number}"]
    if kind == 2:
        return ["rsync", "-a", "small", f"{AT}:{work}/rsync{number}"]
    if kind == 3:
        return ["ssh", "-tt", AT, line]
    if kind == 4:
        return ["sh", "-c", f"printf %s {shlex.quote(line)} | ssh -T {AT}"]
    if kind == 5:                     # several channels of one connection
        several = " & ".join(f"ssh -S /tmp/mux{number} {AT} {shlex.quote(line)}" for _ in range(3))
        master = f"ssh -M -S /tmp/mux{number} -fN {AT}"
        return ["sh", "-c", f"{master}; {several} & wait; ssh -S /tmp/mux{number} -O exit {AT}"]
    return ["ssh", AT, line]


@pytest.fixture(scope="module")
def mixed(the_ssh: SshLab) -> Iterator[tuple[Installed, ssh_oracle.Mark]]:
    """Weir after the mix, with nothing open."""
    with ssh_weir(the_ssh) as installed:
        since = ssh_oracle.mark(the_ssh.ssh)
        small = the_ssh.lab.home / "small"
        small.write_bytes(random.Random(SEED).randbytes(5000))
        small.chmod(0o644)
        for number in range(4):
            the_ssh.ssh.fresh(f"mix{number}")
        drawn = random.Random(SEED)
        left = [mix(drawn, number) for number in range(ROUNDS)]

        def work() -> None:
            while left:
                installed.crew(*left.pop(), timeout=120)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        installed.settle()
        yield installed, since


def test_logs_and_recording_agree(the_ssh: SshLab, mixed: tuple[Installed, ssh_oracle.Mark]) -> None:
    installed, since = mixed
    done = ssh_oracle.read(installed.recording)[TARGET]
    logins = the_ssh.ssh.logins()[since.logins:]
    served = ssh_oracle.parse_files(the_ssh.ssh.files()[since.files:])
    assert len(logins) >= ROUNDS // 3
    assert any(one.asked for one in served)
    wrong = ssh_oracle.complaints(the_ssh.ssh, since, done)
    assert not wrong, "\n".join(wrong[:30])


@pytest.mark.parametrize("choose", [
    lambda one: one.verb == "exec", lambda one: one.verb == "shell", lambda one: one.verb == "open",
    lambda one: one.verb in ("remove", "rename", "posix-rename"),
    lambda one: one.actor == "weir" and one.verb == "resolve",
], ids=["exec", "shell", "open", "remove or rename", "Weir's own look"])
def test_an_event_less_is_noticed(
    the_ssh: SshLab, mixed: tuple[Installed, ssh_oracle.Mark], choose: Callable[[ssh_oracle.Done], bool],
) -> None:
    installed, since = mixed
    done = ssh_oracle.read(installed.recording)[TARGET]
    gone = next(one for one in done if choose(one) and one.status == "ok")
    fewer = [one for one in done if one is not gone]
    assert any("nobody recorded" in line for line in ssh_oracle.complaints(the_ssh.ssh, since, fewer))


def test_what_never_ran_is_noticed(the_ssh: SshLab, mixed: tuple[Installed, ssh_oracle.Mark]) -> None:
    installed, since = mixed
    done = ssh_oracle.read(installed.recording)[TARGET]
    for verb in ("exec", "open"):
        ran = next(one for one in done if one.verb == verb and one.status == "ok")
        more = [*done, replace(ran, number=10_000)]
        assert any("never" in line for line in ssh_oracle.complaints(the_ssh.ssh, since, more)), verb


def test_a_changed_command_is_noticed(the_ssh: SshLab, mixed: tuple[Installed, ssh_oracle.Mark]) -> None:
    """Not only how many: each byte of it."""
    installed, since = mixed
    done = ssh_oracle.read(installed.recording)[TARGET]
    ran = next(one for one in done if one.verb == "exec" and one.status == "ok")
    other = [replace(one, text=one.text + b" ") if one is ran else one for one in done]
    assert len(ssh_oracle.complaints(the_ssh.ssh, since, other)) == 2
