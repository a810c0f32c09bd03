"""Edge: Slack's socket mode (https://docs.slack.dev/apis/events-api/using-socket-mode): presses without a door of ours.

One connection at a time; each envelope is acknowledged, a second one of the same id is not acted upon.  Slack says
where the connection goes: never to another host than the Web API's or one below its name.
"""
from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from enforcer.notify.exchange import SECONDS, Undelivered, WebApi
from enforcer.notify.interactions import ENVELOPE, Envelope, Malformed, parse_envelope
from enforcer.notify.signatures import SPAN, Seen

LOG = logging.getLogger("weir.notify")

WAY: Final = "slack socket"
FIRST, LONGEST = 1.0, 60.0            # seconds before the next try
PROVEN: Final = 30.0                  # seconds after which a connection was a good one
PING: Final = 15.0                    # seconds
FLOOD: Final = 300                    # envelopes
WINDOW: Final = 10.0                  # in so many seconds: more are no people's

Handle = Callable[[bytes | msgspec.Raw], Awaitable[dict[str, Any] | None]]


class _Straight(connect):
    """Follows no redirect."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class Socket:
    def __init__(
        self, api: WebApi, context: ssl.SSLContext, url: str, handle: Handle, say: Callable[[str, str], None],
    ) -> None:
        self._api, self._context, self._url, self._handle, self._say = api, context, url, handle, say
        self._seen = Seen(2 * SPAN)
        self.trouble = "not connected"

    async def run(self) -> None:
        wait = FIRST
        while True:
            began = time.monotonic()
            try:
                await self._life()
                refreshed, error = True, ""
            except Undelivered as wrong:
                refreshed, error = False, str(wrong)
            except (OSError, TimeoutError, WebSocketException, ssl.SSLError, Malformed) as wrong:
                refreshed, error = False, f"the connection ended ({type(wrong).__name__})"
            lasted = time.monotonic() - began
            if refreshed and lasted > FIRST:
                wait = FIRST
                continue
            self.trouble = error or "Slack ends each connection at once"
            self._say(WAY, self.trouble)
            wait = FIRST if lasted > PROVEN else min(wait * 2, LONGEST)
            await asyncio.sleep(wait * (0.5 + random.random() / 2))  # noqa: S311  jitter

    async def _life(self) -> None:
        """One connection; ends in order where Slack says that another is wanted."""
        url = (await self._api.call("apps.connections.open", {}, app=True)).url
        if wrong := wrong_place(url, self._url):
            raise Undelivered(wrong)
        async with _Straight(
                url, ssl=self._context if url.startswith("wss:") else None, max_size=ENVELOPE, max_queue=8,
                compression=None, proxy=None, open_timeout=SECONDS, ping_interval=PING, ping_timeout=PING,
                close_timeout=2.0) as connection:
            await self._talk(connection)

    async def _talk(self, connection: ClientConnection) -> None:
        count, since = 0, time.monotonic()
        async for text in connection:
            if time.monotonic() - since > WINDOW:
                count, since = 0, time.monotonic()
            count += 1
            if count > FLOOD:
                raise Undelivered(f"more than {FLOOD} envelopes came in {WINDOW:.0f} s")
            envelope = parse_envelope(text)
            if envelope.kind == "disconnect":
                return
            if envelope.kind == "hello":
                self.trouble = ""
                self._say(WAY, "")
            elif envelope.envelope_id:
                await self._acknowledge(connection, envelope)
        raise Undelivered("Slack closed the connection")

    async def _acknowledge(self, connection: ClientConnection, envelope: Envelope) -> None:
        answer = None
        if envelope.kind == "interactive" and self._seen.is_new(envelope.envelope_id, time.monotonic()):
            answer = await self._handle(envelope.payload)
        said: dict[str, Any] = {"envelope_id": envelope.envelope_id}
        async with asyncio.timeout(SECONDS):
            await connection.send(msgspec.json.encode(said | ({"payload": answer} if answer else {})).decode())


def wrong_place(url: str, api: str) -> str:
    """Pure: why the connection does not go where Slack said; "" where it does."""
    try:
        place, home = urlsplit(url), urlsplit(api)
        host, name = place.hostname or "", home.hostname or ""
        _ = place.port
    except ValueError:
        return "Slack named no address for the connection"
    if place.scheme != {"https": "wss", "http": "ws"}.get(home.scheme):
        return "Slack named an address for the connection that is not wss"
    if place.username or place.password or (host != name and not host.endswith(f".{name}")):
        return "Slack named another host for the connection"
    return ""
