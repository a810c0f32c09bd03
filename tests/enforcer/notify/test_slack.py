"""One message for each hold, and what people press, with a receiver that speaks as Slack does."""
from __future__ import annotations

import asyncio
import json
import time
from typing import Any
from urllib.parse import urlencode

import pytest
from notify_lab import ADA, EVE, Here, by_request, notice, slack_settings, until, view
from receivers import CHANNEL, SECRET, SlackReceiver, press, submit
from slack_sdk.signature import SignatureVerifier
from starlette.responses import JSONResponse, RedirectResponse, Response

from agent.contract.notify import GivenUp, Place, Told, Trouble
from enforcer.notify import slack as slack_module
from enforcer.notify.slack import MAY_NOT, SlackDesk


async def posted(here: Here, slack: SlackReceiver, desk: SlackDesk, **more: Any) -> tuple[dict[str, Any], str]:
    """A hold's message, and its timestamp."""
    desk.put(notice(view(**more)))
    await until(lambda: here.of(Told))
    return slack.of("chat.postMessage")[-1], here.of(Told)[-1].place.reference


async def request(desk: SlackDesk, payload: dict[str, Any], when: int = 0, secret: str = SECRET) -> tuple[int, Any]:
    body = urlencode({"payload": json.dumps(payload)}).encode()
    timestamp = str(when or int(time.time()))
    made = SignatureVerifier(secret).generate_signature(timestamp=timestamp, body=body)
    assert made is not None
    return await desk.request(timestamp, made, body)


async def test_one_message_however_often_it_changes(here: Here, slack: SlackReceiver) -> None:
    desk = here.slack(by_request(slack.url))
    one = view(wanted=2)
    desk.put(notice(one))
    await until(lambda: here.of(Told))
    ts = here.of(Told)[0].place.reference
    desk.put(notice(one))             # nothing new
    desk.put(notice(view(wanted=2, assents=("local:bea",), since=one.since, until=one.until)))
    await until(lambda: slack.of("chat.update"))
    desk.put(notice(one, over="approved", by="local:ada", reason="fine"))
    desk.put(notice(one, over="approved", by="local:ada", reason="fine"))
    await until(lambda: len(slack.of("chat.update")) == 2)
    await asyncio.sleep(0.2)
    assert len(slack.of("chat.postMessage")) == 1
    last = slack.of("chat.update")[-1]
    assert (len(slack.of("chat.update")), last["ts"], last["channel"]) == (2, ts, CHANNEL)
    assert "Approved by local:ada: fine" in json.dumps(last)
    assert not any(block["type"] == "actions" for block in last["blocks"])
    assert here.of(Told)[0] == Told("abcdefgh", Place(f"slack {CHANNEL}", ts))


async def test_each_group_has_its_channel_and_a_restart_posts_nothing_again(here: Here, slack: SlackReceiver) -> None:
    settings = by_request(slack.url, channels={"dba": "C0DBA0000", "sec": "C0SEC0000"})
    desk = here.slack(settings)
    one = view(approvers=("dba", "sec", "others"))
    desk.put(notice(one))
    await until(lambda: len(here.of(Told)) == 3)
    assert {call["channel"] for call in slack.of("chat.postMessage")} == {"C0DBA0000", "C0SEC0000", CHANNEL}
    places = tuple(told.place for told in here.of(Told))
    again = here.slack(settings)      # knows nothing but what the agent tells it
    again.put(notice(one, places=places))
    again.put(notice(one, places=places, over="expired"))
    await until(lambda: len(slack.of("chat.update")) >= 3)
    await asyncio.sleep(0.3)
    assert len(slack.of("chat.postMessage")) == 3
    assert {call["ts"] for call in slack.of("chat.update")} == {place.reference for place in places}


async def test_a_press_by_request_url(here: Here, slack: SlackReceiver) -> None:
    desk = here.slack(by_request(slack.url))
    call, ts = await posted(here, slack, desk)
    assert await request(desk, press(call, ts, ADA)) == (200, None)
    await until(lambda: here.decisions.asked)
    assert here.decisions.asked == [(ADA, "abcdefgh", True, "")]


