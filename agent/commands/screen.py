"""What a person sees.  Colour only on a terminal and without NO_COLOR (rich); JSON where it is asked for.

Much of what is shown was typed by a crew: it goes through `safe`, so that it cannot write to the terminal by itself.
"""
from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

from rich.cells import chop_cells
from rich.console import Console, Group, RenderableType
from rich.text import Text

from agent.commands.selftest import Finding
from agent.contract.control import ServiceView, Status, TargetView
from agent.contract.documents import render_json
from agent.contract.locks import Lock
from agent.contract.messages import REASON_REQUIRED, HoldView, SessionView
from agent.contract.said import called, foreign, lets_through, span
from agent.contract.said import safe as safe
from agent.status import ENFORCING, MEANINGS, said_of_mode

COLOURS: Final = {"enforcing": "bold green", "starting": "bold yellow", "blocked": "bold yellow",
                  "stopping": "bold yellow", "degraded": "bold red"}
LOCKS: Final = 20                     # that a status shows


def console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document; times are nanoseconds UTC."""
    sys.stdout.write(render_json(value, indent=2) + "\n")


def ago(nanoseconds: int) -> str:
    """Time since, in words."""
    return span(time.time_ns() - nanoseconds) if nanoseconds else "never"


def render_status(status: Status) -> RenderableType:
    meaning = MEANINGS.get(status.state, "")
    if status.state == ENFORCING and status.modes:
        meaning = "crews reach targets through the enforcer; not all of what else they reach is enforced"
    head = Text.assemble((status.state, COLOURS.get(status.state, "bold")), f": {meaning}")
    parts: list[RenderableType] = [head]
    parts += [Text(f"  {safe(said_of_mode(*one))}", style="bold red") for one in sorted(status.modes.items())]
    parts += [Text(f"  because {safe(reason)}", style="yellow") for reason in status.reasons]
    rows = [
        ("agent", f"pid {status.pid}, up {ago(status.since)}, {safe(status.config)}"),
        *([("in force", f"configuration {one.digest[:16]}, for {ago(one.since)}")]
          if (one := status.configuration) else []),
        ("block", "see above" if status.state == "degraded" else "probes and rules as they should be"),
        ("nftables", "redirects what arrives unrewritten (every process on the host is tracked)" if status.redirect
         else "drops what arrives unrewritten"),
        ("BPF LSM", safe(status.lsm)),
        ("listeners", ", ".join(status.listeners)),
        ("resolver", f"{status.dns}, asks {safe(status.upstream) or 'nobody: set [dns] resolver'}"),
        ("enforcer", _service(status.enforcer)),
        ("recorder", f"{_service(status.recorder)}, {_size(status.lag)} of journal waiting"),
        *([("page", f"{safe(status.page)}, {_service(status.web)}")] if status.web else []),
        *([("notify", _service(status.notify))] if status.notify else []),
        *([("metrics", _service(status.metrics))] if status.metrics else []),
        ("now", _statistics(status.statistics)),
    ]
    parts.append(_rows(rows))
    parts += _section("targets", [_target(one) for one in status.targets])
    parts += _section("egress", [_target(one) for one in status.egress])
    parts += _section("workloads", [
        (one.workload, "\n".join((
            f"{safe(one.command)} as {one.user}{' (root inside)' if one.root else ''}, pid {one.pid}, {one.network} "
            f"network, since {ago(one.since)}", *(f"degraded: {safe(what)}" for what in one.degraded))))
        for one in status.workloads])
    parts += _section("locked", [(f"{one.kind} {one.name}", said_of_lock(one)) for one in status.locks[:LOCKS]])
    if len(status.locks) > LOCKS:
        parts.append(Text(f"  and {len(status.locks) - LOCKS} more: weir lock"))
    parts += [Text(f"! {safe(hint)}", style="yellow") for hint in status.hints]
    return Group(*parts)


def said_of_lock(lock: Lock) -> str:
    ends = time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(lock.until / 1e9)) if lock.until else "unlocked"
    return safe(f"by {lock.by} {ago(lock.since)} ago, until {ends}" + (f": {lock.reason}" if lock.reason else ""))


def _service(one: ServiceView) -> str:
    restarts = f", started again {one.restarts} times" if one.restarts else ""
    if not one.pid or one.error:
        return f"not working: {safe(one.error)}{restarts}"
    return f"pid {one.pid}, up {ago(one.since)}{restarts}"


def _statistics(values: dict[str, int]) -> str:
    if not values:
        return "the enforcer does not say"
    return ", ".join(f"{values.get(name, 0)} {name}" for name in ("sessions", "flows", "holds"))


def _size(count: int) -> str:
    return f"{count} bytes" if count < 10240 else f"{count >> 10} KiB" if count < 10 << 20 else f"{count >> 20} MiB"


def _target(one: TargetView) -> tuple[str, str]:
    places = ", ".join(one.addresses) or "no address"
    return one.name, f"{', '.join(one.hosts)} port {one.port} ({places})"


def _section(name: str, rows: Sequence[tuple[str, str]]) -> Iterable[RenderableType]:
    return [Text(name, style="bold"), _rows(rows)] if rows else []


def _rows(rows: Sequence[tuple[str, str]]) -> Text:
    """Each value beside its name, further lines of it below; long ones are left to the terminal."""
    width = max(len(name) for name, _ in rows)
    text = Text()
    for name, value in rows:
        first, *others = value.split("\n")
        text.append(f"  {safe(name):{width}}  ", "dim").append(first + "\n")
        for line in others:
            text.append(" " * (width + 4) + line + "\n")
    text.right_crop(1)
    return text


def render_selftest(found: Sequence[Finding]) -> RenderableType:
    """What got through comes last, where it is seen."""
    colours = {"stopped": "green", "not tried": "yellow", "not contained": "bold red"}
    text = Text()
    for one in sorted(found, key=lambda one: list(colours).index(one.verdict)):
        text.append(f"{one.verdict:14}", colours[one.verdict]).append(f"{one.technique:28}").append(
            safe(one.said) + "\n", "dim")
    counts = [f"{sum(one.verdict == verdict for one in found)} {verdict}" for verdict in colours]
    return text.append(", ".join(counts))


def render_holds(holds: Sequence[HoldView], width: int = 80) -> RenderableType:
    """`width`: columns of the terminal.  Lines are broken here: one that the terminal breaks goes on at its left edge,
    where a crew's text would look like ours."""
    if not holds:
        return Text("nothing waits for an answer")
    parts: list[RenderableType] = []
    if not any(hold.state == "pending" for hold in holds):
        parts.append(Text("nothing waits for an answer"))
    return Group(*parts, *(render_hold(hold, width) for hold in holds))


