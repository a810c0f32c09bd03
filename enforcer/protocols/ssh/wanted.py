"""What a session's channel asks for, as policy and people see it: pure."""
from __future__ import annotations

from dataclasses import dataclass

from enforcer.protocols.ssh.desk import Desk
from enforcer.words.operations import Request


@dataclass(frozen=True, slots=True)
class Wanted:
    verb: str                         # "exec" | "shell" | "subsystem"
    text: bytes
    requests: tuple[Request, ...]
    labels: tuple[str, ...] = ()


def want_command(desk: Desk, line: bytes) -> Wanted:
    return Wanted("exec", line, (Request("ssh:exec-opaque", "Account", (desk.target, desk.account)),))


def want_shell(desk: Desk) -> Wanted:
    return Wanted("shell", b"", (Request("ssh:shell", "Account", (desk.target, desk.account)),))


def want_subsystem(desk: Desk, name: str) -> Wanted:
    return Wanted("subsystem", name.encode(), (
        Request("ssh:subsystem", "Subsystem", (desk.target, desk.account, name), (("name", name),)),))


def want_variable(desk: Desk, name: str, value: str) -> tuple[Request, ...]:
    return (Request("ssh:env", "Variable", (desk.target, desk.account, name), (("name", name), ("value", value))),)


