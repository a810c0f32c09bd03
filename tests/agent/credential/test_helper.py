"""The exec helper: what it is given, what it may print, and that nothing of it is left or said."""
from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from agent.contract.credential import Credential
from agent.credential import helper
from agent.credential.credentials import Credentials
from agent.credential.helper import OUTPUT, parse_output
from agent.credential.secrets import PASSWORD_LIMIT, SecretError
from agent.layout import cgroup_root
from agent.settings.credential_table import CredentialRow
from agent.ssh.keys import render_private

PEM = "-----BEGIN X-----"


# what it prints


def test_a_whole_credential() -> None:
    said = {"user": "v-1", "password": "hunter2", "certificate": PEM, "key": PEM, "expires": "2026-01-01T00:00:10Z"}
    found, expires = parse_output(json.dumps(said).encode(), "", 1767225600.0)
    assert (found, expires) == (Credential("v-1", "hunter2", PEM, PEM, 1767225610), 1767225610.0)
    assert parse_output(b' {"password": "x"}\n', "svc", 0) == (Credential("svc", "x"), 0.0)
    assert parse_output(b'{"password": "x", "expires": null}', "svc", 0) == (Credential("svc", "x"), 0.0)


@pytest.mark.parametrize(("output", "wanted"), [
    (b"", "something else"), (b"hunter2\n", "something else"), (b'["hunter2"]', "something else"),
    (b'{"password": "hunter2"} {}', "something else"), (b'{"password": "hunter2"', "something else"),
    (b'{"password": "hunter2", "hunter3": 1}', "something else"), (b'{"password": 2}', "something else"),
    (b'{"password": "hunter2\xff"}', "something else"), (b"[" * 100_000, "something else"),
    (b'{"password": "%s"}' % (b"x" * (PASSWORD_LIMIT + 1)), "something else"),
    (b'{"user": "%s"}' % (b"x" * 257), "something else"),
    (b'{"password": "hunter2\\u0000"}', "a zero byte"), (b'{"user": "a\\u0000", "password": "hunter2"}', "a zero byte"),
    (b"{}", "neither a password"), (b'{"password": ""}', "neither a password"),
    (b'{"certificate": "hunter2"}', "neither"), (b'{"password": "hunter2", "key": "hunter2"}', "neither"),
    (b'{"user": "root", "password": "hunter2"}', "another user than the row names"),
    *((b'{"password": "hunter2", "expires": %s}' % when, wanted) for when, wanted in (
        (b'"2026-01-01T00:00:00"', "something else"), (b"1767225610", "something else"), (b'"soon"', "something else"),
        (b'"1999-01-01T00:00:00Z"', "has expired"))),
])
def test_what_is_none(output: bytes, wanted: str) -> None:
    with pytest.raises(SecretError) as caught:
        parse_output(output, "svc", 1767225600.0)
    assert wanted in str(caught.value)
    assert "hunter" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_user_is_needed() -> None:
    with pytest.raises(SecretError, match="no user"):
        parse_output(b'{"password": "x"}', "", 0)


# how it runs


HEAD = "#!/usr/bin/python3 -I\nimport json, os, resource, sys, time\n"
FACTS = HEAD + """
found = {"uid": os.getresuid(), "gid": os.getresgid(), "groups": os.getgroups(), "env": dict(os.environ),
         "argv": sys.argv[1:], "cwd": os.getcwd(), "stdin": sys.stdin.read(), "sid": os.getsid(0) == os.getpid(),
         "core": resource.getrlimit(resource.RLIMIT_CORE),
         "fds": [fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]}
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
found["caps"] = status["CapEff"].strip() + status["CapBnd"].strip() + status["NoNewPrivs"].strip()
print(json.dumps({"password": json.dumps(found)}))
"""
SAYS = HEAD + "print(json.dumps({'password': 'hunter2'}))\n"


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory in which root alone decides: pytest's own lie below /tmp, which everybody may write."""
    path = Path(f"/usr/local/libexec/weir-test-{os.getpid()}")
    path.mkdir(mode=0o755, parents=True)
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


