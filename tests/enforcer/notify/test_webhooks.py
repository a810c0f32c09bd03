"""Events in order, each once where it arrives, tried again where it does not."""
from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from notify_lab import Here, notice, until, view
from receivers import WebhookReceiver
from starlette.responses import RedirectResponse, Response, StreamingResponse

from agent.contract.notify import GivenUp, Place, Told, Trouble
from enforcer.notify import backlog, exchange, webhooks


def kinds(hook: WebhookReceiver) -> list[str]:
    return [body["type"] for _, body in hook.events]


@pytest.mark.usefixtures("quick")
async def test_a_receiver_that_fails_twice_has_each_event_once(here: Here, hook: WebhookReceiver) -> None:
    hook.statuses = [500, 302]
    desk = here.webhook(hook.url)
    one = view()
    desk.put(notice(one))
    await until(lambda: hook.events)
    assert len(hook.tries) == 3
    assert len(set(hook.tries)) == 1  # the same id, by which the receiver knows it again
    desk.put(notice(one))             # nothing new
    changed = view(assents=("local:bea",), wanted=2, since=one.since, until=one.until)
    desk.put(notice(changed))
    await until(lambda: len(hook.events) == 2)
    desk.put(notice(changed, over="approved", by="local:bea, local:ada"))
    await until(lambda: len(hook.events) == 3)
    assert kinds(hook) == ["hold.pending", "hold.changed", "hold.over"]
    assert hook.events[-1][1]["data"]["outcome"] == {
        "state": "approved", "by": "local:bea, local:ada", "reason": None}
    await until(lambda: len(here.of(Told)) == 3)
    assert here.of(Told) == [Told("abcdefgh", Place("webhook pager", event))
                             for event in ("pending", "changed", "over")]
    assert here.of(Trouble)[-1].text == ""


async def test_a_restart_says_nothing_twice(here: Here, hook: WebhookReceiver) -> None:
    desk, one = here.webhook(hook.url), view()
    desk.put(notice(one))
    await until(lambda: here.of(Told))
    again = here.webhook(hook.url)
    places = (here.of(Told)[0].place,)
    again.put(notice(one, places=places))
    again.put(notice(one, places=places, over="expired"))
    await until(lambda: len(hook.events) == 2)
    third = here.webhook(hook.url)
    third.put(notice(one, places=(Place("webhook pager", "over"),), over="expired"))
    third.put(notice(view("hgfedcba"), over="expired"))   # of which nothing was ever said
    await asyncio.sleep(0.2)
    assert kinds(hook) == ["hold.pending", "hold.over"]


async def test_what_a_process_that_ended_may_have_told_is_told_to_be_over(here: Here, hook: WebhookReceiver) -> None:
    """It was delivered, and the process ended before it said so."""
    here.webhook(hook.url).put(notice(view(), given=True, over="approved", by="local:ada"))
    await until(lambda: hook.events)
    assert kinds(hook) == ["hold.over"]


async def test_one_that_was_not_told_in_time_is_sent_with_the_same_id(here: Here, hook: WebhookReceiver) -> None:
    """The process was killed between the receiver's answer and the agent's note."""
    one = view()
    for _ in range(2):
        here.webhook(hook.url).put(notice(one))
    await until(lambda: len(hook.events) == 2)
    assert len({identifier for identifier, _ in hook.events}) == 1


async def test_it_is_given_up_after_so_many_tries(
    here: Here, hook: WebhookReceiver, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backlog, "FIRST", 0.001)
    monkeypatch.setattr(backlog, "LONGEST", 0.01)
    hook.statuses = [503] * 1000
    here.webhook(hook.url).put(notice())
    [given] = await until(lambda: here.of(GivenUp))
    assert given == GivenUp("abcdefgh", "webhook pager", "pending: it answered 503")
    await asyncio.sleep(0.1)
    assert len(hook.tries) == backlog.TRIES


@pytest.mark.usefixtures("quick")
async def test_what_is_over_is_not_said_to_wait(here: Here, hook: WebhookReceiver) -> None:
    hook.statuses = [503] * 3
    desk, one = here.webhook(hook.url), view()
    desk.put(notice(one))
    await until(lambda: here.of(Trouble))
    desk.put(notice(one, over="denied", by="local:ada"))
    await until(lambda: hook.events)
    assert kinds(hook) == ["hold.over"]
    assert "over before" in here.of(GivenUp)[0].reason or "503" in here.of(GivenUp)[0].reason


async def test_only_the_events_that_are_wanted(here: Here, hook: WebhookReceiver) -> None:
    desk, one = here.webhook(hook.url, events=("over",)), view()
    desk.put(notice(one))
    desk.put(notice(one, over="expired"))
    await until(lambda: hook.events)
    assert kinds(hook) == ["hold.over"]


async def endless() -> Any:
    while True:
        yield b"x" * 65536
        await asyncio.sleep(0)


async def slow() -> Any:
    for _ in range(600):
        yield b"x"
        await asyncio.sleep(0.1)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("answer", [
    RedirectResponse("http://127.0.0.1:1/elsewhere", 307), RedirectResponse("https://evil.example/", 301),
    Response(status_code=410), Response(b"x" * 1000, 500, headers={"Content-Encoding": "gzip"}),
    Response(status_code=429, headers={"Retry-After": "0"}), Response(status_code=429, headers={"Retry-After": "-1e9"}),
], ids=["307", "301", "410", "gzip", "429", "odd 429"])
async def test_a_hostile_receiver_is_tried_again(here: Here, hook: WebhookReceiver, answer: Response) -> None:
    hook.statuses = [answer]
    here.webhook(hook.url).put(notice())
    await until(lambda: hook.events)
    assert len(hook.tries) == 2


@pytest.mark.parametrize("stream", [endless, slow])
async def test_nothing_of_a_long_answer_is_read(
    here: Here, hook: WebhookReceiver, stream: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange, "SECONDS", 2.0)
    hook.statuses = [StreamingResponse(stream())]
    began = time.monotonic()
    here.webhook(hook.url).put(notice())
    await until(lambda: here.of(Told))            # the status counts; what follows is not waited for
    assert time.monotonic() - began < 5


async def test_one_that_does_not_answer_holds_nothing_up(
    here: Here, hook: WebhookReceiver, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange, "SECONDS", 0.2)
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(mute, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    here.webhook(f"http://127.0.0.1:{port}/", name="silent").put(notice())
    here.webhook(hook.url).put(notice())
    await until(lambda: hook.events)
    await until(lambda: any("did not answer" in one.text for one in here.of(Trouble)))
    for desk in here.desks:
        await desk.close()
    here.desks.clear()
    silent.close()
    await asyncio.sleep(0.05)


async def test_the_queue_is_bounded(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "BYTES", 5000)
    desk = here.webhook("http://127.0.0.1:1/")
    for number in range(20):
        desk.put(notice(view(f"abcdefg{chr(ord('a') + number)}")))
    assert any("too much" in one.reason for one in here.of(GivenUp))
    assert desk._bytes <= 5000
