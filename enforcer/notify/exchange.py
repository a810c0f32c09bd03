"""Edge: one POST to Slack or to a webhook, bounded in size and time; what came of it in few words, without a secret."""
from __future__ import annotations

import asyncio
import re
import ssl
from typing import Any, Final

import httpx2
import msgspec

from agent.contract.notify import Slack
from enforcer import https

SECONDS: Final = 10.0                 # of a whole exchange
_SECONDS: Final = re.compile(r"[0-9]{1,5}")
# What passes by itself; any other error of Slack's is said by the same message again.
PASSING: Final = frozenset({
    "ratelimited", "rate_limited", "internal_error", "fatal_error", "service_unavailable", "request_timeout",
    "team_added_to_org", "accesslimited"})
TEXTS: Final = frozenset({
    "invalid_blocks", "invalid_blocks_format", "msg_blocks_too_long", "msg_too_long", "markdown_text_conflict",
    "invalid_arguments", "no_text"})


class Undelivered(Exception):
    """`wait`: seconds that the receiver asks for; `final`: to try again is of no use, `about_text`: with this text."""

    def __init__(self, text: str, wait: float = 0.0, final: bool = False, about_text: bool = False) -> None:
        super().__init__(text)
        self.wait, self.final, self.about_text = wait, final, about_text


class Said(msgspec.Struct, frozen=True):
    """Of an answer of the Web API what Weir looks at."""

    ok: bool
    error: str = ""
    ts: str = ""
    url: str = ""                     # of apps.connections.open
    team_id: str = ""                 # of auth.test
    user_id: str = ""


_said = msgspec.json.Decoder(Said)


class Exchange:
    """Answers of which nothing is read but status and, with `read`, body."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._client = httpx2.AsyncClient(**https.options(context))

    async def close(self) -> None:
        await self._client.aclose()

    async def post(self, url: str, body: bytes, headers: dict[str, str], read: bool = False) -> tuple[int, bytes]:
        """Status and body.  Raises Undelivered."""
        try:
            async with asyncio.timeout(SECONDS), self._client.stream(
                    "POST", url, content=body, headers={"User-Agent": "Weir", **headers}) as answer:
                status = int(answer.status_code)
                found = await answer.aread() if read else b""
                if status == 429 or status >= 500:
                    raise Undelivered(f"it answered {status}", _wait(answer.headers.get("Retry-After", "")))
        except Undelivered:
            raise
        except TimeoutError:
            raise Undelivered(f"it did not answer within {SECONDS:.0f} s") from None
        except https.TooLong as wrong:
            raise Undelivered(str(wrong)) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ssl.SSLError, ValueError) as wrong:
            raise Undelivered(f"it cannot be reached ({_why(wrong)})") from None
        return status, found


class WebApi:
    """Slack's (https://docs.slack.dev/apis/web-api)."""

    def __init__(self, settings: Slack, context: ssl.SSLContext) -> None:
        self._settings, self._exchange = settings, Exchange(context)

    async def close(self) -> None:
        await self._exchange.close()

    async def call(self, method: str, arguments: dict[str, Any], app: bool = False) -> Said:
        """`app`: with the app-level token.  Raises Undelivered."""
        token = self._settings.app_token if app else self._settings.bot_token
        status, body = await self._exchange.post(
            f"{self._settings.url}/{method}", msgspec.json.encode(arguments),
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json; charset=utf-8"}, read=True)
        if status != 200:
            raise Undelivered(f"Slack answered {method} with {status}")
        try:
            found = _said.decode(body)
        except (ValueError, RecursionError):
            raise Undelivered(f"Slack answered {method} with something else than it documents") from None
        if not found.ok:
            error = "".join(one for one in found.error[:64] if one.isalnum() or one in "_-.") or "an error"
            raise Undelivered(f"Slack answered {method} with {error}", final=error not in PASSING,
                              about_text=error in TEXTS)
        return found


def _wait(header: str) -> float:
    return float(header) if _SECONDS.fullmatch(header.strip()) else 0.0


def _why(wrong: BaseException) -> str:
    """Of a TLS error its reason, which names no secret; else what kind it is."""
    text = str(wrong)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "its certificate is not trusted"
    return type(wrong).__name__