async def test_old_forged_and_repeated_requests(here: Here, slack: SlackReceiver) -> None:
    desk = here.slack(by_request(slack.url))
    call, ts = await posted(here, slack, desk)
    payload = press(call, ts, ADA)
    assert (await request(desk, payload, int(time.time()) - 301))[0] == 401
    assert (await request(desk, payload, secret="another"))[0] == 401
    assert (await desk.request("", "", b"payload={}"))[0] == 401
    now = int(time.time())
    assert [(await request(desk, payload, now))[0] for _ in range(3)] == [200, 401, 401]
    await until(lambda: here.decisions.asked)
    await asyncio.sleep(0.1)
    assert len(here.decisions.asked) == 1
    socket = here.slack(slack_settings(slack.url))
    assert (await request(socket, payload))[0] == 404     # nobody posts there in this mode


async def test_who_may_not_is_told_alone(here: Here, slack: SlackReceiver) -> None:
    desk = here.slack(by_request(slack.url))
    call, ts = await posted(here, slack, desk)
    await request(desk, press(call, ts, EVE))
    [said] = await until(lambda: slack.of("chat.postEphemeral"))
    assert (said["user"], said["channel"], said["text"]) == (EVE, CHANNEL, MAY_NOT)
    assert here.decisions.asked == []
    here.decisions.answer = "local:ada asked for this & cannot <answer> it"
    await request(desk, press(call, ts, ADA))
    await until(lambda: len(slack.of("chat.postEphemeral")) == 2)
    assert slack.of("chat.postEphemeral")[1]["text"] == "local:ada asked for this &amp; cannot &lt;answer&gt; it"


async def test_a_button_counts_in_its_own_message(here: Here, slack: SlackReceiver) -> None:
    """Another ticket's value, another message, another channel: nothing is decided."""
    desk = here.slack(by_request(slack.url))
    call, ts = await posted(here, slack, desk)
    desk.put(notice(view("hgfedcba")))
    await until(lambda: len(here.of(Told)) == 2)
    right = press(call, ts, ADA)
    wrong = [right | {"actions": [right["actions"][0] | {"value": "hgfedcba"}]},
             right | {"container": right["container"] | {"message_ts": "1.1"}},
             right | {"container": right["container"] | {"channel_id": "C0OTHER00"}},
             right | {"actions": [right["actions"][0] | {"value": "aaaaaaaa"}]}, right | {"container": {}}]
    for one in wrong:
        assert (await request(desk, one))[0] == 200
    await until(lambda: len(slack.of("chat.postEphemeral")) == len(wrong))
    assert here.decisions.asked == []


async def test_a_denial_and_what_needs_a_reason_ask_for_it(here: Here, slack: SlackReceiver) -> None:
    desk = here.slack(by_request(slack.url))
    call, ts = await posted(here, slack, desk, reason_required=True)
    for approve in (True, False):
        pressed = press(call, ts, ADA, approve=approve)
        await request(desk, pressed)
        opened = (await until(lambda: slack.of("views.open")))[-1]
        assert opened["trigger_id"] == pressed["trigger_id"]
        assert here.decisions.asked == []
        status, body = await request(desk, submit(opened["view"], ADA, "  "))
        assert (status, body["response_action"]) == (200, "errors")
        assert await request(desk, submit(opened["view"], EVE, "mine")) == (200, {
            "response_action": "errors", "errors": {"weir-reason": MAY_NOT}})
        here.decisions.answer = "it is too late"
        assert (await request(desk, submit(opened["view"], ADA, "x")))[1]["errors"] == {"weir-reason": "it is too late"}
        here.decisions.answer = ""
        assert await request(desk, submit(opened["view"], ADA, "as agreed")) == (200, None)
        assert here.decisions.asked[-1] == (ADA, "abcdefgh", approve, "as agreed")
        here.decisions.asked.clear()
        slack.calls.clear()


async def test_what_takes_longer_than_slack_waits_is_whispered(
    here: Here, slack: SlackReceiver, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slack_module, "PATIENCE", 0.05)
    desk = here.slack(by_request(slack.url))
    call, ts = await posted(here, slack, desk)
    await request(desk, press(call, ts, ADA, approve=False))
    opened = (await until(lambda: slack.of("views.open")))[0]
    here.decisions.wait, here.decisions.answer = 0.3, "nothing was pending"
    assert await request(desk, submit(opened["view"], ADA, "no")) == (200, None)
    [said] = await until(lambda: slack.of("chat.postEphemeral"))
    assert said["text"] == "nothing was pending"