def render_hold(hold: HoldView, width: int) -> Text:
    """All that an approver is told of it."""
    pending = hold.state == "pending"
    first, *others = _broken(safe(hold.action), width - len(hold.ticket) - 2)
    head = Text.assemble((hold.ticket, "bold"), f"  {first}",
                         *(f"\n{' ' * (len(hold.ticket) + 2)}{one}" for one in others),
                         "" if pending else ("  in force", "green"), "\n")
    rows = _hold_rows(hold, pending)
    room = width - max(len(name) for name, _ in rows) - 4
    return head.append_text(_rows([(name, "\n".join(_broken(value, room))) for name, value in rows]))


def _broken(text: str, width: int) -> list[str]:
    return [piece for line in text.split("\n") for piece in chop_cells(line, max(width, 20)) or [""]]


def _process(hold: HoldView) -> str:
    """As far as it is known: not where the connection is known by its cgroup, or the process had ended."""
    known = [f"pid {hold.pid}"] if hold.pid else []
    known += [safe(hold.exe)] if hold.exe else []
    return f" ({', '.join(known)})" if known else ""


def _hold_rows(hold: HoldView, pending: bool) -> list[tuple[str, str]]:
    left = span(hold.until - time.time_ns())
    if hold.form == "elevation":
        rows = [("who", safe(hold.subject)), ("where", safe(hold.target)), ("why", safe(hold.reason) or "not said")]
    else:
        values = "\n".join(f"${at}: {safe(one)}" if hold.database else safe(one)
                           for at, one in enumerate(hold.parameters, 1))
        rows = [
            ("who", f"{safe(hold.subject)} through {safe(hold.workload)}{_process(hold)}"),
            *([("reported", f"says the process itself: {safe(hold.reported)}")] if hold.reported else []),
            ("where", safe(hold.target) + (f", database {safe(hold.database)}" if hold.database else "")
             + (f" as {safe(hold.account)}" if hold.account else "")),
            *([("what", safe(hold.text, lines=True))] if hold.text else []),
            *([("with", values or "no parameters")] if values or called(hold) == "Statement" else []),
        ]
        letters = foreign(hold.action, hold.text, hold.covers, *hold.parameters)
        rows += [("letters", letters)] if letters else []
        rows += [("plan", safe(hold.plan, lines=True))] if hold.plan else []
        rows += [("rows", f"about {hold.rows}")] if hold.rows >= 0 else []
    rows.append(("rule", safe(", ".join(hold.rules)) or "none"))
    if hold.assents:
        rows.append(("approved by", f"{safe(', '.join(hold.assents))}"
                     + (f" ({len(hold.assents)} of {hold.wanted})" if pending and hold.wanted > 1 else "")))
    if not pending:
        until = f"for {left}" if hold.until else "until its session ends"
        return [*rows, ("in force", f"{lets_through(hold)}, {until}; weir approvals revoke {hold.ticket}")]
    number = f"{hold.wanted} of " if hold.wanted > 1 else ""
    rows.append(("answer by", f"{number}{safe(' or '.join(hold.approvers))}, within {left}"
                 + (f", {REASON_REQUIRED}" if hold.reason_required else "")))
    rows.append(("lets through", lets_through(hold)))
    if hold.escalates:
        rows.append(("escalates", f"in {span(hold.escalates - time.time_ns())}"))
    if hold.break_glass:
        rows.append(("break glass", f"{safe(' or '.join(hold.break_glass))}, alone, with a reason; it is an alarm"))
    return rows


def place(one: SessionView) -> str:
    """TARGET/DATABASE, or ACCOUNT@TARGET where there are none."""
    if one.database or not one.account:
        return f"{safe(one.target)}/{safe(one.database)}" if one.database else safe(one.target)
    return f"{safe(one.account)}@{safe(one.target)}"


def render_sessions(sessions: Sequence[SessionView]) -> RenderableType:
    if not sessions:
        return Text("no session is open")
    lines: list[tuple[str, ...]] = [
        ("SESSION", "WHO", "WORKLOAD", "PID", "WHERE", "OPERATIONS", "STATE", "SINCE", "REPORTED")]
    lines += [
        (safe(one.session), safe(one.subject), safe(one.workload), str(one.pid),
         place(one), str(one.operations), safe(one.state), ago(one.since),
         safe(one.reported))
        for one in sessions]
    if not any(one.reported for one in sessions):
        lines = [line[:-1] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return Text("\n").join(
        Text("  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip(),
             "bold" if line is lines[0] else "")
        for line in lines)
