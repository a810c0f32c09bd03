"""Desks that speak with receivers on loopback."""
from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from receivers import (
    APP,
    BOT,
    CHANNEL,
    SECRET,
    TEAM,
    WEBHOOK_SECRET,
    SlackReceiver,
    WebhookReceiver,
    slack_receiver,
    webhook_receiver,
)

from agent.contract.messages import HoldView
from agent.contract.notify import EVENTS, Message, Notice, Slack, Webhook
from agent.notify.files import parse_secret
from enforcer.notify import backlog
from enforcer.notify.slack import SlackDesk
from enforcer.notify.webhooks import WebhookDesk

NANO = 1_000_000_000
ADA, EVE = "U0ADA0000", "U0EVE0000"


def view(ticket: str = "abcdefgh", **more: Any) -> HoldView:
    now = time.time_ns()
    return HoldView(**{
        "ticket": ticket, "since": now, "until": now + 900 * NANO, "subject": "local:crew", "workload": "crew",
        "pid": 4711, "exe": "/usr/bin/python3", "target": "orders", "database": "shop",
        "action": "sql:delete public.orders", "text": "delete from orders where id = $1", "parameters": ("7",),
        "rules": ("deletes-need-a-dba",), "approvers": ("dba",), "reason_required": False, "session": "s1",
        "plan": "Delete on orders", "rows": 1, **more})


def slack_settings(url: str, **more: Any) -> Slack:
    return Slack(**{
        "bot_token": BOT, "app_token": APP, "signing_secret": "", "mode": "socket", "team": TEAM, "channel": CHANNEL,
        "channels": {}, "people": (ADA,), "show": "statement", "url": url, "ca": "", **more})


def by_request(url: str, **more: Any) -> Slack:
    return slack_settings(url, mode="request-url", signing_secret=SECRET, app_token="", **more)


class Decisions:
    """The agent's side: `answer` is what it says."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bool, str]] = []
        self.answer = ""
        self.wait = 0.0

    async def __call__(self, user: str, ticket: str, approve: bool, reason: str) -> str:
        self.asked.append((user, ticket, approve, reason))
        await asyncio.sleep(self.wait)
        return self.answer


class Here:
    """Desks of a test, and what they said to the agent."""

    def __init__(self) -> None:
        self.told: list[Message] = []
        self.decisions = Decisions()
        self.desks: list[SlackDesk | WebhookDesk] = []

    def slack(self, settings: Slack) -> SlackDesk:
        desk = SlackDesk(settings, "crewhost", self.told.append, self.decisions)
        self.desks.append(desk)
        return desk

    def webhook(self, url: str, **more: Any) -> WebhookDesk:
        settings = Webhook(**{"name": "pager", "url": url, "secret": parse_secret(WEBHOOK_SECRET), "ca": "",
                              "events": EVENTS, "show": "statement", **more})
        desk = WebhookDesk(settings, "crewhost", self.told.append)
        self.desks.append(desk)
        return desk

    def of(self, kind: type[Message]) -> list[Any]:
        return [one for one in self.told if isinstance(one, kind)]


@pytest.fixture
async def here() -> AsyncIterator[Here]:
    made = Here()
    yield made
    for desk in made.desks:
        await desk.close()


@pytest.fixture
def slack() -> Iterator[SlackReceiver]:
    with slack_receiver() as receiver:
        yield receiver
        assert receiver.wrong == []


@pytest.fixture
def hook() -> Iterator[WebhookReceiver]:
    with webhook_receiver() as receiver:
        yield receiver
        assert receiver.wrong == []


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow soon."""
    monkeypatch.setattr(backlog, "FIRST", 0.02)


async def until(wanted: Callable[[], Any], seconds: float = 10.0) -> Any:
    """What another process or thread does in its own time."""
    async with asyncio.timeout(seconds):
        while not (found := wanted()):
            await asyncio.sleep(0.01)
    return found


def notice(one: HoldView | None = None, **more: Any) -> Notice:
    return Notice(one or view(), **more)


Work = Callable[[], Awaitable[None]]
