"""Edge: Slack: one message for each hold and channel, as it stands now, and what people press there.

What is wanted is compared with what was sent: however often a hold changes meanwhile, it has one message, and that is
brought up to date.  Addresses that a payload names (`response_url`) are never called.
"""
from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec

from agent.contract.messages import REASON_REQUIRED
from agent.contract.notify import (
    MOST,
    PLACES,
    SLACK,
    SOCKET,
    GivenUp,
    Message,
    Notice,
    Place,
    Result,
    Slack,
    Told,
    Trouble,
)
from enforcer import https
from enforcer.notify import blocks, words
from enforcer.notify.backlog import LONGEST, Backlog
from enforcer.notify.blocks import Pressed
from enforcer.notify.exchange import Undelivered, WebApi
from enforcer.notify.interactions import Malformed, Press, Submission, parse_interaction, payload_of
from enforcer.notify.signatures import SPAN, Seen, wrong_request
from enforcer.notify.socket_mode import Socket

LOG = logging.getLogger("weir.notify")

PATIENCE: Final = 2.0                 # seconds that an answer may take, so that Slack has it within three
AT_ONCE: Final = 32                   # presses
PAUSE: Final = 0.05                   # seconds between two calls; Slack says itself when it wants more
ENDED: Final = 400                    # holds that are over and whose message may still be touched
PRESSES: Final = "slack answers"    # of which trouble is said
MAY_NOT: Final = "You may not answer: Weir's configuration names nobody by your Slack user."

Key = tuple[str, str]                 # ticket, channel
Send = Callable[[Message], None]
Decide = Callable[[str, str, bool, str], Coroutine[Any, Any, str]]    # user, ticket, approve, reason: what is wrong
Json = dict[str, Any]


