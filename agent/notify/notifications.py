"""What waits, told elsewhere: the table of what was told where, and answers that come back.

The enforcer says that something has changed; what waits now is compared with the table, and what is new, other or over
goes to the notify process.  A restart of either tells it again, with where it was told; so it is told there once.  Who
answered is what the agent itself has recorded.
"""
from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from agent.channel import ChannelError
from agent.config import Config
from agent.contract import messages
from agent.contract import notify as told
from agent.contract.control import Decide, ServiceView
from agent.contract.messages import Changed, HoldView
from agent.contract.notify import LINK, OVER, PENDING, SLACK, STATEMENT, Notice, Trouble
from agent.control import Lately
from agent.credential.secrets import SecretError
from agent.notify.approvers import Unknown, find_groups
from agent.notify.files import render_slack, render_webhook
from agent.notify.links import Grant, mint, parse_token
from agent.notify.process import News, NotifyChannel, NotifyProcess
from agent.notify.told import KEPT, NAME, bare, read_told, write_told

if TYPE_CHECKING:
    from agent.supervisor import Agent

LOG = logging.getLogger("weir.notify")

BESIDE: Final = "notify"              # its cgroup, and its name among who watches the enforcer
EVERY: Final = 0.3                    # seconds between two looks at what waits
REST: Final = 4                       # times as long as the look took: where much waits it is looked at less often,
RESTED: Final = 5.0                   # seconds at most: who was stopped during a look has not been busy
SAVE: Final = 1.0                     # seconds between two times that the table is written
DECIDED: Final = 15.0                 # seconds that an answer may take
TRYING: Final = 60.0                  # seconds that a test of all places may take
AT_ONCE: Final = 64                   # answers
PATH: Final = "/answer/"              # of the page
SHOWN: Final = 1000                   # characters
ANSWERED: Final = 2000                # of which it is remembered who gave them
LONGEST: Final = 1 << 16              # characters of a hold; an enforcer that is not broken has fewer
WAYS: Final = 64                      # places of which trouble is known
NANO: Final = 1_000_000_000
ELSEWHERE: Final = "elsewhere"        # places that are not configured, together
MAY_NOT: Final = "you may not answer: the configuration names nobody by this Slack user"
MOVED: Final = "another configuration has come meanwhile, by which this is nobody's answer"
GONE: Final = "it is over, or this link was not made for it"


class Described(msgspec.Struct, frozen=True):
    """What a link is for."""

    view: HoldView
    approve: bool
    by: str
    until: int                        # seconds UTC