class Asking:
    """Credentials with one target, whose only row has a helper."""

    def __init__(self, place: Path) -> None:
        self.program, self.cgroup = place / "x", cgroup_root() / f"wh-{os.getpid()}"
        self.credentials = Credentials(self.cgroup)
        self.write(SAYS)
        self.row()

    def row(self, *arguments: str, user: str | None = "svc", timeout: int = 30, name: str = "orders") -> None:
        row = CredentialRow("*", "app", "*", user, None, None, None, exec=(str(self.program), *arguments),
                            exec_user="nobody", exec_timeout=timeout)
        target: Any = SimpleNamespace(name=name, credentials=(row,), protocol="postgresql")
        self.config: Any = SimpleNamespace(targets=(target,))

    def write(self, text: str) -> None:
        fresh = self.program.with_name("fresh")
        fresh.write_text(text)
        fresh.chmod(0o755)
        fresh.rename(self.program)

    async def ask(self) -> Credential:
        return await self.credentials.find(self.config, self.config.targets[0], "shop", "app", ())

    async def refused(self) -> str:
        with pytest.raises(SecretError) as caught:
            await self.ask()
        text = str(caught.value)
        assert text.startswith(f"credential[1] of target orders: its helper {self.program}")
        assert "hunter" not in text
        assert caught.value.__suppress_context__
        return text.partition(str(self.program))[2].strip(" :")

    def left(self) -> list[str]:
        return [pid for one in self.cgroup.glob("*/cgroup.procs") for pid in one.read_text().split()]


@pytest.fixture
def asking(place: Path) -> Iterator[Asking]:
    made = Asking(place)
    yield made
    left, cgroups = made.left(), list(made.cgroup.glob("*/"))
    for one in (*cgroups, made.cgroup):
        helper.end_all(one)
        if one.exists():
            one.rmdir()
    assert (left, cgroups) == ([], [])


@pytest.mark.kernel
async def test_it_is_given_what_the_row_is_for_and_nothing_else(asking: Asking) -> None:
    asking.write(FACTS)
    asking.row("a", "b c", "--user", "--")
    leaked = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    try:
        said = json.loads((await asking.ask()).password)
    finally:
        os.close(leaked)
    assert (said["uid"], said["gid"], said["groups"]) == ([65534] * 3, [65534] * 3, [])
    assert said["caps"] == "0" * 32 + "1"
    assert (said["argv"], said["cwd"], said["stdin"], said["sid"]) == (["a", "b c", "--user", "--"], "/", "", True)
    assert said["core"] == [0, 0]
    assert sorted(said["fds"]) == ["0", "1", "2"]
    own = {name: value for name, value in said["env"].items() if name.startswith("WEIR_")}
    assert own == {"WEIR_TARGET": "orders", "WEIR_DATABASE": "*", "WEIR_ROLE": "app"}      # not what the crew asked for
    assert set(said["env"]) - set(own) == {"PATH", "LANG", "PYTHONDONTWRITEBYTECODE"}


@pytest.mark.kernel
async def test_a_key_for_an_ssh_host(asking: Asking) -> None:
    """The account that is asked for, where neither row nor helper says one."""
    key = render_private(ed25519.Ed25519PrivateKey.generate())
    asking.write(HEAD + f"print(json.dumps({{'key': {key!r}}}))\n")
    asking.row(user=None)
    asking.config.targets[0].protocol = "ssh"
    found = await asking.ask()
    assert (found.user, found.password, found.key[:35]) == ("app", "", "-----BEGIN OPENSSH PRIVATE KEY-----")
    asking.write(HEAD + "print(json.dumps({'key': 'hunter2'}))\n")
    with pytest.raises(SecretError, match="its key holds no private key") as caught:
        await asking.ask()
    assert "hunter" not in str(caught.value)


@pytest.mark.kernel
async def test_a_plugin_of_kubectls_for_a_cluster(asking: Asking) -> None:
    """It is told that nobody sits there, and what it says counts until it ends."""
    asking.write(HEAD + """
told = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
print(json.dumps({"apiVersion": told["apiVersion"], "kind": told["kind"], "status": {
    "token": f"t-{os.getpid()}", "expirationTimestamp": "2100-01-01T00:00:00Z"}}))
""")
    asking.row(user=None)
    asking.config.targets[0].protocol = "kubernetes"
    found = await asking.ask()
    assert (found.user, found.password, found.token[:2], found.expires) == ("", "", "t-", 4102444800)
    assert await asking.ask() == found
    asking.write(HEAD + "print(json.dumps({'password': 'hunter2'}))\n")
    assert "something else than an ExecCredential" in await asking.refused()


@pytest.mark.kernel
async def test_without_a_time_it_runs_for_each_login_and_a_new_program_counts_at_once(asking: Asking) -> None:
    assert await asking.ask() == Credential("svc", "hunter2")
    asking.write(SAYS.replace("hunter2", "hunter3"))
    assert (await asking.ask()).password == "hunter3"
    times = HEAD + "print(json.dumps({'password': str(time.time_ns()), 'expires': '2999-01-01T00:00:00Z'}))\n"
    asking.write(times)
    first = await asking.ask()
    assert await asking.ask() == first
    asking.write(times + "\n")
    assert await asking.ask() != first
    second = await asking.ask()
    asking.row("another argument")
    assert await asking.ask() != second