async def test_what_is_over_is_not_asked_about(here: Here, slack: SlackReceiver) -> None:
    desk = here.slack(by_request(slack.url))
    call, ts = await posted(here, slack, desk)
    desk.put(notice(view(), over="denied", by="local:bea"))
    await until(lambda: slack.of("chat.update"))
    await request(desk, press(call, ts, ADA))
    [said] = await until(lambda: slack.of("chat.postEphemeral"))
    assert said["text"] == "It is over: Denied by local:bea."
    assert here.decisions.asked == []


# what Slack answers


@pytest.mark.parametrize("answer", [
    lambda: JSONResponse({"ok": False, "error": "ratelimited"}), lambda: Response(status_code=500),
    lambda: Response(status_code=429, headers={"Retry-After": "0"}), lambda: RedirectResponse("http://127.0.0.1:1/x"),
    lambda: Response("{" * 100_000), lambda: Response("[]"), lambda: Response('{"ok": "yes"}'),
    lambda: Response(b"\x1f\x8b" + b"x" * 100, headers={"Content-Encoding": "gzip"}),
    lambda: Response("x" * (600 << 10)), lambda: Response(status_code=200),
])
@pytest.mark.usefixtures("quick")
async def test_it_is_tried_again(here: Here, slack: SlackReceiver, answer: Any) -> None:
    slack.answers["chat.postMessage"] = [answer, answer]
    desk = here.slack(by_request(slack.url))
    desk.put(notice())
    await until(lambda: here.of(Told))
    assert len(slack.of("chat.postMessage")) == 1
    assert here.of(Trouble)[0].text
    assert here.of(Trouble)[-1].text == ""


async def test_what_slack_refuses_for_good_is_given_up(here: Here, slack: SlackReceiver) -> None:
    slack.answers["chat.postMessage"] = [lambda: JSONResponse({"ok": False, "error": "channel_not_found\n<!x>"})]
    desk = here.slack(by_request(slack.url))
    desk.put(notice())
    [given] = await until(lambda: here.of(GivenUp))
    assert given == GivenUp("abcdefgh", f"slack {CHANNEL}", "Slack answered chat.postMessage with channel_not_foundx")


async def test_texts_that_slack_refuses_keep_nothing_from_being_told(here: Here, slack: SlackReceiver) -> None:
    slack.answers["chat.postMessage"] = [lambda: JSONResponse({"ok": False, "error": "invalid_blocks"})]
    desk = here.slack(by_request(slack.url))
    call, ts = await posted(here, slack, desk)
    assert "delete from orders" not in json.dumps(call)
    await request(desk, press(call, ts, ADA))
    await until(lambda: here.decisions.asked)
    slack.answers["chat.update"] = [lambda: JSONResponse({"ok": False, "error": "invalid_blocks"})] * 2
    desk.put(notice(view(), over="denied"))
    assert "invalid_blocks" in (await until(lambda: here.of(GivenUp)))[0].reason


@pytest.mark.usefixtures("quick")
async def test_what_was_over_before_it_could_be_told(here: Here, slack: SlackReceiver) -> None:
    slack.answers["chat.postMessage"] = [lambda: Response(status_code=503)] * 100
    desk = here.slack(by_request(slack.url))
    desk.put(notice())
    await until(lambda: here.of(Trouble))
    desk.put(notice(view(), over="expired"))
    await until(lambda: here.of(GivenUp))
    slack.answers.clear()
    await asyncio.sleep(0.2)
    assert slack.of("chat.postMessage") == []


async def test_a_test_says_what_came_back(here: Here, slack: SlackReceiver) -> None:
    desk = here.slack(by_request(slack.url, channels={"dba": "C0DBA0000"}))
    assert [(one.way, one.error) for one in await desk.tried()] == [
        ("slack", ""), (f"slack {CHANNEL}", ""), ("slack C0DBA0000", "")]
    other = here.slack(by_request(slack.url, team="T0OTHER00"))
    assert "not of T0OTHER00" in (await other.tried())[0].error
    slack.answers["chat.postMessage"] = [lambda: JSONResponse({"ok": False, "error": "not_in_channel"})]
    assert "not_in_channel" in (await desk.tried())[1].error
