"""What a page shows.  Frozen; texts are as they came: the pages make them safe.

The pages go on living by server-sent events, one stream a page, at `Paths.events_*`:

    event: holds        data: render_holds(...)        whenever what waits has changed, and once at the beginning
    event: sessions     data: render_session_rows(...)
    event: lines        data: render_lines(...), id: the page's `last`; what came since the Last-Event-ID, or `?after=`
    event: beat         data: nanoseconds UTC          at least every BEAT seconds

A page that hears nothing for three of these says that it may be old.  Answers are forms that are posted to
`Paths.hold` + "/TICKET/VERB" with `csrf`, `seen` (`seen_of` the view that was shown: an answer to something else does
not count) and perhaps `reason`; VERB is one of VERBS.
"""
from __future__ import annotations

from hashlib import blake2b
from typing import Final

import msgspec

from agent.contract.messages import HoldView, SessionView
from enforcer.recording.paged import HistoryPage

# Content-Security-Policy of every page: nothing of elsewhere, nothing written into the markup.
POLICY: Final = ("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
                 "form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
BEAT: Final = 15                      # seconds
REASON: Final = 200                   # characters
APPROVE, DENY, GLASS, REVOKE = "approve", "deny", "break-glass", "revoke"
VERBS: Final = (APPROVE, DENY, GLASS, REVOKE)


class Viewer(msgspec.Struct, frozen=True):
    """Who looks."""

    subject: str = ""                 # "": nobody is logged in
    groups: tuple[str, ...] = ()
    approver: bool = False            # sees what waits
    auditor: bool = False             # sees sessions and recordings
    csrf: str = ""
    operator: bool = False            # may end sessions


class Paths(msgspec.Struct, frozen=True):
    """Where things are; a ticket or session follows after a slash."""

    static: str = "/static"           # with pages.VERSION behind it files may be kept for ever
    login: str = "/login"
    logout: str = "/logout"           # POST, csrf
    approvals: str = "/"
    hold: str = "/holds"              # /TICKET: render_hold; /TICKET/VERB: POST
    events_holds: str = "/events/holds"
    sessions: str = "/sessions"       # /ID: render_session; /ID/kill: POST by an operator, csrf and reason
    events_sessions: str = "/events/sessions"         # /ID: event lines
    recordings: str = "/recordings"   # ?before=SEQ; /ID?after=SEQ
    history: str = "/history"         # ?before=SEQ: what people answered


class Page(msgspec.Struct, frozen=True):
    """What every page needs."""

    viewer: Viewer = Viewer()
    paths: Paths = Paths()
    now: int = 0                      # nanoseconds UTC, of the server
    host: str = ""                    # whose Weir this is
    done: str = ""                    # what the last answer did,
    wrong: str = ""                   # or why it did not count


class ProviderLink(msgspec.Struct, frozen=True):
    """A way to log in: a form is posted to `path` with `csrf`."""

    name: str
    path: str


class HoldShown(msgspec.Struct, frozen=True):
    """One in full."""

    view: HoldView
    history: HistoryPage | None = None        # of its subject; None: not for this viewer, or not known
    session: SessionView | None = None        # the asker's, while it is open


class Answering(msgspec.Struct, frozen=True):
    """What a signed link leads to: a yes or no that is given by POST to `path` with these `fields`."""

    view: HoldView
    verb: str                         # APPROVE | DENY
    by: str                           # whose link it is
    path: str
    fields: tuple[tuple[str, str], ...] = ()
    until: int = 0                    # nanoseconds UTC, that the link holds


def seen_of(view: HoldView) -> str:
    """Changes with all that an approver has to have seen; not with time, nor with who else has answered."""
    told = (view.ticket, view.state, view.subject, view.workload, view.pid, view.exe, view.target, view.database,
            view.action, view.text, view.parameters, view.rules, view.form, view.reuse, view.reason, view.plan,
            view.rows, view.reported, view.account, view.covers, view.reuse_for)
    return blake2b(msgspec.msgpack.encode(told), digest_size=12).hexdigest()
