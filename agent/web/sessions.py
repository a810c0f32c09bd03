"""Pure: who is logged in at the page, by what their browsers hold.

A secret is made here, given to one browser, and known by its hash alone from then on.  Two kinds: of a login that is
under way (it binds the answer of a provider to the browser that began), and of a session.
"""
from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Iterator
from hashlib import sha256
from typing import Final

import msgspec

PENDING: Final = 256                  # logins under way; one more, and the oldest is given up
MOST: Final = 1024                    # sessions, and
EACH: Final = 16                      # of one subject: one more ends the one that was used last
BYTES: Final = 32                     # of a secret


class Held(msgspec.Struct, frozen=True):
    login: str                        # session of agent.logins
    subject: str = ""
    used: float = 0.0                 # seconds of CLOCK_BOOTTIME


def _mint() -> str:
    return secrets.token_urlsafe(BYTES)


def _key(secret: str) -> bytes:
    return sha256(secret.encode()).digest()


class PageSessions:
    def __init__(self) -> None:
        self._pending: OrderedDict[bytes, str] = OrderedDict()
        self._relays: dict[str, str] = {}     # of these by SAML: RelayState -> login
        self._open: dict[bytes, Held] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Held]:
        return iter(tuple(self._open.values()))

    # logins under way

    def begin(self, login: str, relay: str = "") -> tuple[str, list[str]]:
        """(secret, logins that have to make room)."""
        secret = _mint()
        self._pending[_key(secret)] = login
        if relay:
            self._relays[relay] = login
        out = []
        while len(self._pending) > PENDING:
            out.append(next(iter(self._pending.values())))
            self.end(out[-1])
        return secret, out

    def pending(self, secret: str) -> str:
        """Whose it is, "" where none is under way."""
        return self._pending.get(_key(secret), "")

    def of_relay(self, relay: str) -> str:
        return self._relays.get(relay, "")

    def answered(self, relay: str) -> None:
        """An answer counts once."""
        self._relays.pop(relay, None)

    # sessions

    def open(self, pending: str, subject: str, now: float) -> tuple[str, list[str]]:
        """For the login that this secret is of: (another secret, logins that have to make room)."""
        login = self._pending[_key(pending)]
        self._forget_pending(login)
        secret = _mint()
        self._open[_key(secret)] = Held(login, subject, now)
        out = []
        while len(mine := [one for one in self if one.subject == subject]) > EACH:
            out.append(self._oldest(mine, login))
        while len(self._open) > MOST:
            out.append(self._oldest(list(self), login))
        return secret, out

    def _oldest(self, some: list[Held], but: str) -> str:
        login = min((one for one in some if one.login != but), key=lambda one: one.used).login
        self.end(login)
        return login

    def find(self, secret: str) -> Held | None:
        return self._open.get(_key(secret))

    def use(self, secret: str, now: float) -> None:
        key = _key(secret)
        if (held := self._open.get(key)) is not None:
            self._open[key] = msgspec.structs.replace(held, used=now)

    def idle(self, now: float, seconds: int) -> list[str]:
        """Logins that nobody has used for so long."""
        return [one.login for one in self if now - one.used >= seconds]

    def end(self, login: str) -> None:
        self._forget_pending(login)
        self._open = {key: one for key, one in self._open.items() if one.login != login}

    def _forget_pending(self, login: str) -> None:
        for key in [key for key, one in self._pending.items() if one == login]:
            del self._pending[key]
        for relay in [relay for relay, one in self._relays.items() if one == login]:
            del self._relays[relay]
