"""What policy is asked about an exec line.  Pure."""
from __future__ import annotations

from collections.abc import Iterator

from enforcer.protocols.ssh.shell.analysis import analyse_line
from enforcer.protocols.ssh.shell.line import READ, Line
from enforcer.protocols.ssh.transfers import GIT, SFTP, Transfer, recognise
from enforcer.words.operations import Request


def make_requests(line: bytes, target: str, account: str) -> tuple[Request, ...]:
    found = analyse_line(line)
    return requests_of(found, recognise(found), target, account)


def requests_of(line: Line, transfer: Transfer | None, target: str, account: str) -> tuple[Request, ...]:
    """Never empty.  Of a transfer, what it does to which files; of sftp-server, that a program is executed: who decides
    each of its operations asks for the subsystem in place of this."""
    if transfer and transfer.kind != SFTP:
        return tuple(dict.fromkeys(requests_of_transfer(transfer, target, account)))
    return tuple(dict.fromkeys(requests_of_line(line, target, account)))


def requests_of_line(line: Line, target: str, account: str) -> Iterator[Request]:
    place = (target, account)
    if line.opaque:
        yield Request("ssh:exec-opaque", "Account", place, (("opaque", line.opaque),))
    for command in line.commands:
        yield Request("ssh:exec", "Command", (*place, command.program, command.line), (
            ("arguments", tuple(dict.fromkeys(command.arguments))), ("literal", command.literal)))
    for one in line.redirections:
        if one.literal:               # else it is opaque
            yield Request("ssh:exec-read" if one.how == READ else "ssh:exec-write", "File", (*place, one.path))
    for variable in line.assignments:
        yield Request("ssh:env", "Variable", (*place, variable.name), (("value", variable.value),))


def requests_of_transfer(transfer: Transfer, target: str, account: str) -> Iterator[Request]:
    for direction in transfer.directions:
        reads = direction == READ
        for path in transfer.paths:
            where = (target, account, path)
            if transfer.kind == GIT:
                yield Request("git:fetch" if reads else "git:push", "Repository", where)
            else:
                yield Request(f"{transfer.kind}:{'read' if reads else 'write'}", "File", where, (
                    ("recursive", transfer.recursive), ("options", transfer.options)))