@pytest.mark.kernel
@pytest.mark.parametrize(("text", "wanted"), [
    ("print('hunter2', file=sys.stderr)\nsys.exit(3)", "ended with exit code 3; the 8 bytes that it wrote to standard"),
    ("print(json.dumps({'password': 'hunter2'}))\nsys.exit(1)", "ended with exit code 1"),
    ("os.kill(os.getpid(), 9)", "was killed by signal 9"),
    ("print('hunter2')", "printed something else"),
    (f"sys.stdout.write('hunter2' * {OUTPUT})\nsys.stdout.flush()\ntime.sleep(3600)", "printed more than"),
])
async def test_what_fails(asking: Asking, caplog: pytest.LogCaptureFixture, text: str, wanted: str) -> None:
    asking.write(HEAD + text)
    with caplog.at_level(logging.DEBUG):
        assert wanted in await asking.refused()
    assert "hunter" not in caplog.text


@pytest.mark.kernel
async def test_a_noisy_one_is_read_to_its_end(asking: Asking) -> None:
    asking.write(HEAD + "sys.stderr.write('hunter2' * 1000000)\n" + SAYS.removeprefix(HEAD))
    assert (await asking.ask()).password == "hunter2"


@pytest.mark.kernel
async def test_what_an_agent_that_was_killed_has_left_is_in_nobodys_way(asking: Asking) -> None:
    left = asking.cgroup / "1"
    left.mkdir(parents=True)
    with subprocess.Popen(["/usr/bin/sleep", "3600"]) as process:
        (left / "cgroup.procs").write_text(str(process.pid))
        assert (await asking.ask()).password == "hunter2"
        assert process.wait(10) == -9


FORKS = HEAD + """
for _ in range(2):
    if os.fork() == 0:
        os.setsid()
        time.sleep(3600)
"""


@pytest.mark.kernel
async def test_what_takes_too_long_ends_with_all_that_it_started(asking: Asking) -> None:
    asking.write(FORKS + "time.sleep(3600)\n")
    asking.row(timeout=1)
    assert await asking.refused() == "took longer than 1 s and was killed"
    assert asking.left() == []


@pytest.mark.kernel
async def test_what_it_leaves_running_ends_with_it(asking: Asking) -> None:
    asking.write(FORKS + SAYS.removeprefix(HEAD))
    assert (await asking.ask()).password == "hunter2"
    assert asking.left() == []


@pytest.mark.kernel
async def test_a_slow_one_keeps_nobody_else_waiting_and_ends_with_the_agent(asking: Asking) -> None:
    asking.write(HEAD + f"open({str(asking.program.with_name('fifo'))!r}, 'w').close()\ntime.sleep(3600)\n")
    os.mkfifo(asking.program.with_name("fifo"))
    asking.program.with_name("fifo").chmod(0o622)
    slow = [asyncio.create_task(asking.ask()) for _ in range(5)]
    await asyncio.to_thread(asking.program.with_name("fifo").read_bytes)          # it runs
    [pid] = asking.left()
    assert "WEIR_TARGET" not in Path(f"/proc/{pid}/cmdline").read_text()
    asking.write(SAYS)
    asking.row(name="other")
    assert (await asking.ask()).password == "hunter2"
    assert asking.left() == [pid]                                                  # one for five
    await asking.credentials.close()
    assert all(isinstance(one, asyncio.CancelledError) for one in await asyncio.gather(*slow, return_exceptions=True))
    assert asking.left() == []


@pytest.mark.kernel
@pytest.mark.parametrize(("spoil", "wanted"), [
    (lambda file: os.chown(file, 1, 0), "not only root may write"), (lambda file: file.chmod(0o775), "not only root"),
    (lambda file: file.chmod(0o757), "not only root"), (lambda file: file.chmod(0o644), "is no program"),
    (lambda file: file.parent.chmod(0o777), "not only root"),
    (lambda file: os.chown(file.parent, 1, 0), "not only root"),
    (lambda file: file.unlink(), "No such file"), (lambda file: file.unlink() or file.mkdir(), "is no program"),
    (lambda file: file.unlink() or file.symlink_to("/tmp/x"), "not only root may write /tmp"),
    (lambda file: os.chown(file.parent, 1, 0) or file.rename(file), "not only root"),
    (lambda file: file.write_text("#!/nonexistent\n"), "ended with exit code 125"),
])
async def test_a_program_that_others_decide(asking: Asking, spoil: Callable[[Path], object], wanted: str) -> None:
    spoil(asking.program)
    assert wanted in await asking.refused()
