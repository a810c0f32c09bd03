"""Pure: what a webhook is sent, as docs/webhook.schema.json describes it (tests hold both together)."""
from __future__ import annotations

import datetime
import hashlib
from typing import Any, Final

import msgspec

from agent.contract.notify import CHANGED, OVER, PENDING, STATEMENT, Notice, Webhook
from agent.contract.said import lets_through
from enforcer.notify import words

TEXT: Final = 4100                    # characters of a statement or plan, which are bounded before
TEST: Final = "weir.test"
Json = dict[str, Any]


def render_event(notice: Notice, event: str, webhook: Webhook, host: str, now: int) -> tuple[str, bytes]:
    """The event's id, the same whenever it is made of the same, and its body.  `now`: nanoseconds UTC."""
    data = _data(notice, webhook, host)
    if event != OVER and (link := notice.links.get(webhook.name)):
        data["approve_url"], data["deny_url"] = link
    if event == OVER:
        data["outcome"] = {"state": notice.over, "by": notice.by or None, "reason": notice.reason or None}
    at = notice.view.since if event == PENDING else now
    body = msgspec.json.encode({"type": f"hold.{event}", "timestamp": when(at), "data": data})
    return identify(webhook.name, event, msgspec.json.encode(data)), body


def render_test(webhook: Webhook, host: str, now: int) -> tuple[str, bytes]:
    body = msgspec.json.encode({"type": TEST, "timestamp": when(now), "data": {"host": host}})
    return identify(webhook.name, TEST, body), body


def identify(webhook: str, event: str, data: bytes) -> str:
    digest = hashlib.blake2b(b"\0".join((webhook.encode(), event.encode(), data)), digest_size=16)
    return f"msg_{digest.hexdigest()}"


def shown(notice: Notice, webhook: Webhook) -> bytes:
    """What a change of is worth an event."""
    return msgspec.json.encode(_data(notice, webhook, ""))


def event_of(notice: Notice, known: bool) -> str:
    """`known`: the receiver has been told that it waits, or may have been."""
    return OVER if notice.over else CHANGED if known else PENDING


def when(nanoseconds: int) -> str:
    """RFC 3339, UTC."""
    moment = datetime.datetime.fromtimestamp(nanoseconds // words.NANO, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _data(notice: Notice, webhook: Webhook, host: str) -> Json:
    view = notice.view
    found: Json = {
        "host": host, "ticket": view.ticket, "form": view.form, "since": when(view.since), "until": when(view.until),
        "subject": view.subject, "workload": view.workload or None, "pid": view.pid or None, "exe": view.exe or None,
        "reported": view.reported or None, "target": view.target, "database": view.database or None,
        "account": view.account or None,
        "action": view.action, "rows": view.rows if view.rows >= 0 else None, "rules": list(view.rules),
        "lets_through": lets_through(view),
        "approvers": list(view.approvers), "wanted": view.wanted, "assents": list(view.assents),
        "reason_required": view.reason_required, "reason": view.reason or None}
    if webhook.show == STATEMENT:
        found |= {"statement": view.text[:TEXT], "parameters": list(view.parameters), "plan": view.plan[:TEXT] or None}
    return found
