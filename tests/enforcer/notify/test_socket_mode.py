"""The connection that Weir opens: acknowledged envelopes, reconnects, and a Slack that is broken."""
from __future__ import annotations

import asyncio
import json

import pytest
from notify_lab import ADA, Here, notice, slack_settings, until, view
from receivers import SlackReceiver, press, submit

from agent.contract.notify import Told, Trouble
from enforcer.notify import blocks, socket_mode
from enforcer.notify.blocks import Pressed
from enforcer.notify.socket_mode import FLOOD, wrong_place


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_mode, "FIRST", 0.05)


async def send(slack: SlackReceiver, text: str | bytes) -> None:
    await asyncio.to_thread(slack.send, text)


async def test_a_press_is_acknowledged_and_acted_upon_once(here: Here, slack: SlackReceiver) -> None:
    desk = here.slack(slack_settings(slack.url))
    desk.put(notice())
    await until(lambda: here.of(Told) and slack.sockets)
    call, ts = slack.of("chat.postMessage")[0], here.of(Told)[0].place.reference
    envelope = await asyncio.to_thread(slack.envelope, press(call, ts, ADA))
    await until(lambda: envelope in slack.acknowledged)
    await until(lambda: here.decisions.asked)
    slack.acknowledged.clear()
    await asyncio.to_thread(slack.envelope, press(call, ts, ADA), envelope)
    await until(lambda: envelope in slack.acknowledged)   # or Slack would send it for ever
    await asyncio.sleep(0.1)
    assert len(here.decisions.asked) == 1


async def test_a_modals_answer_goes_with_the_acknowledgement(here: Here, slack: SlackReceiver) -> None:
    desk = here.slack(slack_settings(slack.url))
    desk.put(notice())
    await until(lambda: here.of(Told) and slack.sockets)
    pressed = Pressed("abcdefgh", False, slack.of("chat.postMessage")[0]["channel"], here.of(Told)[0].place.reference)
    here.decisions.answer = "too late"
    envelope = await asyncio.to_thread(slack.envelope, submit(blocks.modal(view(), pressed), ADA, "no"))
    assert await until(lambda: slack.acknowledged.get(envelope)) == {
        "response_action": "errors", "errors": {"weir-reason": "too late"}}


async def test_it_connects_again(here: Here, slack: SlackReceiver) -> None:
    here.slack(slack_settings(slack.url))
    await until(lambda: slack.sockets)
    await send(slack, json.dumps({"type": "disconnect", "reason": "refresh_requested", "debug_info": {}}))
    await until(lambda: slack.connections == 2 and slack.sockets)
    assert slack.loop is not None
    asyncio.run_coroutine_threadsafe(slack.sockets[-1].close(), slack.loop).result(5)
    await until(lambda: slack.connections == 3)


@pytest.mark.parametrize("text", [
    "{", "[]", '{"type": 7}', "x" * (300 << 10), b"\x00\xff" * 10, '{"a":' * 60_000,
    '{"type": "interactive", "envelope_id": "' + "x" * 500 + '"}'], ids=lambda text: str(text[:12]))
async def test_what_is_no_envelope_ends_the_connection_alone(
    here: Here, slack: SlackReceiver, text: str | bytes,
) -> None:
    here.slack(slack_settings(slack.url))
    await until(lambda: slack.sockets)
    await send(slack, text)
    await until(lambda: slack.connections >= 2 and slack.sockets)
    await until(lambda: here.of(Trouble) and here.of(Trouble)[-1].text == "")


async def test_envelopes_of_other_kinds_are_acknowledged(here: Here, slack: SlackReceiver) -> None:
    here.slack(slack_settings(slack.url))
    await until(lambda: slack.sockets)
    await send(slack, json.dumps({"type": "events_api", "envelope_id": "e1", "payload": {"x": [1, {"y": None}]}}))
    await send(slack, json.dumps({"type": "interactive", "envelope_id": "e2", "payload": "nonsense"}))
    await until(lambda: {"e1", "e2"} <= set(slack.acknowledged))
    assert here.decisions.asked == []


async def test_a_flood_ends_it(here: Here, slack: SlackReceiver) -> None:
    here.slack(slack_settings(slack.url))
    await until(lambda: slack.sockets)
    for number in range(FLOOD + 5):
        try:
            await send(slack, json.dumps({"type": "events_api", "envelope_id": f"e{number}", "payload": {}}))
        except Exception:
            break
    await until(lambda: any("envelopes" in one.text for one in here.of(Trouble)))
    await until(lambda: slack.connections >= 2)


async def test_it_goes_nowhere_else(here: Here, slack: SlackReceiver) -> None:
    slack.link = "wss://evil.example/link"
    here.slack(slack_settings(slack.url))
    await until(lambda: any("another host" in one.text or "not wss" in one.text for one in here.of(Trouble)))
    assert slack.connections == 0


@pytest.mark.parametrize(("url", "api", "right"), [
    ("wss://wss-primary.slack.com/link/?ticket=x", "https://slack.com/api", True),
    ("wss://slack.com/link", "https://slack.com/api", True),
    ("ws://wss-primary.slack.com/link", "https://slack.com/api", False),
    ("wss://evilslack.com/link", "https://slack.com/api", False),
    ("wss://slack.com.evil.example/link", "https://slack.com/api", False),
    ("wss://slack.com@evil.example/link", "https://slack.com/api", False),
    ("wss://x@wss.slack.com/link", "https://slack.com/api", False),
    ("wss://wss.slack.com:x/link", "https://slack.com/api", False), ("wss://[", "https://slack.com/api", False),
    ("", "https://slack.com/api", False), ("https://slack.com/link", "https://slack.com/api", False),
    ("ws://127.0.0.1:1/link", "http://127.0.0.1:2/api", True), ("ws://10.0.0.1/link", "http://127.0.0.1:2/api", False),
])
def test_where_a_connection_may_go(url: str, api: str, right: bool) -> None:
    assert (wrong_place(url, api) == "") == right
