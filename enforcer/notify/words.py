"""Pure: what waits in the words of a message: bounded, in one line or in lines, and no more than may leave the host."""
from __future__ import annotations

from typing import Final

from agent.contract.messages import HoldView
from agent.contract.notify import STATEMENT, Notice
from agent.contract.said import called as called
from agent.contract.said import lets_through

NANO: Final = 1_000_000_000
LINE: Final = 300                     # characters of a value in one line
TEXT: Final = 2900                    # of a statement or plan: Slack takes 3000 in one text
MANY: Final = 20                      # rules or approvers that are named
ALTERED: Final = " (cut here; the whole is in `weir approvals`)"


def line(text: str, most: int = LINE) -> str:
    """One line: what would break or turn it (line ends, control characters, direction marks) is a question mark."""
    shown = "".join(one if one.isprintable() else "?" for one in text[:most + 1])
    return shown if len(shown) <= most else shown[:most - 3] + "..."


def lines(text: str, most: int = TEXT) -> str:
    """As it is, with its line ends and tabs."""
    shown = "".join(one if one.isprintable() or one in "\n\t" else "?" for one in text[:most + 1])
    return shown if len(shown) <= most else shown[:most - len(ALTERED)] + ALTERED


def listed(values: tuple[str, ...]) -> str:
    more = f" and {len(values) - MANY} more" if len(values) > MANY else ""
    return line(", ".join(values[:MANY])) + more


def what(view: HoldView) -> str:
    """What it is, as the beginning of a sentence."""
    return {"ticket": "A ticket", "elevation": "More rights for a while"}.get(view.form, "A held operation")


def facts(view: HoldView) -> tuple[tuple[str, str], ...]:
    """(label, value) in one line each, of both `show`."""
    process = f" (pid {view.pid}{f', {line(view.exe, 120)}' if view.exe else ''})" if view.pid else ""
    place = f"{view.target}, database {view.database}" if view.database else view.target
    place += f" as {view.account}" if view.account else ""
    asked = f"{len(view.assents)} of {view.wanted} have approved: {listed(view.assents)}" if view.assents else ""
    number = f"{view.wanted} of " if view.wanted > 1 else ""
    found = (
        ("Who", line(view.subject)), ("From", line(view.workload) + process if view.workload else ""),
        ("Reported", line(view.reported)), ("Against", line(place)), ("Wants", line(view.action)),
        ("Rows", f"about {view.rows}" if view.rows >= 0 else ""), ("Rule", listed(view.rules)),
        ("Lets through", line(lets_through(view), 600) if view.reuse != "once" else ""),
        ("May answer", number + listed(view.approvers)), ("So far", asked), ("Reason", line(view.reason)))
    return tuple((label, value) for label, value in found if value)


def texts(view: HoldView, show: str) -> tuple[tuple[str, str], ...]:
    """(label, text): what may hold data, and leaves the host only where `show` says so."""
    if show != STATEMENT:
        return ()
    # A line each: what breaks lines within one would be another's.
    values = "\n".join(f"${number} = {line(value, 600)}" if view.database else line(value, 600)
                       for number, value in enumerate(view.parameters, 1))
    found = ((called(view), lines(view.text)), ("Parameters" if view.database else "With", lines(values, 1500)),
             ("Plan", lines(view.plan, 1500)))
    return tuple((label, text) for label, text in found if text)


def outcome(notice: Notice) -> str:
    """How it ended, "" where it has not."""
    if not notice.over:
        return ""
    said = {"approved": "Approved", "denied": "Denied", "expired": "Expired: nobody answered in time",
            "cancelled": "Cancelled"}.get(notice.over, line(notice.over, 40))
    return said + (f" by {line(notice.by)}" if notice.by else "") + (
        f": {line(notice.reason)}" if notice.reason else "")
