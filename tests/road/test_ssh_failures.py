"""What fails on SSH's road is said to the client's user, and recorded in the same words."""
from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from lab.hosts import SSH, wait_until
from lab.ssh import LOGIN, SshLab, ssh_weir
from lab.sshd import NAME, Sshd, end_sshd, make_key, sshd, start_sshd
from lab.weir import Installed

from enforcer.recording.read import open_recording
from enforcer.words import events

pytestmark = pytest.mark.lab

AT = f"{LOGIN}@{NAME}"
# Servers of their own; each one's port, and what is odd in its configuration.
SERVERS = {
    "changed": (2201, ""), "away": (2202, ""), "kex": (2203, "KexAlgorithms diffie-hellman-group1-sha1"),
    "cipher": (2204, "Ciphers 3des-cbc"), "mac": (2205, "MACs hmac-md5-96\nCiphers aes128-ctr"), "key": (2206, ""),
    "password": (2207, ""), "middle": (2208, ""), "killed": (2209, ""),
}
POLICY = "".join(
    f'@id("all-{name}") permit (principal in Group::"data", action, resource in Target::"{name}");\n'
    for name in SERVERS)


@dataclass(frozen=True, eq=False)
class Failing:
    installed: Installed
    servers: dict[str, Sshd]

    def ssh(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        return self.installed.crew("ssh", "-p", str(SERVERS[name][0]), AT, *words, timeout=60)

    def refusals(self, name: str) -> list[str]:
        self.installed.settle()
        with open_recording(self.installed.recording) as reader:
            return [one.event.reason for one in reader.entries()
                    if one.kind == events.REFUSED and one.event.target == name]

    def says(self, name: str, *words: str) -> None:
        """The client's user and the recording are told the same, which names the target."""
        done = self.ssh(name, "true")
        assert done.returncode == 255
        [reason] = self.refusals(name)
        for word in (*words, name):
            assert word in done.stderr.lower(), done.stderr
            assert word in reason.lower(), reason


def wrong_credential(made: SshLab, kind: str) -> str:
    path = made.lab.scratch / f"wrong-{kind}"
    if kind == "key":
        make_key(path)
    else:
        path.write_text("not this one")
        path.chmod(0o600)
    return f'{kind}_file = "{path}"'


@pytest.fixture(scope="module")
def failing(the_ssh: SshLab) -> Iterator[Failing]:
    with ExitStack() as stack:
        servers = {name: stack.enter_context(sshd(the_ssh.lab.scratch, SSH, port, more))
                   for name, (port, more) in SERVERS.items()}
        entries = "".join(
            the_ssh.entry(server, name, "", wrong_credential(the_ssh, name) if name in ("key", "password") else "")
            for name, server in servers.items())
        yield Failing(stack.enter_context(ssh_weir(the_ssh, policy=POLICY, more_tables=entries)), servers)


def test_the_servers_key_has_changed(failing: Failing) -> None:
    own = failing.servers["changed"]
    assert failing.ssh("changed", "echo before").stdout == "before\n"
    end_sshd(own)
    own.renew_host_keys()
    again = start_sshd(own)
    try:
        failing.says("changed", "host key")
    finally:
        end_sshd(again)


def test_the_server_is_away_and_comes_back(failing: Failing) -> None:
    end_sshd(failing.servers["away"])
    failing.says("away", "refused")
    again = start_sshd(failing.servers["away"])
    try:
        assert failing.ssh("away", "echo back").stdout == "back\n"
    finally:
        end_sshd(again)


@pytest.mark.parametrize("name", ["kex", "cipher", "mac"])
def test_no_algorithm_in_common(failing: Failing, name: str) -> None:
    failing.says(name, "no matching")


@pytest.mark.parametrize("name", ["key", "password"])
def test_the_server_does_not_take_the_credential(failing: Failing, name: str) -> None:
    failing.says(name, "permission denied")


def running(failing: Failing, name: str) -> tuple[threading.Thread, list[subprocess.CompletedProcess[str]]]:
    """A command that has begun."""
    done: list[subprocess.CompletedProcess[str]] = []
    thread = threading.Thread(target=lambda: done.append(failing.ssh(name, "touch begun; sleep 60; touch over")))
    thread.start()
    wait_until("the command", (failing.servers[name].home() / "begun").exists, 30)
    return thread, done


def test_the_server_ends_in_the_middle(failing: Failing) -> None:
    thread, done = running(failing, "middle")
    end_sshd(failing.servers["middle"])
    thread.join(30)
    assert (done[0].returncode, "target middle" in done[0].stderr) == (255, True), done[0].stderr
    failing.installed.settle()
    with open_recording(failing.installed.recording) as reader:
        [one] = [one for one in reader.sessions() if one.target == "middle"]
    assert "server" in one.reason


def test_the_enforcer_is_killed(failing: Failing) -> None:
    """A session that ran ends at the client, is a gap in the recording, and the next one goes."""
    thread, done = running(failing, "killed")
    failing.installed.kill("enforcer")
    thread.join(30)
    assert done[0].returncode == 255
    assert any(word in done[0].stderr.lower() for word in ("closed", "reset", "broken pipe")), done[0].stderr
    wait_until("another enforcer", lambda: failing.ssh("killed", "echo again").stdout == "again\n", 60)
    failing.installed.settle()
    with open_recording(failing.installed.recording) as reader:
        gaps = [one.event for one in reader.entries() if one.kind == events.GAP]
        told = {one.session for one in reader.sessions() if one.target == "killed"}
    assert any(gap.operations and gap.session in told for gap in gaps)
