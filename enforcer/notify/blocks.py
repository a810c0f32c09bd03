"""Pure: a hold as a Slack message or modal, in Block Kit (https://docs.slack.dev/reference/block-kit).

Whatever a crew may choose stands in plain_text or as text of a rich_text element, where Slack makes no mention, link or
formatting of anything.  `text`, which notifications show, is escaped (https://docs.slack.dev/messaging/formatting-message-text).
"""
from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from agent.contract.messages import HoldView
from agent.contract.notify import SUMMARY, Notice
from enforcer.notify import words

APPROVE, DENY, MODAL = "weir-approve", "weir-deny", "weir-answer"
REASON_BLOCK, REASON_INPUT = "weir-reason", "reason"
HEADER: Final = 150                   # characters of a header,
TITLE: Final = 24                     # of a modal's title, as Slack counts
REASON: Final = 1000                  # of a reason
Json = dict[str, Any]


class Pressed(msgspec.Struct, frozen=True):
    """What a modal carries along: which hold, and by which message it was asked."""

    ticket: str
    approve: bool
    channel: str
    message: str                      # its timestamp


def message(notice: Notice, host: str, show: str) -> Json:
    """`text`, `blocks` and what keeps Slack from making more of them: for chat.postMessage and chat.update."""
    view = notice.view
    head = f"{words.what(view)} {'waits for approval' if not notice.over else 'is over'}"
    said = words.line(f"{head}: {view.subject} on {view.target} ({view.ticket})")
    return {"text": escape(said), "blocks": _blocks(notice, head, host, show), "mrkdwn": False, "parse": "none",
            "link_names": False, "unfurl_links": False, "unfurl_media": False}


def plainest(notice: Notice, host: str) -> Json:
    """With nothing of a crew's in it: where Slack refuses what a crew's texts make of the message."""
    view = notice.view
    said = f"{words.what(view)} {'waits for approval' if not notice.over else 'is over'}"
    buttons = [] if notice.over else [_until(view), _buttons(view)]
    return message(notice, host, SUMMARY) | {"text": f"{said} ({view.ticket})", "blocks": [
        _plain("header", "text", said),
        _plain("section", "text", f"Slack did not take what it is about: weir approvals has ticket {view.ticket}."),
        *buttons]}


def test(host: str) -> Json:
    return {"text": f"Weir on {escape(words.line(host, 100))}: a test, nothing waits", "mrkdwn": False, "parse": "none",
            "blocks": [_plain("section", "text", f"Weir on {words.line(host, 100)}: a test, nothing waits.")]}


def modal(view: HoldView, pressed: Pressed) -> Json:
    """Asks for the reason."""
    verb = "Approve" if pressed.approve else "Deny"
    label = []
    for name, value in (("Who", view.subject), ("Wants", view.action), ("Against", view.target)):
        label += [_text(name, bold=True), _text(f": {words.line(value)}\n")]
    return {
        "type": "modal", "callback_id": MODAL, "private_metadata": render_pressed(pressed),
        "title": _plain_text(f"{verb} {view.ticket}"), "submit": _plain_text(verb), "close": _plain_text("Back"),
        "blocks": [
            {"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": label}]},
            {"type": "input", "block_id": REASON_BLOCK, "label": _plain_text("Reason"),
             "element": {"type": "plain_text_input", "action_id": REASON_INPUT, "multiline": False, "min_length": 1,
                         "max_length": REASON}}],
    }


def render_pressed(pressed: Pressed) -> str:
    return msgspec.json.encode(pressed).decode()


def parse_pressed(text: str) -> Pressed:
    """Raises msgspec.MsgspecError."""
    return msgspec.json.decode(text.encode(), type=Pressed)


def escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def size(rendered: Json) -> int:
    return len(json.dumps(rendered))


def _blocks(notice: Notice, head: str, host: str, show: str) -> list[Json]:
    view = notice.view
    parts: list[Json] = []
    for label, value in words.facts(view):
        parts += [_text(label, bold=True), _text(f": {value}\n")]
    found: list[Json] = [_plain("header", "text", words.line(head, HEADER))]
    if parts:
        found.append({"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": parts}]})
    for label, text in words.texts(view, show):
        found.append({"type": "rich_text", "elements": [
            {"type": "rich_text_section", "elements": [_text(label, bold=True)]},
            {"type": "rich_text_preformatted", "elements": [_text(text)]}]})
    if notice.over:
        found.append({"type": "rich_text", "elements": [
            {"type": "rich_text_section", "elements": [_text(words.outcome(notice), bold=True)]}]})
    else:
        found += [_until(view), _buttons(view)]
    more = f" · {words.called(view).lower()}: weir approvals" if show == SUMMARY and view.text else ""
    return [*found, {"type": "context", "elements": [_plain_text(
        f"Weir on {words.line(host, 100)} · ticket {view.ticket}{more}")]}]


def _until(view: HoldView) -> Json:
    seconds = view.until // words.NANO
    return {"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": [
        _text("Until", bold=True), _text(": "),
        {"type": "date", "timestamp": seconds, "format": "{date_short_pretty} {time_secs}",
         "fallback": f"{seconds} seconds UTC"}]}]}


def _buttons(view: HoldView) -> Json:
    return {"type": "actions", "block_id": "weir", "elements": [
        {"type": "button", "action_id": APPROVE, "text": _plain_text("Approve"), "style": "primary",
         "value": view.ticket},
        {"type": "button", "action_id": DENY, "text": _plain_text("Deny"), "style": "danger", "value": view.ticket}]}


def _plain(kind: str, field: str, text: str) -> Json:
    return {"type": kind, field: _plain_text(text)}


def _plain_text(text: str) -> Json:
    return {"type": "plain_text", "text": text, "emoji": False}


def _text(text: str, bold: bool = False) -> Json:
    return {"type": "text", "text": text, **({"style": {"bold": True}} if bold else {})}
