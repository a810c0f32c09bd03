"""Exec lines -> what policy is asked."""
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.policy.model import PARENTS, fits
from enforcer.protocols.ssh.requests import make_requests
from enforcer.words.operations import Request

PLACE = ("web", "deploy")


def command(program: str, line: str, *arguments: str, literal: bool = True) -> Request:
    return Request("ssh:exec", "Command", (*PLACE, program, line), (("arguments", arguments), ("literal", literal)))


def opaque(*reasons: str) -> Request:
    return Request("ssh:exec-opaque", "Account", PLACE, (("opaque", reasons),))


def file(action: str, path: str, *options: str, recursive: bool = False) -> Request:
    return Request(action, "File", (*PLACE, path), (("recursive", recursive), ("options", options)))


@pytest.mark.parametrize(("line", "wanted"), [
    ("systemctl restart nginx", (command("systemctl", "systemctl restart nginx", "restart", "nginx"),)),
    ("sudo /bin/ls 'a b' >> ~/x", (
        command("sudo", "sudo /bin/ls 'a b'", "/bin/ls", "a b"), command("/bin/ls", "/bin/ls 'a b'", "a b"),
        Request("ssh:exec-write", "File", (*PLACE, "~/x")))),
    ("ls $X < a > /b", (
        command("ls", "ls $X", "$X", literal=False), Request("ssh:exec-read", "File", (*PLACE, "~/a")),
        Request("ssh:exec-write", "File", (*PLACE, "/b")))),
    ("A=1 ls", (command("ls", "ls"), Request("ssh:env", "Variable", (*PLACE, "A"), (("value", "1"),)))),
    ("$X", (opaque("the name of a program cannot be told"),)),
    ("", (opaque("nothing in it"),)),
    ("scp -rf /a", (file("scp:read", "/a", recursive=True),)),
    ("scp -t b", (file("scp:write", "~/b", recursive=True),)),
    ("rsync --server --sender -re.s --remove-source-files . a b", tuple(
        file(f"rsync:{how}", f"~/{name}", "--remove-source-files", recursive=True)
        for how in ("read", "write") for name in "ab")),
    ("git-upload-pack 'a.git'", (Request("git:fetch", "Repository", (*PLACE, "~/a.git")),)),
    ("git-receive-pack '/a.git'", (Request("git:push", "Repository", (*PLACE, "/a.git")),)),
    ("/usr/lib/openssh/sftp-server", (command("/usr/lib/openssh/sftp-server", "/usr/lib/openssh/sftp-server"),)),
])
def test_requests(line: str, wanted: tuple[Request, ...]) -> None:
    found = make_requests(line.encode(), *PLACE)
    assert set(found) == set(wanted)
    assert len(found) == len(wanted)


@given(st.one_of(st.binary(max_size=40), st.text("a $'\"<>|&;/.~\\=-{}`()\n", max_size=30).map(str.encode)))
def test_whatever_comes_asks_for_something_that_policy_knows(line: bytes) -> None:
    found = make_requests(line, *PLACE)
    assert found
    assert all(fits(request) and request.action in PARENTS for request in found)
