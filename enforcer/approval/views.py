"""What approvers and askers are shown.  Pure; everything that a crew may make long is bounded, and says so."""
from __future__ import annotations

from typing import Final

from msgspec import structs

from agent.contract.messages import HoldView
from enforcer.approval import answers
from enforcer.approval.asked import ELEVATION, TICKET, Asked
from enforcer.core.context import Context
from enforcer.words.commands import Hold
from enforcer.words.decisions import HoldTerms
from enforcer.words.reported import say

TEXT: Final = 4000                    # characters of what is asked that an approver is shown
REPORTED: Final = 400                 # of what its process reports
VALUE: Final = 500                    # of one parameter,
VALUES: Final = 4000                  # and of all of them,
COUNT: Final = 100                    # of which so many are shown: an empty one takes room as well
LEAST: Final = 20                     # characters that are left of each where much waits
OTHER: Final = 400                    # characters of a view besides, or of what says that something was cut
NANO: Final = 1_000_000_000


def view_operation(
    context: Context, command: Hold, ticket: str, form: str, reuse: tuple[str, int], now: int, until: int,
) -> HoldView:
    owner = context.principal.owner
    process = owner.process
    return HoldView(
        ticket=ticket, since=now, until=until, subject=context.principal.subject, workload=owner.workload,
        pid=process.pid if process else 0, exe=process.exe if process else "", target=context.target.name,
        database=command.database, action=cut(command.action, TEXT), text=cut(command.text, TEXT),
        parameters=_values(command.parameters), rules=command.rules,
        session=context.session, form=form, reuse=reuse[0], reuse_for=reuse[1], plan=_plan(command, form),
        reported=say(context.reported(), REPORTED), account=cut(command.account, VALUE),
        covers=cut(command.covers, REPORTED),
        **_asked_of(command.terms, now))  # type: ignore[arg-type]


def view_elevation(
    ticket: str, subject: str, target: str, seconds: int, reason: str, terms: tuple[HoldTerms, ...], now: int,
    until: int,
) -> HoldView:
    return HoldView(
        ticket=ticket, since=now, until=until, subject=subject, workload="", pid=0, exe="", target=target, database="",
        action=f"elevate for {span(seconds)}", text="", parameters=(), rules=tuple(one.rule for one in terms),
        session="", form=ELEVATION, reason=cut(reason, TEXT), **_asked_of(terms, now))  # type: ignore[arg-type]


def _plan(command: Hold, form: str) -> str:
    """Until it is there."""
    if command.explain is None:
        return command.unexplained
    return "not shown of what does not wait" if form == TICKET else "being asked for"


def _asked_of(terms: tuple[HoldTerms, ...], now: int) -> dict[str, object]:
    delays = [one.escalate_after for one in terms if one.escalate_after]
    return {
        "approvers": tuple(dict.fromkeys(group for one in terms for group in one.approvers)),
        "reason_required": any(one.reason_required for one in terms), "wanted": answers.wanted(terms),
        "break_glass": tuple(dict.fromkeys(one.break_glass for one in terms if one.break_glass)),
        "escalates": now + min(delays) * NANO if delays else 0,
    }


def render_reason(asked: Asked) -> str:
    """One sentence for whoever waits."""
    view = asked.view
    rules = ", ".join(view.rules)
    number = f"{view.wanted} of " if view.wanted > 1 else ""
    within = span(max(0, view.until - view.since) // NANO)
    why = ", with a reason" if view.reason_required else ""
    return f"policy {rules} wants an approval by {number}{' or '.join(view.approvers)} within {within}{why}"


def span(seconds: int) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters in all, cut here)"


def fit(views: tuple[HoldView, ...], room: int) -> tuple[HoldView, ...]:
    """All of them, in so many bytes: what is longest is cut, so that nobody's texts hide what others ask.  Counted in
    characters of four bytes each, for to encode all of it takes as long as a crew likes."""
    sizes = [size for view in views for size in _sizes(view)]
    most, left = TEXT * 2, room // 4 - sum(OTHER + len(view.subject) for view in views)
    while sum(min(size, most) for size in sizes) > left and most > LEAST:
        most //= 2
    return tuple(_shorten(view, most) for view in views) if most <= TEXT else views


def _sizes(view: HoldView) -> tuple[int, ...]:
    return (len(view.text), len(view.action), len(view.plan), len(view.exe), len(view.reason),
            len(view.reported), len(view.covers), sum(map(len, view.parameters)))


def _shorten(view: HoldView, most: int) -> HoldView:
    def short(text: str) -> str:
        return text if len(text) <= most else f"{text[:most]}... (cut here: much waits)"

    return structs.replace(
        view, text=short(view.text), action=short(view.action), plan=short(view.plan), exe=short(view.exe),
        reason=short(view.reason), reported=short(view.reported), covers=short(view.covers),
        parameters=_values(view.parameters, most))


def _values(parameters: tuple[str, ...], room: int = VALUES) -> tuple[str, ...]:
    shown: list[str] = []
    for number, value in enumerate(parameters):
        if room <= 0 or number == COUNT:
            return (*shown, f"... ({len(parameters) - number} more)")
        shown.append(cut(value, min(VALUE, room)))
        room -= len(shown[-1])
    return tuple(shown)