class Notifications:
    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.process: NotifyProcess | None = None
        self._file = agent.config.state / NAME
        self._table: OrderedDict[str, Notice] = OrderedDict((one.view.ticket, one) for one in read_told(self._file))
        self._unseen = {ticket for ticket, one in self._table.items() if not one.over}    # since this agent's start
        self._wanted: dict[str, set[str]] = {}         # of what is over: ways that have not said so yet
        self._answers: OrderedDict[str, tuple[str, str, str]] = OrderedDict()  # ticket: (answer, by, reason)
        self._trouble: dict[str, str] = {}
        self._news, self._saving = asyncio.Event(), asyncio.Event()
        self._lately = Lately()
        self._answering = 0
        self._tasks: set[asyncio.Task[None]] = set()

    # the process

    def configured(self) -> None:
        """At the start, and after each reload."""
        agent = self._agent
        if self.process is None and agent.config.notifies:
            self.process = NotifyProcess(
                agent.config.runtime.notify_user, agent.own / BESIDE, agent.tell, agent.news, self._render, self._came,
                self._ready)
            self.process.start()
            self._spawn(self._look_again())
            self._spawn(self._save_again())
            agent.watching.watch(BESIDE, self.changed)
        elif self.process is not None:
            self._spawn(self._reconfigure(self.process))

    async def _reconfigure(self, process: NotifyProcess) -> None:
        if not self._agent.config.notifies:
            self._agent.watching.leave(BESIDE)
            await self.stop()
            return
        try:
            if error := await process.configure():
                LOG.error("what is told elsewhere: %s", error)
            self._trouble.clear()
            await self._ready()
        except ChannelError:
            pass                      # the next one is configured with what is right then

    async def stop(self) -> None:
        process, self.process = self.process, None
        current = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not current]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if process is not None:
            await process.stop()
            self._save()

    def _render(self, number: int) -> told.Configure:
        config, webhooks, slack = self._agent.config, [], None
        for one in config.webhooks:
            try:
                webhooks.append(render_webhook(one, config.notify_roots.get(one.name, "")))
            except SecretError as wrong:
                self._refused(f"webhook {one.name}", wrong)
        if config.slack.bot_token_file is not None:
            try:
                slack = render_slack(config.slack, config.notify_roots.get("", ""))
            except SecretError as wrong:
                self._refused(SLACK, wrong)
        return told.Configure(number, socket.gethostname()[:64], slack, tuple(webhooks))

    def _refused(self, way: str, wrong: SecretError) -> None:
        LOG.error("%s cannot be used: %s", way, wrong)
        self._trouble[way] = str(wrong)
        self._agent.tell("notify.refused", {"way": way, "reason": str(wrong)})

    async def _ready(self) -> None:
        """It knows nothing yet, or other places."""
        await self._put(one for ticket, one in self._table.items() if ticket not in self._unseen)
        self.changed()

    # what waits

    def changed(self, message: Changed | None = None) -> None:
        if message is None or message.holds:
            self._news.set()

    def answered(self, ticket: str, answer: str, by: str, reason: str) -> None:
        """It counted."""
        self._answers[ticket] = (answer, by, reason)
        self._answers.move_to_end(ticket)
        while len(self._answers) > ANSWERED:
            self._answers.popitem(last=False)

    async def _look_again(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            began = time.monotonic()
            with self._agent.parts.part("what is told elsewhere"):
                await self.look()
            await asyncio.sleep(min(max(EVERY, REST * (time.monotonic() - began)), RESTED))

    async def look(self) -> None:
        before = dict(self._answers)
        holds = await self._holds()
        if holds is None:
            return
        waiting = {one.ticket: one for one in holds if one.state == "pending"}
        for ticket in waiting:
            if self._answers.get(ticket) == before.get(ticket):
                self._answers.pop(ticket, None)        # it was not enough
        standing = {one.ticket: one for one in holds if one.state != "pending"}
        news = [self._over(notice, standing.get(ticket)) for ticket, notice in self._table.items()
                if not notice.over and (ticket not in waiting or waiting[ticket].since != notice.view.since)]
        news += [made for one in waiting.values() if (made := self._waits(one)) is not None]
        for notice in news:
            self._keep(notice)
        await self._put(tuple(news))
        self._forget()

    async def _holds(self, ticket: str = "") -> tuple[HoldView, ...] | None:
        """All, or the one alone, which is whole then; None: nobody can say."""
        if not self._agent.enforcer.up:
            return None               # it has not been given what was kept yet
        try:
            found = await self._agent.enforcer.channel.ask(
                lambda number: messages.ListHolds(number, ticket), messages.HoldsAnswer)
        except ChannelError:
            return None               # whoever runs next says that something has changed
        return tuple(one for one in found.holds if length(one) <= LONGEST)[:told.MOST]

    async def _hold(self, ticket: str) -> HoldView | None:
        return next((one for one in await self._holds(ticket) or () if one.ticket == ticket), None)

    def _waits(self, view: HoldView) -> Notice | None:
        """None: that is known."""
        known = self._table.get(view.ticket)
        links = render_links(self._agent.config, self._agent.keys.link, view)
        if known is None or known.over or known.view.since != view.since:
            full = sum(not one.over for one in self._table.values()) >= told.MOST
            return None if full else Notice(view, (), links)
        made = msgspec.structs.replace(known, view=view, links=links)
        if made == known and view.ticket not in self._unseen:
            return None
        self._unseen.discard(view.ticket)
        return made

    def _over(self, notice: Notice, standing: HoldView | None) -> Notice:
        """How it ended, by the answer that the agent has recorded, and by the clock."""
        view = notice.view
        answer, by, reason = self._answers.pop(view.ticket, ("", "", ""))
        if standing is not None and standing.since == view.since:
            state, view = "approved", standing
            by = ", ".join(dict.fromkeys((*standing.assents, *([by] if by else []))))
        elif answer in ("approve", "break-glass"):
            state, by = "approved", ", ".join(dict.fromkeys((*view.assents, by)))
        elif answer:
            state = "denied" if answer == "deny" else "cancelled"
        else:
            state = "expired" if time.time_ns() >= view.until - NANO else "cancelled"
        return msgspec.structs.replace(
            notice, view=bare(view), links={}, over=state, by=by[:300], reason=reason)

    def _keep(self, notice: Notice) -> None:
        ticket = notice.view.ticket
        self._table.pop(ticket, None)
        self._table[ticket] = notice
        if notice.over:
            ways = {one.way for one in notice.places}
            if notice.given:
                ways |= {f"webhook {one.name}" for one in self._agent.config.webhooks}
            self._wanted[ticket] = {one for one in ways if self._says_over(one)}
            self._saving.set()

    def _says_over(self, place: str) -> bool:
        way, _, name = place.partition(" ")
        webhook = self._agent.config.webhook(name)
        return way == SLACK or (webhook is not None and OVER in webhook.events)

    def _forget(self) -> None:
        """What is over, and has been said to be wherever it was told; and the oldest that was not."""
        over = [ticket for ticket, notice in self._table.items() if notice.over]
        done = {ticket for ticket in over if not self._wanted.get(ticket)}
        for ticket in {*done, *over[:max(0, len(over) - (KEPT - told.MOST))]}:
            del self._table[ticket]
            self._wanted.pop(ticket, None)

    async def _put(self, notices: Iterable[Notice]) -> None:
        if self.process is None:
            return
        try:
            for batch in batches(tuple(notices)):
                await self._put_batch(self.process.channel, batch)
        except ChannelError:
            pass                      # the next one is told everything

    async def _put_batch(self, channel: NotifyChannel, batch: tuple[Notice, ...]) -> None:
        await channel.ask(lambda number: told.Put(number, batch), told.Done)
        for ticket in (one.view.ticket for one in batch):
            if (known := self._table.get(ticket)) is not None and not known.given:
                self._table[ticket] = msgspec.structs.replace(known, given=True)

    # what it says

    def _came(self, message: News) -> None:
        """Raises ValueError: it may not say that."""
        if isinstance(message, told.Answer):
            self._spawn(self._answer(message))
        elif isinstance(message, told.Told):
            self._told(message)
        elif isinstance(message, told.GivenUp):
            self._wanted.get(message.ticket, set()).discard(message.way)
            if times := self._lately.again(message.way if self._is_way(message.way) else ELSEWHERE):
                self._agent.tell("notify.failed", {
                    "ticket": message.ticket, "way": shown(message.way), "reason": shown(message.reason),
                    **({"times": times} if times > 1 else {})})
        elif len(self._trouble) < WAYS or message.way in self._trouble:
            self._trouble.pop(message.way, None)
            if message.text:
                self._trouble[message.way] = message.text
                if self._lately.again((Trouble, message.way)):
                    LOG.warning("%s: %s", shown(message.way), shown(message.text))

    def _is_way(self, way: str) -> bool:
        """Whether it is one of those that are configured: as many are told of as often as something happens there."""
        kind, _, name = way.partition(" ")
        slack = self._agent.config.slack
        return (name in (slack.channel, *slack.channels.values()) if kind == SLACK
                else self._agent.config.webhook(name) is not None)

    def _told(self, message: told.Told) -> None:
        notice = self._table.get(message.ticket)
        if notice is None:
            return
        if notice.over:
            self._wanted.get(message.ticket, set()).discard(message.place.way)
        places = (*(one for one in notice.places if one.way != message.place.way), message.place)
        if len(places) > told.PLACES + told.WEBHOOKS:
            raise ValueError("more places than there are")
        self._table[message.ticket] = msgspec.structs.replace(notice, places=places)
        self._forget()
        self._saving.set()

    # answers

    async def _answer(self, message: told.Answer) -> None:
        if self._answering >= AT_ONCE:
            error = "too many answers at once: try again"
        else:
            self._answering += 1
            try:
                subject = self._person(message.user)
                error = MAY_NOT if not subject else await self._decide(
                    subject, message.ticket, message.approve, shown(message.reason), SLACK, message.user,
                    lambda: self._person(message.user) == subject)
            finally:
                self._answering -= 1
        try:
            if self.process is not None:
                self.process.channel.send(told.Answered(message.number, error))
        except (ChannelError, ValueError) as reason:
            LOG.error("an answer is not told to the notify process: %s", reason)

    def _person(self, user: str) -> str:
        """The subject of Slack's user, "" where it is nobody's."""
        return str(self._agent.config.slack.people.get(user, ""))

    async def _decide(
        self, by: str, ticket: str, approve: bool, reason: str, way: str, user: str, still: Callable[[], bool],
        since: int = 0,
    ) -> str:
        """What is wrong, or "".  Recorded whatever comes of it, as the answers of the terminal are; `user`: Slack's
        name of who it was, or the webhook whose link it was; `still`: whether that one still is `by`."""
        agent, way = self._agent, f"{way} {user}"
        while True:                   # until no reload has come between what says who may, and the answer
            await agent.turn.wait()
            config = agent.config
            groups = await self._groups(by, ticket, since)
            if agent.turn.is_set() and agent.config is config:
                break
        groups = groups if still() else MOVED
        if isinstance(groups, str):
            agent.questions.tell_answer(by, {
                "ticket": ticket, "answer": "approve" if approve else "deny", "by": by, "reason": reason,
                "error": groups, "way": way})
            return groups
        return await agent.questions.answer(Decide(ticket, approve, reason), by, groups, way)

    async def _groups(self, by: str, ticket: str, since: int) -> tuple[str, ...] | str:
        """Those by which it answers, or why it does not."""
        agent = self._agent
        if locked := agent.locks.why(agent.identities.names(by)):
            return locked
        try:
            groups = await asyncio.to_thread(find_groups, by, agent.config.groups)
        except Unknown as wrong:
            return str(wrong)
        view = await self._hold(ticket)
        if view is None or view.state != "pending" or (since and view.since != since):
            return f"no hold {ticket} is pending"
        return groups

    # links and requests, for the page

    async def describe_link(self, token: str) -> Described | None:
        """None: there is nothing that it is for.  Changes nothing: whatever stands between looks at links."""
        grant = self._grant(token)
        if grant is None:
            return None
        view = await self._hold(grant.ticket)
        if view is None or view.since != grant.since or view.state != "pending":
            return None
        webhook = self._agent.config.webhook(grant.webhook)
        shown = view if webhook is not None and webhook.show == STATEMENT else bare(view)
        return Described(shown, grant.approve, grant.by, grant.until)

    async def answer_link(self, token: str, reason: str = "") -> str:
        """What the link is for; what is wrong, or ""."""
        grant = self._grant(token)
        if grant is None:
            return GONE
        return await self._decide(
            grant.by, grant.ticket, grant.approve, reason, LINK, grant.webhook, lambda: self._grant(token) == grant,
            since=grant.since)

    def _grant(self, token: str) -> Grant | None:
        """Whose webhook and approver are what they were when it was made."""
        grant = parse_token(self._agent.keys.link, token, int(time.time()))
        webhook = self._agent.config.webhook(grant.webhook) if grant else None
        return grant if grant and webhook is not None and webhook.approver == grant.by else None

    async def slack_request(self, timestamp: str, signature: str, body: bytes) -> tuple[int, bytes]:
        """Status and JSON of the answer to what was posted to /slack/actions."""
        if self.process is None or len(body) > told.REQUEST or len(timestamp) + len(signature) > 256:
            return 404 if self.process is None else 413, b""
        try:
            found = await self.process.channel.ask(
                lambda number: told.SlackRequest(number, timestamp, signature, body), told.SlackAnswer, DECIDED)
        except ChannelError:
            return 503, b""
        return found.status, found.body

    # for the status, and a test

    async def test(self) -> tuple[told.Result, ...]:
        """Raises ChannelError."""
        if self.process is None:
            raise ChannelError("neither [slack] nor a [[webhook]] is configured")
        return (await self.process.channel.ask(told.Try, told.Tried, TRYING)).results

    def view(self) -> ServiceView | None:
        return self.process.view() if self.process is not None else None

    def hints(self) -> tuple[str, ...]:
        if self.process is None:
            return ()
        down = () if self.process.up else (
            f"nothing is told elsewhere: the notify process is not up: {self.process.error}",)
        return (*down, *(shown(f"{way}: {text}") for way, text in sorted(self._trouble.items())))

    # small things

    async def _save_again(self) -> None:
        while True:
            await self._saving.wait()
            self._saving.clear()
            await asyncio.to_thread(self._save)
            await asyncio.sleep(SAVE)

    def _save(self) -> None:
        try:
            write_told(self._file, tuple(self._table.values()))
        except OSError as reason:
            LOG.error("%s: %s: after a restart it is told again", self._file, reason.strerror)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def shown(text: str) -> str:
    """Pure: what the notify process says, which may be a receiver's or an approver's words."""
    return "".join(one if one.isprintable() else "?" for one in text)[:SHOWN]


def length(view: HoldView) -> int:
    """Pure: characters of all its texts."""
    values = (getattr(view, one) for one in view.__struct_fields__)
    return sum(len(one) if isinstance(one, str) else sum(map(len, one)) if isinstance(one, tuple) else 0
               for one in values)


def batches(notices: Iterable[Notice]) -> Iterable[tuple[Notice, ...]]:
    """Pure: in messages that are not too long."""
    batch: list[Notice] = []
    size = 0
    for notice in notices:
        more = len(msgspec.msgpack.encode(notice))
        if batch and size + more > told.BATCH:
            yield tuple(batch)
            batch, size = [], 0
        batch.append(notice)
        size += more
    if batch:
        yield tuple(batch)


def render_links(config: Config, key: bytes, view: HoldView) -> dict[str, tuple[str, str]]:
    """Pure: of each webhook with an approver, where one says yes and no."""
    page = config.web.url
    if page is None:
        return {}
    found = {}
    for one in config.webhooks:
        if one.approver and PENDING in one.events:
            yes, no = (mint(key, Grant(view.ticket, view.since, approve, one.approver, one.name, view.until // NANO))
                       for approve in (True, False))
            found[one.name] = (f"{page}{PATH}{yes}", f"{page}{PATH}{no}")
    return found
