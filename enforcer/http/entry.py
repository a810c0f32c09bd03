"""How a session gets to its server: a credential, a connection, TLS; and again, where one of them does not last.

Theory: servers close connections on which nothing is asked for a while (Kubernetes: 32 s before the first request, 90 s
between two), credentials expire, and a request may be held for hours.  So a connection is left when its server closes
it and somebody still wants to ask something, and there is another once that may go.

    Login --credential--> OpenConnection --connected--> StartTls --secured--> there
      ^---- it expires, or the server does not take it; left, and another request goes ----'

A token is shown with each request; a certificate with the connection, so that another one takes another connection.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Final

from agent.contract.credential import Credential
from enforcer.core.context import Context
from enforcer.http.messages import Headers
from enforcer.words import commands as words
from enforcer.words.commands import SERVER, Command

ALPN: Final = "http/1.1"
MARGIN: Final = 5                     # seconds before a credential expires in which another one is asked for
_SECOND: Final = 1_000_000_000
AGAIN: Final = 10 * _SECOND           # in which 401 has a credential asked for anew once: a crew may be who answers so


class Entry:
    """`there`: a connection to the server stands."""

    def __init__(self, context: Context, say: Callable[[Command], None]) -> None:
        self._context, self._say = context, say
        self._credential: Credential | None = None
        self._shown = ""              # the connection's certificate
        self._fresh = self._asking = False
        self._refused: int | None = None       # when a server last had it asked for anew
        self.there = False
        self._address = ""

    def begin(self) -> None:
        """Answered by CredentialReady or CredentialFailed."""
        self._asking = True
        self._say(words.Login("", ""))

    def ready(self) -> bool:
        """Whether a request may go now.  If not it is on its way: `secured`, or `credential_ready`, says when."""
        if self.there and self._fresh and self._lasts(MARGIN):
            return True
        if not self._asking:
            self.begin()
        return False

    def credential_ready(self, credential: Credential) -> bool:
        """Whether a request may go now."""
        self._credential, self._fresh, self._asking = credential, True, False
        if self.there and credential.certificate == self._shown:
            return True
        if self.there:
            self.leave()
        self._shown = credential.certificate
        self._say(words.OpenConnection())
        return False

    def expired(self) -> bool:
        return not self._lasts(0)

    def connected(self, address: str) -> None:
        self._address = address
        self._say(words.StartTls(SERVER, alpn=ALPN))

    def secured(self, version: str) -> str:
        """Who Weir is there, where that is, and by which TLS."""
        assert self._credential is not None
        self.there = True
        return f"{self._credential.user or 'token'}@{self._address} {version}"

    def refused(self) -> None:
        """The server does not take the credential: the next request asks for one anew."""
        now = self._context.monotonic()
        if self._refused is None or now - self._refused >= AGAIN:
            self._fresh, self._refused = False, now

    def leave(self) -> None:
        self.there = False
        self._say(words.LeaveServer())

    def headers(self) -> Headers:
        """What a request shows."""
        assert self._credential is not None
        token = self._credential.token
        return ((b"authorization", b"Bearer " + token.encode()),) if token else ()

    def _lasts(self, margin: int) -> bool:
        return self._credential is not None and self._credential.lasts(self._context.now() / _SECOND + margin)
