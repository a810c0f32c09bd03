"""The agent's table of what was told where, with an enforcer and a notify process in the test's hands."""
from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from notify_lab import until, view

from agent.actions import Questions
from agent.channel import ChannelError
from agent.contract import messages
from agent.contract import notify as told
from agent.contract.locks import Lock, LockedOut
from agent.contract.notify import GivenUp, Notice, Place, Told, Trouble
from agent.contract.people import People
from agent.keys import LINK, Keys
from agent.notify import notifications
from agent.notify.links import Grant, mint
from agent.notify.notifications import Notifications, batches
from agent.settings.notify_table import SlackEntry, WebhookEntry
from agent.settings.page_table import Web

ADA = "U0ADA0000"
PEOPLE = People({"ada": ("corp:ada", "local:ada")})


class Enforcer:
    """Of its channel: what is held, and answers."""

    def __init__(self) -> None:
        self.up, self.channel = True, self
        self.holds: list[messages.HoldView] = []
        self.whole: dict[str, messages.HoldView] = {}      # by ticket, what is cut in the list
        self.decided: list[messages.DecideHold] = []
        self.error = ""

    async def ask(self, make: Any, wanted: Any, seconds: float = 0.0) -> Any:
        message = make(1)
        if isinstance(message, messages.ListHolds):
            return messages.HoldsAnswer(1, tuple(
                self.whole.get(one.ticket, one) if message.ticket else one
                for one in self.holds if message.ticket in ("", one.ticket)))
        assert isinstance(message, messages.DecideHold)
        self.decided.append(message)
        if message.ticket not in {one.ticket for one in self.holds}:
            return messages.HoldDecided(1, f"no hold {message.ticket} is pending")
        if not self.error:
            self.holds = [one for one in self.holds if one.ticket != message.ticket]
        return messages.HoldDecided(1, self.error)


class Process:
    """The notify process' channel."""

    def __init__(self) -> None:
        self.up, self.error, self.channel = True, "", self
        self.put: list[Notice] = []
        self.answers: list[told.Answered] = []
        self.down = False

    async def ask(self, make: Any, wanted: Any, seconds: float = 0.0) -> Any:
        if self.down:
            raise ChannelError("the notify process is not running")
        message = make(1)
        if isinstance(message, told.SlackRequest):
            return told.SlackAnswer(1, 200, message.body)
        assert isinstance(message, told.Put)
        self.put += message.notices
        return told.Done(1)

    def send(self, message: told.Answered) -> None:
        self.answers.append(message)

    async def stop(self) -> None:
        pass


class Here:
    def __init__(self, state: Path) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        config = SimpleNamespace(
            state=state, groups={"dba": ("user:root", "subject:corp:ada"), "ops": ("weir:dba",)},
            slack=SlackEntry(bot_token_file="/x", people={ADA: "corp:ada", "U0GONE000": "local:nobody-here"}),
            webhooks=(WebhookEntry("pager", "https://x", "/x", approver="corp:ada"),
                      WebhookEntry("log", "https://y", "/y")),
            web=Web("https://weir.lab.example"), runtime=SimpleNamespace(notify_user="weir-notify"), notify_roots={},
            notifies=True)
        config.webhook = lambda name: next((one for one in config.webhooks if one.name == name), None)
        self.config = config
        turn = asyncio.Event()
        turn.set()
        self.agent: Any = SimpleNamespace(
            turn=turn, config=config, enforcer=Enforcer(), locks=LockedOut(), keys=Keys(state, 0),
            identities=SimpleNamespace(names=lambda *known: PEOPLE.names(known)),
            parts=SimpleNamespace(part=lambda name: nullcontext()),
            tell=lambda name, detail, workload="": self.events.append((name, detail)))
        self.process = Process()
        self.notes = self.agent.notifications = self.fresh()
        self.agent.questions = Questions(self.agent)

    def fresh(self) -> Notifications:
        """As an agent that starts makes it."""
        made = Notifications(self.agent)
        made.process = self.process  # type: ignore[assignment]
        return made

    @property
    def enforcer(self) -> Any:
        return self.agent.enforcer

    async def press(self, ticket: str = "abcdefgh", user: str = ADA, approve: bool = True, reason: str = "") -> str:
        self.notes._came(told.Answer(7, user, ticket, approve, reason))
        await until(lambda: self.process.answers)
        return self.process.answers.pop().error

    def of(self, name: str) -> list[dict[str, Any]]:
        return [detail for one, detail in self.events if one == name]


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    made = Here(tmp_path)
    yield made
    for task in made.notes._tasks:
        task.cancel()


