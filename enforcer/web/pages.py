"""The pages' HTML.  Pure: a struct in, text out; nothing is read but the templates and files beside this module.

Whatever a template shows goes through `safe` and is escaped, whether its author thought of it or not: `finalize` does
it, and only what `colours` marks is markup of ours.
"""
from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from agent.contract.messages import HoldView, SessionView
from agent.contract.said import called, foreign, lets_through, safe, span
from enforcer.recording.paged import HistoryPage, LinesPage, SessionsPage, TapePage
from enforcer.web import shown
from enforcer.web.colours import COMMENT, colour, mark
from enforcer.web.shown import Answering, HoldShown, Page, ProviderLink, seen_of

FILES: Final = Path(__file__).parent / "static"        # what is served at Paths.static
# Of all of them together: as a folder of Paths.static it keeps browsers from mixing those of two builds.
VERSION: Final = blake2b(b"".join(one.read_bytes() for one in sorted(FILES.iterdir())), digest_size=6).hexdigest()
PEEK: Final = 160                     # characters of a statement in a list
SCANNED: Final = 1000                 # of which so many are looked at: a scanner may take the square of a text's length
KNOWN: Final = 2048                   # statements whose colours are remembered, more than may wait: a list is drawn at
                                      # every change, for whoever looks
SECOND: Final = 10**9


def render_login(page: Page, providers: Sequence[ProviderLink], to: str = "") -> str:
    """`to`: the page that the login was for."""
    return _render("login.html", page, providers=providers, to=to)


def render_begun(page: Page, name: str, url: str) -> str:
    """While a login goes on at its provider."""
    return _render("begun.html", page, provider=name, url=url)


def render_approvals(page: Page, holds: Sequence[HoldView]) -> str:
    """What waits and what is in force, the whole page."""
    return _render("approvals.html", page, **_listed(holds))


def render_holds(page: Page, holds: Sequence[HoldView], chosen: str = "") -> str:
    """The list of it alone: what the stream carries.  `chosen`: the ticket whose page it is on."""
    return _render("holds.html", page, **_listed(holds, chosen))


def render_hold(page: Page, shown: HoldShown, holds: Sequence[HoldView] = ()) -> str:
    """One in full, with the forms that answer it; `holds` is the list beside it."""
    view = shown.view
    return _render("hold.html", page, view=view, shown=shown, may=_may(page, view), **_listed(holds, view.ticket))


def render_answer(page: Page, asked: Answering | None, answered: bool = False) -> str:
    """Where a signed link leads.  None: what it was for is over, or has just been `answered` by it."""
    return _render("answer.html", page, asked=asked, view=asked.view if asked else None, answered=answered)


def render_sessions(page: Page, sessions: Sequence[SessionView]) -> str:
    return _render("sessions.html", page, sessions=_ordered(sessions))


def render_session_rows(page: Page, sessions: Sequence[SessionView]) -> str:
    """The list of it alone."""
    return _render("session_rows.html", page, sessions=_ordered(sessions))


def render_session(page: Page, session: SessionView | None, lines: LinesPage) -> str:
    """A live one and what it does.  None: it is over."""
    return _render("session.html", page, session=session, found=lines, began=_began(lines))


def render_lines(page: Page, lines: LinesPage) -> str:
    """What came since: for the stream."""
    return _render("lines.html", page, found=lines, began=_began(lines))


def render_recordings(page: Page, found: SessionsPage) -> str:
    return _render("recordings.html", page, found=found)


def render_replay(page: Page, found: LinesPage) -> str:
    """A recorded session, LINES events at a time."""
    return _render("replay.html", page, found=found, began=_began(found))


def render_tape(found: TapePage) -> bytes:
    """JSON: times in milliseconds, pieces [time, stream, base64 or null]."""
    return msgspec.json.encode({
        "terminal": found.terminal, "length": found.length / 10**6, "last": found.last, "more": found.more,
        "ended": found.ended, "wrong": safe(found.wrong),
        "pieces": [(one.after / 10**6, one.stream, one.content) for one in found.pieces]})


def render_history(page: Page, found: HistoryPage) -> str:
    """What people answered."""
    return _render("history.html", page, found=found)


