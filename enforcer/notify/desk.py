"""Edge: everything that is told and asked in one place, as the agent has configured it.

A reload makes anew what has changed; what waits is told to it again, and where that was told already it is known.
"""
from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Final

import msgspec

from agent.contract import notify as messages
from agent.contract.notify import Answered, Message, Notice, Place, SlackAnswer, Told
from enforcer.notify.slack import SlackDesk
from enforcer.notify.webhooks import WebhookDesk

DECIDED: Final = 20.0                 # seconds that the agent may take
AT_ONCE: Final = 64                   # questions to the agent


class Desk:
    """`send` gives a message to the agent."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send_on = send
        self._slack: SlackDesk | None = None
        self._webhooks: dict[str, WebhookDesk] = {}
        self._host = ""
        self._notices: dict[str, Notice] = {}  # what waits; of what is over the agent does not speak again
        self._asked: dict[int, asyncio.Future[str]] = {}
        self._number = 0

    async def configure(self, message: messages.Configure) -> str:
        """What is wrong, or ""."""
        same_host, self._host = message.host == self._host, message.host
        wrong = []
        if self._slack is not None and (self._slack.settings != message.slack or not same_host):
            await self._slack.close()
            self._slack = None
        if self._slack is None and message.slack is not None:
            try:
                self._slack = SlackDesk(message.slack, self._host, self._send, self._decide)
            except ssl.SSLError:
                wrong.append("the roots of [slack] cannot be read")
        wanted = {one.name: one for one in message.webhooks}
        for name, desk in tuple(self._webhooks.items()):
            if wanted.get(name) != desk.settings or not same_host:
                await self._webhooks.pop(name).close()
        for name, settings in wanted.items():
            if name not in self._webhooks:
                try:
                    self._webhooks[name] = WebhookDesk(settings, self._host, self._send)
                except ssl.SSLError:
                    wrong.append(f"the roots of webhook {name} cannot be read")
        self.put(tuple(self._notices.values()))
        return "; ".join(wrong)

    def put(self, notices: tuple[Notice, ...]) -> None:
        for notice in notices:
            ticket = notice.view.ticket
            known = self._notices.pop(ticket, None)
            if known is not None:
                notice = msgspec.structs.replace(notice, places=known.places)
            if not notice.over and len(self._notices) < messages.MOST:
                self._notices[ticket] = notice
            for desk in (self._slack, *self._webhooks.values()):
                if desk is not None:
                    desk.put(notice)

    async def request(self, message: messages.SlackRequest) -> SlackAnswer:
        if self._slack is None:
            return SlackAnswer(message.number, 404)
        status, body = await self._slack.request(message.timestamp, message.signature, message.body)
        return SlackAnswer(message.number, status, msgspec.json.encode(body) if body else b"")

    async def tried(self, number: int) -> messages.Tried:
        slack = await self._slack.tried() if self._slack is not None else ()
        found = await asyncio.gather(*(one.tried() for one in self._webhooks.values()))
        return messages.Tried(number, (*slack, *found))

    def answered(self, message: Answered) -> None:
        future = self._asked.get(message.number)
        if future is not None and not future.done():
            future.set_result(message.error)

    async def close(self) -> None:
        for desk in (self._slack, *self._webhooks.values()):
            if desk is not None:
                await desk.close()

    async def _decide(self, user: str, ticket: str, approve: bool, reason: str) -> str:
        if len(self._asked) >= AT_ONCE:
            return "too many answers at once: try again"
        self._number += 1
        number = self._number
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        try:
            self._send(messages.Answer(number, user, ticket, approve, reason))
            async with asyncio.timeout(DECIDED):
                return await future
        except TimeoutError:
            return "Weir did not say in time whether it counts: look at `weir approvals`"
        finally:
            del self._asked[number]

    def _send(self, message: Message) -> None:
        if isinstance(message, Told) and (notice := self._notices.get(message.ticket)) is not None:
            self._notices[message.ticket] = msgspec.structs.replace(
                notice, places=told_at(notice.places, message.place))
        self._send_on(message)


def told_at(places: tuple[Place, ...], place: Place) -> tuple[Place, ...]:
    """Pure: of each way the last."""
    return (*(one for one in places if one.way != place.way), place)