PLACE = Place("slack C0LAB0000", "1.2")


async def test_who_was_stopped_during_a_look_looks_again_soon(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []

    async def look() -> None:
        looks.append(time.monotonic())
        await asyncio.sleep(0.5)

    monkeypatch.setattr(notifications, "RESTED", 0.1)
    monkeypatch.setattr(here.notes, "look", look)
    here.notes._tasks.add(asyncio.get_running_loop().create_task(here.notes._look_again()))
    for number in (1, 2):
        here.notes._news.set()
        await until(lambda number=number: len(looks) == number)  # type: ignore[misc]
    assert looks[1] - looks[0] < 1.5


async def test_what_is_new_other_and_over_is_told_once(here: Here) -> None:
    one = view()
    here.enforcer.holds = [one]
    await here.notes.look()
    await here.notes.look()
    assert [(put.view.ticket, put.over) for put in here.process.put] == [("abcdefgh", "")]
    assert set(here.process.put[0].links) == {"pager"}
    here.enforcer.holds = [msgspec.structs.replace(one, assents=("local:bea",))]
    await here.notes.look()
    here.enforcer.holds = []
    await here.notes.look()
    await here.notes.look()
    assert [put.over for put in here.process.put] == ["", "", "cancelled"]
    assert here.process.put[-1].view.text == ""


async def test_how_it_ended_is_the_agents_own_word(here: Here) -> None:
    here.enforcer.holds = [view(ticket) for ticket in ("aaaaaaaa", "bbbbbbbb", "cccccccc", "dddddddd")]
    here.enforcer.holds.append(view("eeeeeeee", until=time.time_ns() - 1))
    here.enforcer.holds.append(view("ffffffff", form="elevation"))
    await here.notes.look()
    here.process.put.clear()
    here.notes.answered("aaaaaaaa", "approve", "local:ada", "fine")
    here.notes.answered("bbbbbbbb", "deny", "local:ada", "no")
    here.notes.answered("cccccccc", "approve", "local:ada", "")     # one of two: it stays
    standing = view("ffffffff", form="elevation", state="approved", assents=("local:bea",),
                    since=here.enforcer.holds[-1].since)
    here.enforcer.holds = [here.enforcer.holds[2], standing]
    await here.notes.look()
    here.enforcer.holds = [standing]
    await here.notes.look()
    assert {put.view.ticket: (put.over, put.by, put.reason) for put in here.process.put} == {
        "aaaaaaaa": ("approved", "local:ada", "fine"), "bbbbbbbb": ("denied", "local:ada", "no"),
        "cccccccc": ("cancelled", "", ""), "dddddddd": ("cancelled", "", ""), "eeeeeeee": ("expired", "", ""),
        "ffffffff": ("approved", "local:bea", "")}


async def test_a_notify_process_that_starts_again_knows_what_was_told(here: Here) -> None:
    here.enforcer.holds = [view()]
    await here.notes.look()
    here.notes._came(Told("abcdefgh", PLACE))
    here.process.put.clear()
    await here.notes._ready()
    assert [put.places for put in here.process.put] == [(PLACE,)]
    here.process.down = True
    here.enforcer.holds = []
    await here.notes.look()           # it is over, and nobody hears it
    here.process.down = False
    await here.notes._ready()
    assert [(put.over, put.places) for put in here.process.put[1:]] == [("cancelled", (PLACE,))]
    assert here.process.put[-1].given, "the webhook may have heard of it, and the process ended before it said so"
    here.notes._came(Told("abcdefgh", PLACE))
    for name in ("pager", "log"):
        here.notes._came(Told("abcdefgh", Place(f"webhook {name}", "over")))
    await here.notes._ready()
    assert len(here.process.put) == 2 # said to be over: forgotten


async def test_an_agent_that_starts_again_does_too(here: Here) -> None:
    kept, gone = view("aaaaaaaa", form="ticket"), view("bbbbbbbb")
    here.enforcer.holds = [kept, gone]
    await here.notes.look()
    for ticket in ("aaaaaaaa", "bbbbbbbb"):
        here.notes._came(Told(ticket, PLACE))
    here.notes._save()
    file = here.config.state / "notify.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert b"delete from orders" not in file.read_bytes()
    here.process.put.clear()
    again = here.fresh()
    await again._ready()
    assert here.process.put == []     # until it is known what waits
    here.enforcer.holds, here.enforcer.up = [], False
    await again.look()                # an enforcer that has not been given its tickets yet
    assert here.process.put == []
    here.enforcer.holds, here.enforcer.up = [kept], True
    await again.look()
    await again.look()
    assert {(put.view.ticket, put.over, put.places) for put in here.process.put} == {
        ("aaaaaaaa", "", (PLACE,)), ("bbbbbbbb", "cancelled", (PLACE,))}
    assert len(here.process.put) == 2


async def test_a_file_that_is_damaged_is_begun_anew(here: Here) -> None:
    for content in (b"", b"{", b"[1]", b'[{"view": {}}]'):
        (here.config.state / "notify.json").write_bytes(content)
        assert here.fresh()._table == {}


# answers


async def test_who_presses_is_whom_the_configuration_names(here: Here) -> None:
    here.enforcer.holds = [view()]
    assert await here.press(user="U0EVE0000") == notifications.MAY_NOT
    assert here.enforcer.decided == []
    assert await here.press(reason="fine") == ""
    assert here.enforcer.decided == [messages.DecideHold(
        1, "abcdefgh", True, "corp:ada", ("dba", "ops"), "fine", names=("local:ada",))]
    assert here.of("approval.answered") == [{
        "ticket": "abcdefgh", "answer": "approve", "by": "corp:ada", "reason": "fine", "error": "",
        "way": f"slack {ADA}"}]
    assert await here.press() == "no hold abcdefgh is pending"      # never twice
    assert len(here.enforcer.decided) == 1
    assert "no user" in await here.press(user="U0GONE000")


async def test_who_is_locked_answers_nothing(here: Here) -> None:
    here.enforcer.holds = [view()]
    for name in ("corp:ada", "local:ada"):
        here.agent.locks = LockedOut((Lock("subject", name, "gone", "root", 1, 0, 0, ""),))
        assert "gone" in await here.press()
    assert here.enforcer.decided == []


async def test_a_reload_between_press_and_answer_counts(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups are looked up beside the loop: meanwhile somebody is in none any more."""
    here.enforcer.holds = [view()]
    looked, looked_up = notifications.find_groups, asyncio.Event()
    loop = asyncio.get_running_loop()

    def reloaded(*asked: Any) -> tuple[str, ...]:
        found = looked(*asked)
        if not looked_up.is_set():
            asyncio.run_coroutine_threadsafe(reload(), loop).result()
        return found

    async def reload() -> None:
        looked_up.set()
        here.agent.turn.clear()
        here.agent.config = SimpleNamespace(**vars(here.config) | {"groups": {}})
        loop.call_later(0.05, here.agent.turn.set)

    monkeypatch.setattr(notifications, "find_groups", reloaded)
    assert await here.press() == ""
    assert here.enforcer.decided[0].groups == ()


async def test_answers_that_do_not_count_fill_no_recording(here: Here) -> None:
    here.enforcer.holds = [view()]
    here.enforcer.error = "a reason is required"
    for _ in range(20):
        assert await here.press() == "a reason is required"
    assert len(here.of("approval.answered")) == 1


async def test_a_flood_of_answers_is_refused(here: Here) -> None:
    here.notes._answering = notifications.AT_ONCE
    assert "too many" in await here.press()


# links


def token(here: Here, **changes: Any) -> str:
    one = here.enforcer.holds[0]
    grant = Grant(one.ticket, one.since, True, "corp:ada", "pager", one.until // 1_000_000_000)
    return mint(here.agent.keys.link, msgspec.structs.replace(grant, **changes))


async def test_a_link_shows_and_then_decides(here: Here) -> None:
    here.enforcer.holds = [view()]
    await here.notes.look()
    yes, no = (link.removeprefix("https://weir.lab.example/answer/") for link in here.process.put[0].links["pager"])
    for link, approve in ((yes, True), (no, False)):
        for _ in range(3):            # scanners look at links
            found = await here.notes.describe_link(link)
            assert found is not None
            assert (found.view.ticket, found.approve, found.by, found.view.text) == (
                "abcdefgh", approve, "corp:ada", "")
    assert here.enforcer.decided == []
    assert await here.notes.answer_link(no, "not now") == ""
    assert here.enforcer.decided[0] == messages.DecideHold(
        1, "abcdefgh", False, "corp:ada", ("dba", "ops"), "not now", names=("local:ada",))
    assert here.of("approval.answered")[0] | {"error": ""} == {
        "ticket": "abcdefgh", "answer": "deny", "by": "corp:ada", "reason": "not now", "error": "",
        "way": "link pager"}
    assert await here.notes.answer_link(yes) == "no hold abcdefgh is pending"
    assert await here.notes.describe_link(yes) is None
    assert len(here.enforcer.decided) == 1


@pytest.mark.parametrize("changes", [
    {"webhook": "log"}, {"webhook": "gone"}, {"by": "corp:eve"}, {"until": 1}])
async def test_a_link_of_what_is_configured_no_more(here: Here, changes: dict[str, Any]) -> None:
    here.enforcer.holds = [view()]
    assert await here.notes.describe_link(token(here)) is not None
    assert await here.notes.describe_link(token(here, **changes)) is None
    assert await here.notes.answer_link(token(here, **changes)) == notifications.GONE
    assert here.enforcer.decided == []


async def test_a_link_is_for_one_hold(here: Here) -> None:
    """A later one that drew the same ticket is another."""
    here.enforcer.holds = [view()]
    assert await here.notes.answer_link(token(here, since=5)) == "no hold abcdefgh is pending"
    assert await here.notes.describe_link(token(here, since=5)) is None
    assert await here.notes.answer_link(token(here)[:-1]) == notifications.GONE
    assert here.enforcer.decided == []


async def test_what_a_link_is_for_is_whole_however_much_waits(here: Here) -> None:
    whole = view()
    here.enforcer.holds = [msgspec.structs.replace(whole, action="sql:del... (cut here: much waits)")]
    here.enforcer.whole = {whole.ticket: whole}
    found = await here.notes.describe_link(token(here))
    assert found is not None
    assert found.view.action == whole.action


async def test_links_that_are_out_lead_to_nothing_once_their_key_is_another(here: Here) -> None:
    here.enforcer.holds = [view()]
    await here.notes.look()
    out = token(here)
    here.agent.keys.rotate(LINK)
    for notes in (here.notes, here.fresh()):
        assert await notes.describe_link(out) is None
        assert await notes.answer_link(out) == notifications.GONE
    await here.notes.look()
    made = here.process.put[-1].links["pager"][0].removeprefix("https://weir.lab.example/answer/")
    assert made == token(here) != out
    assert await here.notes.answer_link(made) == ""


@pytest.mark.parametrize("by", ["link", "slack"])
async def test_whose_answer_it_was_before_a_reload_counts_no_more(here: Here, by: str) -> None:
    here.enforcer.holds = [view()]
    here.agent.turn.clear()
    said = asyncio.ensure_future(here.notes.answer_link(token(here)) if by == "link" else here.press())
    for _ in range(5):                # it has come as far as it comes
        await asyncio.sleep(0)
    here.agent.config = SimpleNamespace(**vars(here.config) | {
        "webhook": lambda name: None, "slack": msgspec.structs.replace(here.config.slack, people={})})
    here.agent.turn.set()
    assert await said == notifications.MOVED
    assert here.enforcer.decided == []


async def test_two_answers_at_once_are_one_decision(here: Here) -> None:
    here.enforcer.holds = [view()]
    link = token(here)
    said = await asyncio.gather(*(here.notes.answer_link(link) for _ in range(5)), here.press())
    assert sorted(said) == ["", *["no hold abcdefgh is pending"] * 5]
    assert [one["error"] for one in here.of("approval.answered")].count("") == 1


async def test_slacks_requests_are_passed_on_unread(here: Here) -> None:
    assert await here.notes.slack_request("1", "v0=x", b"\xff\x00") == (200, b"\xff\x00")
    assert (await here.notes.slack_request("1", "v0=x", b"x" * (told.REQUEST + 1)))[0] == 413
    assert (await here.notes.slack_request("1" * 300, "v0=x", b""))[0] == 413
    here.process.down = True
    assert (await here.notes.slack_request("1", "v0=x", b""))[0] == 503
    here.notes.process = None
    assert (await here.notes.slack_request("1", "v0=x", b""))[0] == 404


# a notify process that is broken


async def test_what_it_says_is_bounded(here: Here) -> None:
    here.enforcer.holds = [view()]
    await here.notes.look()
    for number in range(1000):
        here.notes._came(Trouble(f"way {number}", "x\x1b[31m"))
    assert len(here.notes.hints()) == notifications.WAYS
    assert "\x1b" not in "".join(here.notes.hints())
    for number in range(1000):
        here.notes._came(GivenUp("abcdefgh", "slack C", f"reason {number}"))
    assert len(here.of("notify.failed")) == 1
    with pytest.raises(ValueError, match="more places"):
        for number in range(1000):
            here.notes._came(Told("abcdefgh", Place(f"slack C{number}", "1")))


async def test_an_enforcer_that_is_broken_takes_no_memory(here: Here) -> None:
    here.enforcer.holds = [view("aaaaaaaa", action="x" * 70_000), view("bbbbbbbb", rules=("x" * 70_000,)), view()]
    await here.notes.look()
    assert [put.view.ticket for put in here.process.put] == ["abcdefgh"]
    here.enforcer.holds = [view(f"{number:08d}".translate(str.maketrans("0189", "abcd"))) for number in range(3000)]
    await here.notes.look()
    assert sum(not one.over for one in here.notes._table.values()) <= told.MOST


async def test_a_reason_is_one_line(here: Here) -> None:
    here.enforcer.holds = [view()]
    assert await here.press(reason="fine\x1b[31m\nFATAL: x") == ""
    assert here.enforcer.decided[0].reason == "fine?[31m?FATAL: x"


def test_batches_are_bounded() -> None:
    notices = [Notice(view(f"abcdefg{chr(97 + number)}", text="x" * 100_000)) for number in range(20)]
    made = list(batches(notices))
    assert [one for batch in made for one in batch] == notices
    assert all(len(told.render_frame(told.Put(1, batch))) < told.LIMIT for batch in made)
    assert len(made) == 10


async def test_places_that_a_broken_process_makes_up_fill_no_recording(here: Here) -> None:
    for number in range(5000):
        here.notes._came(GivenUp("abcdefgh", f"slack C{number}", "no"))
    here.notes._came(GivenUp("abcdefgh", "webhook pager", "no"))
    assert [one["way"] for one in here.of("notify.failed")] == ["slack C0", "webhook pager"]
