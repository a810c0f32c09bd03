"""How a session begins on record, or does not: the same for every protocol."""
from __future__ import annotations

from agent.contract.owner import Process
from enforcer.core.context import Context
from enforcer.words.events import REFUSED, SESSION_OPENED, Refused, SessionOpened

_NOBODY = Process(0)                  # only the workload is known


def session_opened(
    context: Context, protocol: str, role: str, *, upstream: str, client_tls: str = "", application: str = "",
    database: str = "", backend: int = 0, argv: tuple[str, ...] | None = None,
) -> SessionOpened:
    """`argv`: what is recorded of its process's arguments, where that is not all."""
    owner, principal = context.principal.owner, context.principal
    process = owner.process or _NOBODY
    return SessionOpened(
        SESSION_OPENED, context.now(), context.monotonic(), context.session, protocol, context.target.name, database,
        role, principal.subject, principal.groups, owner.workload, owner.uid, process.pid, process.exe,
        process.exe_sha256, process.argv if argv is None else argv, owner.cgroup, owner.cookie,
        f"{owner.destination} {owner.port}", owner.attribution, client_tls, upstream, application, backend)


def refused(context: Context, reason: str, rules: tuple[str, ...] = ()) -> Refused:
    """It never became one."""
    owner = context.principal.owner
    process = owner.process or _NOBODY
    return Refused(
        REFUSED, context.now(), context.monotonic(), owner.workload, context.principal.subject, process.pid,
        process.exe, f"{owner.destination} {owner.port}", context.target.name, reason, rules, owner.cookie)
