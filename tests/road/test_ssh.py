"""SSH's road, end to end: what policy permits, denies, holds and masks, channel by channel."""
from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator

import pytest
from clients.test_clients import PYTHON
from lab import ssh_oracle
from lab.hosts import CREW, SSH, USER, wait_until
from lab.ssh import ECHO_PORT, LOGIN, TARGET, SshLab, ssh_weir
from lab.sshd import NAME
from lab.weir import APPROVER, Installed
from recorded import unpacked

from enforcer.recording.read import Entry, open_recording
from enforcer.words import events
from enforcer.words.decisions import DENY

pytestmark = pytest.mark.lab

AT = f"{LOGIN}@{NAME}"
POLICY = """
@id("build-in") permit (principal in Group::"data", action == Action::"connect", resource in Target::"build");
@id("build-commands")
permit (principal in Group::"data", action == Action::"ssh:exec", resource in Target::"build")
unless { ["rm", "reboot", "dd"].contains(resource.program) };
@id("no-opaque") forbid (principal, action == Action::"ssh:exec-opaque", resource in Target::"build");
@id("build-redirections")
permit (principal in Group::"data", action in [Action::"ssh:exec-read", Action::"ssh:exec-write"],
        resource in Target::"build");
@id("build-files")
permit (principal in Group::"data", action in [Action::"sftp:read", Action::"sftp:write", Action::"sftp:list",
  Action::"sftp:mkdir", Action::"sftp:setstat", Action::"scp:read", Action::"rsync:read", Action::"git:fetch"],
        resource in Target::"build");
@id("not-these-files")
forbid (principal, action in [Action::"sftp:read", Action::"sftp:write", Action::"scp:read"],
        resource in Target::"build") when { resource has path && resource.path like "*/forbidden/*" };
@id("build-echo")
permit (principal in Group::"data", action == Action::"ssh:forward-local", resource in Target::"build")
when { resource.host == "127.0.0.1" && resource.port == "7007" };
@id("build-restart-needs-a-dba") @hold("approvers=dba, within=5m")
forbid (principal, action == Action::"ssh:exec", resource in Target::"build")
when { resource.program == "systemctl" } unless { context.approved };
@id("build-env") permit (principal in Group::"data", action == Action::"ssh:env", resource in Target::"build")
when { resource.name like "LAB_*" };
@id("bastion-in") permit (principal in Group::"data", action == Action::"connect", resource in Target::"bastion");
"""


@pytest.fixture(scope="module")
def strict_weir(the_ssh: SshLab) -> Iterator[Installed]:
    with ssh_weir(the_ssh, POLICY) as installed:
        yield installed


@pytest.fixture
def strict(strict_weir: Installed, the_ssh: SshLab) -> Iterator[Installed]:
    """Of each test all that ran is on record, also where it failed."""
    since = ssh_oracle.mark(the_ssh.ssh)
    before = len(ssh_oracle.read(strict_weir.recording).get(TARGET, ()))
    yield strict_weir
    strict_weir.settle()
    wrong = ssh_oracle.complaints(the_ssh.ssh, since, ssh_oracle.read(strict_weir.recording).get(TARGET, [])[before:])
    assert not wrong, "\n".join(wrong[:20])


def ssh(installed: Installed, line: str, *options: str, **more: object) -> subprocess.CompletedProcess[str]:
    return installed.crew("ssh", *options, AT, line, timeout=60, **more)  # type: ignore[arg-type]


def denied(installed: Installed) -> list[Entry]:
    """Intents that were denied, in order."""
    installed.settle()
    with open_recording(installed.recording) as reader:
        return [one for one in reader.entries() if one.kind == events.INTENT and one.event.decision == DENY]


