"""Edge: one webhook: events about a hold, in their order; each is tried until it arrives, or is of no use any more.

An event keeps id and body over all tries, so that a receiver knows it again (Standard Webhooks).
"""
from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict
from typing import Final

from agent.contract.notify import OVER, PENDING, GivenUp, Notice, Place, Result, Told, Trouble, Webhook
from enforcer import https
from enforcer.notify import payload
from enforcer.notify.backlog import Backlog
from enforcer.notify.exchange import Exchange, Undelivered
from enforcer.notify.signatures import sign_webhook
from enforcer.notify.slack import Send

QUEUE: Final = 1000                   # events that wait for one receiver,
BYTES: Final = 16 << 20               # and of their bodies
AT_ONCE: Final = 4                    # exchanges with it
KNOWN: Final = 2400                   # holds of which it is known what was said


class WebhookDesk:
    """Raises ssl.SSLError: the roots are none."""

    def __init__(self, settings: Webhook, host: str, send: Send) -> None:
        self.settings, self._host, self._send = settings, host, send
        self._way = f"webhook {settings.name}"
        self._exchange = Exchange(https.trusted(settings.ca))
        self._shown: OrderedDict[str, bytes] = OrderedDict()       # of each hold that the receiver knows, or may
        self._queues: OrderedDict[str, list[tuple[str, str, bytes]]] = OrderedDict()   # ticket: (event, id, body)
        self._backlog: Backlog[str] = Backlog(random.random, QUEUE)        # of tickets: the first event of each
        self._bytes = 0
        self._busy: set[str] = set()
        self._tried: set[str] = set() # of `_shown`
        self._news = asyncio.Event()
        self._trouble = ""
        self._tasks = [asyncio.get_running_loop().create_task(self._work()) for _ in range(AT_ONCE)]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._exchange.close()

    def put(self, notice: Notice) -> None:
        ticket = notice.view.ticket
        before = self._shown.get(ticket)
        told = [place.reference for place in notice.places if place.way == self._way]
        now = payload.shown(notice, self.settings)
        if notice.over:
            lost = before is None and notice.given
            self._over(notice, known=before is not None or bool(told) or lost, told=told, lost=lost)
        elif before is None and told:
            self._remember(ticket, now)
        elif before != now:
            self._remember(ticket, now)
            self._tell(notice, payload.event_of(notice, before is not None))

    def _over(self, notice: Notice, known: bool, told: list[str], lost: bool) -> None:
        """That it waits is not said any more, but for what is on its way; what was never told is not told to be
        over, unless it is not known (`lost`)."""
        ticket = notice.view.ticket
        queue = self._queues.get(ticket, [])
        kept = 1 if ticket in self._busy else 0
        for event, _, body in queue[kept:]:
            self._bytes -= len(body)
            if self._backlog.tries(ticket):
                self._send(GivenUp(ticket, self._way, f"{event}: it was over before it could be told"))
        del queue[kept:]
        if not kept:
            self._queues.pop(ticket, None)
            self._backlog.drop(ticket)
        began = ticket in self._tried or told or lost or PENDING not in self.settings.events
        if known and began and OVER not in told and OVER in self.settings.events:
            self._tell(notice, OVER)
        elif not kept:
            self._forget(ticket)

    def _tell(self, notice: Notice, event: str) -> None:
        if event in self.settings.events:
            self._enqueue(notice.view.ticket, event, *payload.render_event(
                notice, event, self.settings, self._host, time.time_ns()))

    def _remember(self, ticket: str, shown: bytes) -> None:
        self._shown[ticket] = shown
        self._shown.move_to_end(ticket)
        while len(self._shown) > KNOWN:
            self._forget(next(iter(self._shown)))

    def _forget(self, ticket: str) -> None:
        self._shown.pop(ticket, None)
        self._tried.discard(ticket)

    def _enqueue(self, ticket: str, event: str, identifier: str, body: bytes) -> None:
        queue = self._queues.get(ticket, [])
        if any(one == identifier for _, one, _ in queue):
            return
        if self._bytes + len(body) > BYTES or not self._backlog.add(ticket, time.monotonic()):
            self._send(GivenUp(ticket, self._way, f"{event}: too much waits to be told"))
            return
        self._queues.setdefault(ticket, []).append((event, identifier, body))
        self._bytes += len(body)
        self._news.set()

    async def _work(self) -> None:
        while True:
            ticket = self._backlog.take(time.monotonic())
            if ticket is not None:
                await self._deliver(ticket)
                continue
            self._news.clear()
            later = self._backlog.next()
            try:
                async with asyncio.timeout(None if later is None else max(0.0, later - time.monotonic())):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def _deliver(self, ticket: str) -> None:
        queue = self._queues.get(ticket)
        if not queue:
            self._backlog.done(ticket, time.monotonic())
            return
        event, identifier, body = queue[0]
        self._busy.add(ticket)
        self._tried.add(ticket)
        try:
            await self._post(identifier, body)
        except Undelivered as wrong:
            self._say(str(wrong))
            late = len(queue) > 1 and queue[-1][0] == OVER
            if late or not self._backlog.failed(ticket, time.monotonic(), wrong.wait):
                self._send(GivenUp(ticket, self._way, f"{event}: {wrong}"[:1000]))
                self._next(ticket, queue)
        else:
            self._say("")
            self._send(Told(ticket, Place(self._way, event)))
            self._next(ticket, queue)
        finally:
            self._busy.discard(ticket)

    def _next(self, ticket: str, queue: list[tuple[str, str, bytes]]) -> None:
        event, _, body = queue.pop(0)
        self._bytes -= len(body)
        self._backlog.drop(ticket)
        if event == OVER:
            self._forget(ticket)
        if queue:
            self._backlog.add(ticket, time.monotonic())
            self._news.set()
        else:
            self._queues.pop(ticket, None)

    async def _post(self, identifier: str, body: bytes) -> None:
        """Raises Undelivered."""
        headers = sign_webhook(self.settings.secret, identifier, int(time.time()), body)
        status, _ = await self._exchange.post(
            self.settings.url, body, headers | {"Content-Type": "application/json"})
        if not 200 <= status < 300:
            raise Undelivered(f"it answered {status}")

    async def tried(self) -> Result:
        try:
            await self._post(*payload.render_test(self.settings, self._host, time.time_ns()))
        except Undelivered as wrong:
            return Result(self._way, str(wrong)[:1000])
        return Result(self._way, "", "it took the test")

    def _say(self, text: str) -> None:
        if text != self._trouble:
            self._trouble = text
            self._send(Trouble(self._way, text[:1000]))


