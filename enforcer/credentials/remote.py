"""Edge: one Vault server, by HTTPS: a question, its bounded answer, or what is wrong in words of our own."""
from __future__ import annotations

import asyncio
import ssl
from typing import Any, Final
from urllib.parse import quote

import httpx2

from agent.contract.vault import Material, Server
from enforcer import https
from enforcer.pem import unnamed
from enforcer.words.errors import AuthenticationError

SECONDS: Final = 10.0                 # of one exchange
AT_ONCE: Final = 16                   # of them with one server
_STANDBY: Final = (429, 472, 473)
_WORDS: Final = {
    400: "refuses the question", 404: "has nothing there", 405: "does not know that question",
    412: "is not up to date yet", 429: "is a standby, or takes no more questions now", 472: "is a standby of "
    "recovery", 473: "is a standby", 501: "is not initialised", 503: "is sealed, or down for maintenance",
}


class Away(AuthenticationError):
    """It does not answer, or cannot now: what it gave before goes on."""


class Refused(AuthenticationError):
    """It says no."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class Remote:
    def __init__(self, server: Server, material: Material) -> None:
        """Raises AuthenticationError: its roots, or the certificate that is shown there, are none."""
        self.server = server
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._context = _context(server, material)

    async def ask(self, method: str, path: str, token: str = "", body: dict[str, Any] | None = None,
                  seconds: float = SECONDS) -> bytes:
        """`path`: below /v1/, as configured.  Raises Refused, Away, and no word of the answer."""
        headers = {"X-Vault-Request": "true", "Accept": "application/json"}
        headers |= {"X-Vault-Token": token} if token else {}
        headers |= {"X-Vault-Namespace": self.server.namespace} if self.server.namespace else {}
        url = f"{self.server.address}/v1/{quote(path)}"
        try:
            async with asyncio.timeout(seconds), self._turn, httpx2.AsyncClient(
                    **https.options(self._context)) as client:
                answer = await client.request(method, url, headers=headers, json=body)
        except TimeoutError:
            raise Away(f"{self._name} did not answer within {seconds:.0f} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as wrong:
            raise Away(f"{self._name} cannot be reached ({_kind(wrong)})") from None
        except (ValueError, TypeError, LookupError) as wrong:
            raise Away(f"{self._name} cannot be spoken with ({type(wrong).__name__})") from None
        self._check(answer, path)
        return answer.content

    @property
    def _name(self) -> str:
        return f"Vault {self.server.name}"

    def _check(self, answer: httpx2.Response, path: str) -> None:
        """As developer.hashicorp.com/vault/api-docs has the codes; a namespace that is not there is a 404."""
        status = answer.status_code
        if status in (200, 204):
            return
        if 300 <= status < 400:
            raise Away(f"{self._name} sends elsewhere ({status}): `address` names the active server")
        said = _WORDS.get(status, "fails" if status >= 500 else "says no")
        where = f" in namespace {self.server.namespace}" if self.server.namespace else ""
        if status == 403:
            said = "permits it not: its policy for Weir has no such path, or the login there does not hold"
        text = f"{self._name} {said} ({status}) at {path}{where}"
        raise Away(text) if status >= 500 or status in _STANDBY or status == 412 else Refused(text, status)


def _context(server: Server, material: Material) -> ssl.SSLContext:
    try:
        context = https.trusted(server.ca)
    except ssl.SSLError:
        raise AuthenticationError(f"the roots of vault {server.name} cannot be read") from None
    if material.certificate:
        try:
            with unnamed(f"{material.certificate}\n{material.key}") as path:
                context.load_cert_chain(path, password=_no_password)
        except (ssl.SSLError, OSError, ValueError):
            raise AuthenticationError(f"the certificate_file of vault {server.name} or its key cannot be used"
                                      ) from None
    return context


def _no_password() -> str:
    """OpenSSL would ask a terminal."""
    return ""


def _kind(error: BaseException) -> str:
    """A certificate that is not trusted is worth a word of its own."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate: {cause.verify_message}"
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