def test_a_crews_own_key_opens_nothing(strict: Installed, the_ssh: SshLab) -> None:
    """The crew's host without Weir's slice: the same user, key and password."""
    own = the_ssh.lab.home / ".ssh"
    options = ("-o", f"UserKnownHostsFile={own}/known_hosts", "-i", f"{own}/id_ed25519")
    as_crew = ["setpriv", "--reuid", USER, "--regid", USER, "--init-groups", "--"]
    done = CREW.run([*as_crew, "ssh", *options, f"{LOGIN}@{SSH.ipv4}", "true"], env=the_ssh.lab.client_environment())
    assert (done.returncode, "Permission denied" in done.stderr) == (255, True), done.stderr
    assert ssh(strict, "echo in").stdout == "in\n"


@pytest.mark.parametrize(("line", "rule"), [
    ("rm -rf keep", ""), ("echo before; rm -rf keep; echo after", ""), ("echo $(rm -rf keep)", ""),
    ("eval \"r''m -rf keep\"", ""), ("sh -c 'rm -rf keep'", ""), ("true && sudo rm -rf keep", ""),
    ("$X keep", "no-opaque"), ("echo 'unfinished", "no-opaque"),
])
def test_a_denied_command_does_not_run(strict: Installed, the_ssh: SshLab, line: str, rule: str) -> None:
    kept = the_ssh.ssh.fresh("keep")
    logged = len(the_ssh.ssh.logins())
    done = ssh(strict, line)
    assert done.returncode == 255
    assert done.stdout == ""
    assert "weir: permission denied: " in done.stderr
    assert rule in done.stderr
    assert kept.exists()
    assert len(the_ssh.ssh.logins()) == logged
    last = denied(strict)[-1]
    assert last.text == line.encode()
    assert last.event.reason in done.stderr


def test_a_denial_ends_only_its_channel(strict: Installed) -> None:
    """ControlMaster: one connection, decided channel by channel."""
    script = (f"ssh -M -S /tmp/m -fN {AT}; ssh -S /tmp/m {AT} echo one; ssh -S /tmp/m {AT} rm x; "
              f"ssh -S /tmp/m {AT} echo two; ssh -S /tmp/m -O exit {AT}")
    done = strict.crew("sh", "-c", script, timeout=60)
    assert done.stdout == "one\ntwo\n", done.stderr
    assert "weir: permission denied" in done.stderr
    strict.settle()
    with open_recording(strict.recording) as reader:
        noted = [one.event for one in reader.entries() if one.kind == events.SESSION_NOTED]
    assert any(one.name == "shared" for one in noted)


def test_shells_are_denied_with_and_without_terminal(strict: Installed) -> None:
    for options in (["-T"], ["-tt"]):
        done = strict.crew("ssh", *options, AT, timeout=60, input="echo reached\n")
        assert "reached\n" not in done.stdout
        assert done.returncode != 0
        assert "permission denied" in done.stderr + done.stdout


def test_files_are_decided_one_by_one(strict: Installed, the_ssh: SshLab) -> None:
    place = the_ssh.ssh.fresh("files")
    for name in ("open", "forbidden"):
        made = the_ssh.ssh.fresh(f"files/{name}")
        (made / "f").write_text(f"{name}\n")
        (made / "f").chmod(0o644)
    batch = ("-get files/open/f one\n-get files/forbidden/f two\n-rm files/open/f\n-rename files/open/f files/open/g\n"
             "-symlink f files/open/l\n-get files/open/../forbidden/f three\nput one files/open/h\n"
             "-put one files/forbidden/h\n")
    done = strict.crew("sftp", "-b", "-", AT, timeout=60, input=batch)
    assert done.returncode == 0, done.stderr
    assert (the_ssh.lab.home / "one").read_text() == "open\n"
    assert not (the_ssh.lab.home / "two").exists()
    assert not (the_ssh.lab.home / "three").exists()
    assert sorted(path.name for path in (place / "open").iterdir()) == ["f", "h"]
    assert [path.name for path in (place / "forbidden").iterdir()] == ["f"]
    assert done.stderr.lower().count("permission denied") >= 5, done.stderr


