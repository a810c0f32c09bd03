"""What a line is taken for, and which labels what it moves may carry: wanted.table."""
from __future__ import annotations

from pathlib import Path

import pytest

from agent.contract.target import ContentLabel, Target
from enforcer.protocols.ssh.wanted import want_command, want_shell, want_subsystem, want_variable

LABELS = (
    ContentLabel("secret.vault", command="vault read *"), ContentLabel("secret.dump", command="*dump*"),
    ContentLabel("secret.key", path="/etc/app/*.key"), ContentLabel("secret.home", path="~/.netrc"),
    ContentLabel("secret.repo", path="/srv/secret.git*"))
TARGET = Target("t", "ssh", ("host",), 22, ("127.0.0.1",), content_labels=LABELS)
TABLE = [tuple(map(str.strip, line.rsplit("=>", 1)))
         for line in Path(__file__).with_name("wanted.table").read_text().splitlines()
         if line and not line.startswith("#")]


@pytest.mark.parametrize(("line", "expected"), TABLE, ids=[line for line, _ in TABLE])
def test_lines(line: str, expected: str) -> None:
    wanted = want_command(TARGET, "app", line.encode())
    labels = [one.removeprefix("secret.") for one in wanted.labels]
    assert " ".join([wanted.course, *["whole"] * wanted.whole, *labels]) == expected
    assert wanted.requests
    assert (wanted.call is not None) == (wanted.course == "copies")
    assert (wanted.verb, wanted.text) == ("exec", line.encode())


@pytest.mark.parametrize("line", [b"", b"\0", b"\xff\xfe", b"ls \xff", b"a" * 100_000, b"scp -f \xff"])
def test_any_bytes_are_asked_about(line: bytes) -> None:
    assert want_command(TARGET, "app", line).requests


@pytest.mark.parametrize(("line", "found"), [
    (b"vault read [x]", True), (b"vault read ?", True), (b"vault read x", False),
])
def test_only_the_star_is_special_in_a_label(line: bytes, found: bool) -> None:
    labels = (ContentLabel("a", command="vault read [x]"), ContentLabel("b", command="vault read ?"))
    target = Target("t", "ssh", ("host",), 22, ("127.0.0.1",), content_labels=labels)
    assert bool(want_command(target, "app", line).labels) == found


def test_a_label_that_is_given_twice_is_one() -> None:
    twice = (*LABELS, ContentLabel("secret.vault", command="vault *"))
    target = Target("t", "ssh", ("host",), 22, ("127.0.0.1",), content_labels=twice)
    assert want_command(target, "app", b"vault read x").labels == ("secret.vault",)


def test_the_exec_of_an_sftp_server_is_asked_for_as_the_subsystem() -> None:
    by_line = want_command(TARGET, "app", b"/usr/lib/openssh/sftp-server")
    assert by_line.requests == want_subsystem(TARGET, "app", "sftp").requests
    assert by_line.requests[0].action == "ssh:subsystem"


@pytest.mark.parametrize(("name", "course", "resource"), [
    ("sftp", "files", "sftp"), ("netconf", "bytes", "netconf"), ("", "bytes", "-"), ("SFTP", "bytes", "SFTP"),
])
def test_subsystems(name: str, course: str, resource: str) -> None:
    wanted = want_subsystem(TARGET, "app", name)
    assert (wanted.course, wanted.requests[0].path[-1], wanted.text) == (course, resource, name.encode())


def test_a_shell_and_variables() -> None:
    assert [one.action for one in want_shell(TARGET, "app").requests] == ["ssh:shell"]
    (asked,) = want_variable(TARGET, "app", "", "x")
    assert (asked.action, asked.path[-1], asked.attributes) == ("ssh:env", "-", (("value", "x"),))
