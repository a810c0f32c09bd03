"""Pure: what a provider says of a session of its own that has ended (OpenID Connect Back-Channel Logout 1.0; SAML's own
form of it is saml/logout.py).

Anybody may post here: nothing is kept of a token before its signature was verified, and no more of it than there is
room for.  A logout token is never taken for any other token: it has an event, and no nonce (2.6).
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from agent.contract.identity import LOGOUT
from enforcer.identity.tokens import SKEW
from enforcer.words.errors import AuthenticationError

EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
WINDOW: Final = 600                   # seconds after `iat` in which a token is taken, however long it says
USED: Final = 10_000                  # tokens that are remembered
RECENT: Final = 120                   # seconds in which a login that was under way meanwhile is looked at
TEXT: Final = 255                     # characters of `sid`, `sub` and `jti`


@dataclass(frozen=True)
class Known:
    """How a provider itself knows a session: its `sub` and `sid`, NameID and SessionIndex, and when it said so.  All
    empty: no person's."""

    name: str = ""
    session: str = ""
    issued: int = 0                   # seconds UTC
    form: str = ""                    # SAML: the format of `name`


NOBODY: Final = Known()


@dataclass(frozen=True)
class Logout:
    provider: str
    name: str                         # `sub`, "": of the session alone
    sessions: tuple[str, ...]         # one of these, (): all of that name
    issued: int                       # seconds UTC
    token: str                        # `jti`
    until: int                        # seconds UTC after which nobody takes it any more

    def ends(self, provider: str, known: Known) -> bool:
        """2.6 and 2.7: whatever of both it names must be the session's."""
        return (provider == self.provider and bool(known.name or known.session) and self.name in ("", known.name)
                and (not self.sessions or known.session in self.sessions))


def parse_form(body: bytes) -> str:
    """The token (2.5).  Other parameters are not looked at.  Raises AuthenticationError."""
    if len(body) > LOGOUT:
        raise AuthenticationError("what came is too long")
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=16)
    except ValueError:
        raise AuthenticationError("what came is no form") from None
    found = [value for name, value in pairs if name == "logout_token"]
    if len(found) != 1:
        raise AuthenticationError("what came holds no logout_token, or several")
    return found[0]


def parse_logout(claims: Mapping[str, Any], provider: str, now: int) -> Logout:
    """2.6, steps 4 to 7, of claims whose signature, issuer, audience and times were verified.  Raises
    AuthenticationError."""
    if "nonce" in claims:
        raise AuthenticationError("it has a nonce: it is no logout token")
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(EVENT), dict):
        raise AuthenticationError("it does not say that somebody has logged out")
    name, session, token = (_text(claims, one) for one in ("sub", "sid", "jti"))
    if not name and not session:
        raise AuthenticationError("it names neither a session nor a subject")
    if not token:
        raise AuthenticationError("it has no jti: whether it came before cannot be told")
    issued = claims.get("iat")
    if isinstance(issued, bool) or not isinstance(issued, int | float):
        raise AuthenticationError("it does not say when it was issued")
    if issued + WINDOW + SKEW <= now:
        raise AuthenticationError("it was issued too long ago")
    until = min(int(claims["exp"]), int(issued) + WINDOW) + SKEW
    return Logout(provider, name, (session,) if session else (), int(issued), token, until)


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name, "")
    if not isinstance(value, str) or len(value) > TEXT or (name in claims and not value):
        raise AuthenticationError(f"its {name} is no text of {TEXT} characters at most")
    return value


class Logouts:
    """Those that came: each counts once, and for a while also for a login that was under way when it came."""

    def __init__(self) -> None:
        self._used: dict[tuple[str, str], int] = {}    # (provider, jti) -> until when
        self._recent: list[tuple[int, Logout]] = []    # when it came, seconds UTC

    def take(self, logout: Logout, now: int) -> None:
        """Raises AuthenticationError: it came before, or there is no room to remember it."""
        self._used = {one: until for one, until in self._used.items() if until > now}
        if (logout.provider, logout.token) in self._used:
            raise AuthenticationError("it came before")
        if len(self._used) >= USED:
            raise AuthenticationError("too many at once")
        self._used[logout.provider, logout.token] = logout.until
        self._recent = [(came, one) for came, one in self._recent if came + RECENT > now][1 - USED:]
        self._recent.append((now, logout))

    def check(self, provider: str, known: Known, now: int) -> None:
        """Raises AuthenticationError: the session has ended at the provider while it was being opened here.  By its
        subject alone only what was issued before counts: who logs in anew is welcome."""
        for came, one in self._recent:
            sure = known.session in one.sessions and bool(known.session)
            if came + RECENT > now and one.ends(provider, known) and (sure or known.issued <= one.issued):
                raise AuthenticationError("the provider has ended that session meanwhile")
