"""What the page hands on: signed links, and what Slack posts to its request URL."""
from __future__ import annotations

from agent.contract import web
from agent.notify.notifications import NANO, Notifications

FORM = "application/x-www-form-urlencoded"


class AtPage:
    """agent.web.page.Links, and what takes Came for "slack"."""

    def __init__(self, notifications: Notifications) -> None:
        self._notifications = notifications

    async def look(self, token: str) -> web.Link:
        found = await self._notifications.describe_link(token)
        return web.Link(0) if found is None else web.Link(0, found.view, found.approve, found.by, found.until * NANO)

    async def answer(self, token: str, reason: str) -> str:
        return await self._notifications.answer_link(token, reason)

    async def slack(self, question: web.Came) -> web.Replied:
        headers = dict(question.headers)
        if question.method != "POST" or headers.get("content-type", "").partition(";")[0].strip() != FORM:
            return web.Replied(0, 415)
        status, body = await self._notifications.slack_request(
            headers.get("x-slack-request-timestamp", ""), headers.get("x-slack-signature", ""), question.body)
        return web.Replied(0, status, "application/json" if body else "text/plain; charset=utf-8", body)