def test_a_link_does_not_lead_round_a_rule(strict: Installed, the_ssh: SshLab) -> None:
    the_ssh.ssh.fresh("round")
    inner = the_ssh.ssh.fresh("round/forbidden")
    (inner / "f").write_text("secret\n")
    (inner / "f").chmod(0o644)
    the_ssh.ssh.run(["ln", "-s", "forbidden", "/home/deploy/round/innocent"], LOGIN)
    the_ssh.ssh.run(["ln", "-s", "forbidden/f", "/home/deploy/round/file"], LOGIN)
    batch = "-get round/innocent/f got\n-get round/file got\n-get round/./innocent//f got\n"
    done = strict.crew("sftp", "-b", "-", AT, timeout=60, input=batch)
    assert not (the_ssh.lab.home / "got").exists(), done.stderr


@pytest.mark.parametrize(("command", "code"), [
    (["scp", "-q", "-O", f"{AT}:give/f", "got"], 0), (["scp", "-q", "-O", f"{AT}:give/forbidden/f", "got"], 1),
    (["scp", "-q", "-O", "/etc/hostname", f"{AT}:give/new"], 1), (["scp", "-q", f"{AT}:give/forbidden/f", "got"], 1),
    (["rsync", "-a", f"{AT}:give/f", "got"], 0), (["rsync", "-a", "/etc/hostname", f"{AT}:give/new"], 1),
    (["git", "clone", "-q", f"{AT}:give/r.git", "got"], 0),
    (["git", "push", "-q", f"{AT}:give/r.git", "HEAD:refs/heads/new"], 1),
], ids=lambda one: " ".join(one[:3]) if isinstance(one, list) else "")
def test_transfers_have_a_direction(strict: Installed, the_ssh: SshLab, command: list[str], code: int) -> None:
    give = the_ssh.ssh.fresh("give")
    make = "cd /home/deploy/give && mkdir forbidden && echo x | tee f forbidden/f && git init -q --bare r.git"
    the_ssh.ssh.run(["sh", "-c", make], LOGIN)
    home = the_ssh.lab.home
    subprocess.run(["rm", "-rf", str(home / "got"), str(home / ".git")], check=True)
    if command[1] == "push":
        prepare = "git init -q . && git -c user.name=x -c user.email=x@x commit -q --allow-empty -m x"
        assert strict.crew("sh", "-c", prepare).returncode == 0
    done = strict.crew(*command, timeout=60)
    assert (done.returncode != 0) == bool(code), done.stderr
    assert (home / "got").exists() == (code == 0)
    assert not (give / "new").exists()
    if code:
        assert "permission denied" in done.stderr.lower()


FORWARD = """
import socket, subprocess, sys, time
with socket.socket() as one:
    one.bind(("127.0.0.1", 0)); port = one.getsockname()[1]
ssh = subprocess.Popen(["ssh", "-N", "-L", f"127.0.0.1:{port}:" + sys.argv[1], sys.argv[2]], stderr=subprocess.PIPE)
for _ in range(600):
    try:
        one = socket.create_connection(("127.0.0.1", port)); break
    except OSError: time.sleep(0.05)
try:
    one.settimeout(40); one.sendall(b"echo"); print(one.recv(4))
except ConnectionResetError: print(b"")
finally:
    while ssh.poll() is None:    # told between its look for a signal and its poll, it misses it
        ssh.terminate()
        try: ssh.wait(1)
        except subprocess.TimeoutExpired: pass
    print(ssh.stderr.read().decode(), file=sys.stderr)
"""


@pytest.mark.parametrize(("to", "answer"), [
    (f"127.0.0.1:{ECHO_PORT}", b"echo"), ("127.0.0.1:22", b""), ("10.77.0.4:5432", b"")])
def test_tunnels_only_where_they_are_permitted(strict: Installed, to: str, answer: bytes) -> None:
    done = strict.crew("/usr/bin/python3", "-c", FORWARD, to, AT, timeout=120)
    assert done.stdout == f"{answer!r}\n", done.stderr
    assert ("administratively prohibited" in done.stderr) == (not answer), done.stderr


