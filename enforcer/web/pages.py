"""The pages' HTML.  Pure: a struct in, text out; nothing is read but the templates beside this file."""
from __future__ import annotations

from collections.abc import Sequence

from agent.contract.messages import HoldView, SessionView
from enforcer.recording.paged import HistoryPage, LinesPage, SessionsPage
from enforcer.web.shown import Answering, HoldShown, Page, ProviderLink


def render_login(page: Page, providers: Sequence[ProviderLink]) -> str:
    raise NotImplementedError


def render_approvals(page: Page, holds: Sequence[HoldView]) -> str:
    """What waits and what is in force, the whole page."""
    raise NotImplementedError


def render_holds(page: Page, holds: Sequence[HoldView], chosen: str = "") -> str:
    """The list of it alone: what the stream carries.  `chosen`: the ticket whose page it is on."""
    raise NotImplementedError


def render_hold(page: Page, shown: HoldShown, holds: Sequence[HoldView] = ()) -> str:
    """One in full, with the forms that answer it; `holds` is the list beside it."""
    raise NotImplementedError


def render_answer(page: Page, asked: Answering | None) -> str:
    """Where a signed link leads.  None: what it was for is over."""
    raise NotImplementedError


def render_sessions(page: Page, sessions: Sequence[SessionView]) -> str:
    raise NotImplementedError


def render_session_rows(page: Page, sessions: Sequence[SessionView]) -> str:
    """The list of it alone."""
    raise NotImplementedError


def render_session(page: Page, session: SessionView | None, lines: LinesPage) -> str:
    """A live one and what it does.  None: it is over."""
    raise NotImplementedError


def render_lines(page: Page, lines: LinesPage) -> str:
    """What came since: for the stream."""
    raise NotImplementedError


def render_recordings(page: Page, found: SessionsPage) -> str:
    raise NotImplementedError


def render_replay(page: Page, found: LinesPage) -> str:
    """A recorded session, LINES events at a time."""
    raise NotImplementedError


def render_history(page: Page, found: HistoryPage) -> str:
    """What people answered."""
    raise NotImplementedError


def render_error(page: Page, status: int, says: str) -> str:
    raise NotImplementedError