class SlackDesk:
    """`send` tells the agent, `decide` asks it.  Raises ssl.SSLError: the roots are none."""

    def __init__(self, settings: Slack, host: str, send: Send, decide: Decide) -> None:
        self.settings, self._host, self._send, self._decide = settings, host, send, decide
        self._api = WebApi(settings, https.trusted(settings.ca))
        self._context: ssl.SSLContext = https.trusted(settings.ca)
        self._notices: OrderedDict[str, Notice] = OrderedDict()
        self._posted: dict[Key, str] = {}      # timestamp of its message
        self._shown: dict[Key, bytes] = {}     # what stands in it
        self._plain: set[Key] = set() # of which Slack did not take the texts
        self._backlog: Backlog[Key] = Backlog(random.random, MOST * PLACES)
        self._seen = Seen(2 * SPAN)
        self._news = asyncio.Event()
        self._trouble: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pressed: set[asyncio.Task[None]] = set()
        self._socket = Socket(self._api, self._context, settings.url, self.interactive, self._say)
        self._spawn(self._work())
        if settings.mode == SOCKET:
            self._spawn(self._socket.run())

    async def close(self) -> None:
        for task in (*self._tasks, *self._pressed):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._pressed, return_exceptions=True)
        await self._api.close()

    # what waits

    def put(self, notice: Notice) -> None:
        ticket = notice.view.ticket
        before = self._notices.pop(ticket, None)
        self._notices[ticket] = notice
        if before is None:
            for place in notice.places:
                way, _, channel = place.way.partition(" ")
                if way == SLACK and channel:
                    self._posted[ticket, channel] = place.reference
        for channel in self._channels(notice):
            if (ticket, channel) in self._posted or (ticket, channel) in self._backlog or not notice.over:
                self._want((ticket, channel))
        self._forget()

    def _channels(self, notice: Notice) -> tuple[str, ...]:
        """Where it is told: with each group's channel, and where a message of it stands already."""
        settings, ticket = self.settings, notice.view.ticket
        wanted = [settings.channels.get(group, settings.channel) for group in notice.view.approvers]
        there = [channel for one, channel in self._posted if one == ticket]
        return tuple(dict.fromkeys([*(wanted or [settings.channel]), *there]))[:PLACES]

    def _want(self, key: Key) -> None:
        if self._backlog.add(key, time.monotonic()):
            self._news.set()
        else:
            self._send(GivenUp(key[0], f"{SLACK} {key[1]}", "too much waits to be told"))

    def _forget(self) -> None:
        over = [ticket for ticket, notice in self._notices.items() if notice.over]
        for ticket in over[:max(0, len(over) - ENDED)]:
            if not any((ticket, channel) in self._backlog for channel in self._channels(self._notices[ticket])):
                for channel in self._channels(self._notices.pop(ticket)):
                    self._posted.pop((ticket, channel), None)
                    self._shown.pop((ticket, channel), None)
                    self._plain.discard((ticket, channel))

    async def _work(self) -> None:
        while True:
            key = self._backlog.take(time.monotonic())
            if key is not None:
                await self._deliver(key)
                await asyncio.sleep(PAUSE)
                continue
            self._news.clear()
            later = self._backlog.next()
            try:
                async with asyncio.timeout(None if later is None else max(0.0, later - time.monotonic())):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def _deliver(self, key: Key) -> None:
        ticket, channel = key
        notice, posted = self._notices.get(ticket), self._posted.get(key, "")
        if notice is None or (notice.over and not posted):
            tried = self._backlog.tries(key)
            self._backlog.done(key, time.monotonic())
            if notice is not None and tried:
                self._send(GivenUp(ticket, f"{SLACK} {channel}", "it was over before it could be told"))
            return
        message = (blocks.plainest(notice, self._host) if key in self._plain
                   else blocks.message(notice, self._host, self.settings.show))
        content = msgspec.json.encode(message)
        if self._shown.get(key) == content:
            self._backlog.done(key, time.monotonic())
            return
        try:
            if posted:
                await self._api.call("chat.update", {"channel": channel, "ts": posted, **message})
            else:
                posted = (await self._api.call("chat.postMessage", {"channel": channel, **message})).ts
        except Undelivered as wrong:
            self._failed(key, wrong)
            await asyncio.sleep(min(wrong.wait, LONGEST))      # it is the app that is asked to wait
            return
        self._posted[key], self._shown[key] = posted, content
        self._backlog.done(key, time.monotonic())
        self._say(f"{SLACK} {channel}", "")
        self._send(Told(ticket, Place(f"{SLACK} {channel}", posted[:64])))

    def _failed(self, key: Key, wrong: Undelivered) -> None:
        way = f"{SLACK} {key[1]}"
        self._say(way, str(wrong))
        if wrong.final and wrong.about_text and key not in self._plain:
            self._plain.add(key)      # a crew that makes texts which Slack refuses keeps nothing from being told
            self._backlog.done(key, time.monotonic())
            self._want(key)
            return
        if wrong.final:
            self._backlog.drop(key)
        if wrong.final or not self._backlog.failed(key, time.monotonic(), wrong.wait):
            self._send(GivenUp(key[0], way, str(wrong)[:1000]))

    def _say(self, way: str, text: str) -> None:
        """What is wrong there, once; what is no more."""
        if self._trouble.get(way, "") != text:
            self._trouble[way] = text
            self._send(Trouble(way, text[:1000]))

    # what people press

    async def request(self, timestamp: str, signature: str, body: bytes) -> tuple[int, Json | None]:
        """What came to the request URL.  What is not signed is answered 401, and nothing of it is parsed."""
        now = time.time()
        if self.settings.mode == SOCKET or not self.settings.signing_secret:
            return 404, None
        if wrong := wrong_request(self.settings.signing_secret, timestamp, signature, body, now):
            self._say(PRESSES, f"a request {wrong}")
            return 401, None
        if not self._seen.is_new(signature, now):
            return 401, None
        self._say(PRESSES, "")
        try:
            payload = payload_of(body)
        except Malformed:
            return 400, None
        return 200, await self.interactive(payload)

    async def interactive(self, payload: bytes | msgspec.Raw) -> Json | None:
        """What Slack is answered within three seconds."""
        try:
            found = parse_interaction(payload, self.settings.team)
        except Malformed as wrong:
            self._say(PRESSES, f"an interaction is not taken: {wrong}")
            return None
        if isinstance(found, Press):
            self._press(found)
        elif isinstance(found, Submission):
            return await self._submit(found)
        return None

    def _press(self, press: Press) -> None:
        if len(self._pressed) >= AT_ONCE:
            self._say(PRESSES, "too many presses at once")
            return
        self._keep(self._pressed_one(press))

    async def _pressed_one(self, press: Press) -> None:
        try:
            error = self._why_not(press.user, press.ticket, press.channel, press.message)
            if not error and (not press.approve or self._notices[press.ticket].view.reason_required):
                pressed = Pressed(press.ticket, press.approve, press.channel, press.message)
                await self._api.call("views.open", {
                    "trigger_id": press.trigger, "view": blocks.modal(self._notices[press.ticket].view, pressed)})
            elif not error:
                error = await self._decide(press.user, press.ticket, press.approve, "")
            if error:
                await self._whisper(press.user, press.channel, error)
        except Undelivered as wrong:
            self._say(PRESSES, str(wrong))

    async def _submit(self, found: Submission) -> Json | None:
        """An error stands in the modal; what takes longer than Slack waits is whispered."""
        pressed = found.pressed
        error = self._why_not(found.user, pressed.ticket, pressed.channel, pressed.message)
        if not error and not found.reason:
            error = REASON_REQUIRED
        if error:
            return _errors(error)
        if len(self._pressed) >= AT_ONCE:
            return _errors("too many answers at once: try again")
        deciding = asyncio.get_running_loop().create_task(
            self._decide(found.user, pressed.ticket, pressed.approve, found.reason))
        await asyncio.wait({deciding}, timeout=PATIENCE)
        if not deciding.done():
            self._keep(self._late(found, deciding))
            return None
        return _errors(deciding.result()) if deciding.result() else None

    async def _late(self, found: Submission, deciding: asyncio.Task[str]) -> None:
        if error := await deciding:
            try:
                await self._whisper(found.user, found.pressed.channel, error)
            except Undelivered as wrong:
                self._say(PRESSES, str(wrong))

    def _why_not(self, user: str, ticket: str, channel: str, message: str) -> str:
        """Before the agent is asked, whose word counts.  A button counts in the message that Weir made for its
        ticket."""
        if user not in self.settings.people:
            return MAY_NOT
        notice = self._notices.get(ticket)
        if notice is None or not message or self._posted.get((ticket, channel)) != message:
            return f"Nothing that {ticket} names waits here."
        return f"It is over: {words.outcome(notice)}." if notice.over else ""

    async def _whisper(self, user: str, channel: str, text: str) -> None:
        """To this one person."""
        said = blocks.escape(words.line(text, 900))
        await self._api.call("chat.postEphemeral", {
            "channel": channel, "user": user, "text": said, "parse": "none", "link_names": False, "blocks": [
                {"type": "section", "text": {"type": "plain_text", "text": words.line(text, 900), "emoji": False}}]})

    # small things

    async def tried(self) -> tuple[Result, ...]:
        """A test to each channel."""
        found = [await self._try("auth.test", {}, SLACK)]
        for channel in dict.fromkeys([self.settings.channel, *self.settings.channels.values()]):
            found.append(await self._try("chat.postMessage", {"channel": channel, **blocks.test(self._host)},
                                         f"{SLACK} {channel}"))
        if self.settings.mode == SOCKET:
            found.append(Result(f"{SLACK} socket", self._socket.trouble, "connected"))
        return tuple(found)

    async def _try(self, method: str, arguments: Json, way: str) -> Result:
        try:
            said = await self._api.call(method, arguments)
        except Undelivered as wrong:
            return Result(way, str(wrong)[:1000])
        if method == "auth.test" and said.team_id != self.settings.team:
            return Result(way, f"the bot token is of team {words.line(said.team_id, 40)}, not of {self.settings.team}")
        return Result(way, "", f"Slack answered {method} with ok")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.add(asyncio.get_running_loop().create_task(work))

    def _keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._pressed.add(task)
        task.add_done_callback(self._pressed.discard)
        return task


def _errors(text: str) -> Json:
    return {"response_action": "errors", "errors": {blocks.REASON_BLOCK: words.line(text, 900)}}