@pytest.mark.parametrize("options", [
    ["-R", "127.0.0.1:0:127.0.0.1:22"], ["-R", "/home/deploy/sock:127.0.0.1:22"], ["-w", "any"],
], ids=["remote", "stream", "tun"])
def test_other_forwards_are_denied(strict: Installed, options: list[str]) -> None:
    done = ssh(strict, "sleep 2; echo not reached", "-o", "ExitOnForwardFailure=yes", *options)
    assert done.returncode == 255
    assert "not reached" not in done.stdout
    assert "fail" in done.stderr.lower()


def test_an_agent_does_not_go_along(strict: Installed) -> None:
    done = strict.crew("sh", "-c", f'eval $(ssh-agent) >/dev/null; ssh -A {AT} \'echo "agent=$SSH_AUTH_SOCK"\'; '
                                   "ssh-agent -k >/dev/null", timeout=60)
    assert done.stdout == "agent=\n", done.stderr
    assert any(one.event.verb == "agent" for one in denied(strict))


def test_variables_are_decided(strict: Installed) -> None:
    done = ssh(strict, 'echo "$LAB_ONE,$LC_ODD"', "-o", "SendEnv=LAB_* LC_ODD",
               environment={"LAB_ONE": "one", "LC_ODD": "/not/permitted"})
    assert done.stdout == "one,\n", done.stderr


def held(installed: Installed) -> list[dict[str, object]]:
    said = json.loads(installed.weir("approvals", "list", "--json", user=APPROVER).stdout)
    return list(said.get("holds", [])) if isinstance(said, dict) else list(said)


@pytest.mark.parametrize("answer", ["approve", "deny"])
def test_a_held_command_waits_for_somebody_else(strict: Installed, the_ssh: SshLab, answer: str) -> None:
    done: list[subprocess.CompletedProcess[str]] = []
    logged = len(the_ssh.ssh.logins())
    thread = threading.Thread(target=lambda: done.append(ssh(strict, "systemctl --version | head -1; echo over")))
    thread.start()
    wait_until("a hold", lambda: held(strict), 20)
    assert len(the_ssh.ssh.logins()) == logged
    ticket = str(held(strict)[0]["ticket"])
    said = strict.weir("approvals", answer, ticket, "--reason", "a reason", user=APPROVER)
    assert said.returncode == 0, said.stderr
    thread.join(30)
    assert ticket in done[0].stderr
    expected = (0, True) if answer == "approve" else (255, False)
    assert (done[0].returncode, "over" in done[0].stdout) == expected, done[0]
    assert ("a reason" in done[0].stderr) == (answer == "deny")


def test_what_looks_like_a_secret_is_masked(strict: Installed, the_ssh: SshLab) -> None:
    place = the_ssh.ssh.fresh("secret")
    key = the_ssh.ssh.real_key.read_text()
    (place / "id").write_text(f"before\n{key}after\n")
    (place / "id").chmod(0o644)
    done = ssh(strict, "cat secret/id")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) == len(f"before\n{key}after\n")
    assert done.stdout.startswith("before\n")
    assert done.stdout.endswith("after\n")
    assert key.splitlines()[1] not in done.stdout
    strict.settle()
    for path in strict.recording.glob("*.sqlite"):
        assert not any(key.splitlines()[1].encode() in piece for piece in unpacked(path))


REJECT = """
import os, paramiko
client = paramiko.SSHClient()
client.load_system_host_keys()
client.set_missing_host_key_policy(paramiko.RejectPolicy())
client.connect(os.environ["HOST"], username=os.environ["LOGIN"], timeout=20, %s)
print(client.exec_command("echo in")[1].read().decode(), end="")
"""


@pytest.mark.parametrize("how", ["password='any', look_for_keys=False, allow_agent=False", "allow_agent=False"],
                         ids=["any password", "any key"])
def test_whatever_a_crew_logs_in_by(strict: Installed, the_ssh: SshLab, how: str) -> None:
    done = strict.crew(PYTHON, "-c", REJECT % how, environment=the_ssh.environment("any"), timeout=60)
    assert done.stdout == "in\n", done.stderr