def render_error(page: Page, status: int, says: str) -> str:
    return _render("error.html", page, status=status, says=says)


def _listed(holds: Sequence[HoldView], chosen: str = "") -> dict[str, object]:
    """What waits first, the oldest first: what comes is added below, and moves nothing."""
    ordered = sorted(holds, key=lambda one: (one.since, one.ticket))
    return {"waiting": [one for one in ordered if one.state == "pending"],
            "standing": [one for one in ordered if one.state != "pending"], "chosen": chosen}


def _ordered(sessions: Sequence[SessionView]) -> list[SessionView]:
    return sorted(sessions, key=lambda one: (one.since, one.session))


def _began(found: LinesPage) -> int:
    if found.session is not None:
        return found.session.opened
    return found.lines[0].at if found.lines else 0


def _may(page: Page, view: HoldView) -> dict[str, object]:
    """Which forms are shown.  Whether an answer counts is not decided here."""
    mine, viewer = view.subject == page.viewer.subject, page.viewer
    pending, glass = view.state == "pending", bool(set(view.break_glass) & set(viewer.groups))
    named = bool(set(view.approvers) & set(viewer.groups)) and not mine
    why = ""
    if pending and mine:
        why = "You asked for this: somebody else has to answer it."
    elif pending and not named:
        why = f"You are in none of the groups that may answer: {' or '.join(view.approvers)}."
    return {"answer": pending and named, "glass": pending and glass, "why": why,
            "revoke": not pending and (named or mine), "withdraw": pending and mine and view.form != "hold"}


# What templates are given


def _finalize(value: object) -> object:
    return value if isinstance(value, Markup) else safe(str(value))


@lru_cache(KNOWN)
def _sql(text: str) -> Markup:
    """A statement, coloured."""
    return Markup("").join(_piece(kind, part) for kind, part in colour(text))


def _code(text: str) -> Markup:
    """Words that keep their lines."""
    return _piece("", text)


def _piece(kind: str, text: str) -> Markup:
    said = Markup("").join(
        Markup('<span class="{}">{}</span>').format(what, run) if what else escape(run) for what, run in mark(text))
    return Markup('<span class="sql-{}">{}</span>').format(kind, said) if kind else said


@lru_cache(KNOWN)
def _peek(text: str) -> Markup:
    """The beginning of it on one line, coloured as the whole is: a line's end ends a comment here, too."""
    left, said, pieces = PEEK, Markup(""), colour(text[:SCANNED])
    while len(pieces) > 1 and (pieces[0][0] == COMMENT or not pieces[0][1].strip()):
        said, pieces = Markup("… "), pieces[1:]
    for kind, part in pieces:
        line = " ".join(part[:left].split("\n"))
        said += _piece(kind, line)
        left -= len(line)
        if left <= 0:
            return said + "…"
    return said


def _headline(text: str) -> str:
    return text if len(text) <= PEEK else f"{text[:PEEK]}…"


def _utc(nanoseconds: int) -> str:
    return f"{datetime.fromtimestamp(nanoseconds // SECOND, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _iso(nanoseconds: int) -> str:
    return f"{datetime.fromtimestamp(nanoseconds // SECOND, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _after(nanoseconds: int) -> str:
    """Of a session, since it began."""
    seconds = max(0, nanoseconds) / SECOND
    return f"{int(seconds) // 60}:{seconds % 60:06.3f}"


def _foreign_of(view: HoldView) -> list[str]:
    found = foreign(view.action, view.text, view.reason, view.covers, *view.parameters)
    return found.split("\n") if found else []


_environment: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined,
    finalize=_finalize, trim_blocks=True, lstrip_blocks=True)
_environment.filters.update({
    "called": called, "sql": _sql, "code": _code, "peek": _peek, "headline": _headline, "utc": _utc, "iso": _iso,
    "after": _after, "span": span, "lets_through": lets_through, "foreign": _foreign_of, "seen": seen_of,
})
_environment.globals.update({"BEAT": shown.BEAT, "REASON": shown.REASON})


def _render(name: str, page: Page, **given: Any) -> str:
    return _environment.get_template(name).render(
        page=page, viewer=page.viewer, paths=page.paths, now=page.now, **given)
