"""Locks: on the disk before they are in force, over restarts and clocks, bounded; a broken file lets nobody in."""
from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from agent.actions import Launches, Questions
from agent.channel import ChannelError
from agent.config import Config, parse_config
from agent.contract import control, messages
from agent.contract.locks import LONGEST, MOST, REASON, Lock, LockedOut, LockSet, is_over
from agent.contract.people import People
from agent.control import Peer
from agent.layout import LayoutError
from agent.people import lock_file
from agent.people import locks as module
from agent.people.lock_file import read_locks, write_locks
from agent.people.locks import Locks, subjects_of
from enforcer.identity.claims import SUBJECT

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the file is root's: run as root")

SECOND = 1_000_000_000
CONFIG = """
[[target]]
name = "orders"
protocol = "postgresql"
hosts = ["db.lab.example"]
port = 5432
tls = "disable"
[[target.credential]]
role = "*"
user = "svc"
password_file = "/nowhere"
[[workload]]
name = "crew"
users = ["games"]
[[provider]]
name = "corp"
issuer = "https://idp.lab.example"
client_id = "weir"
"""
ROOT, ADA = Peer(1, 0, 0, ()), Peer(1, 5, 5, ())      # uid 5 is games


class Enforcer:
    """`broken`: why it does not answer; `away`: it does not run."""

    def __init__(self, file: Path) -> None:
        self.file, self.broken, self.away, self.closed = file, "", False, False
        self.up, self.began = True, 1
        self.sets: list[LockSet] = []
        self.killed: list[tuple[str, str]] = []

    @property
    def channel(self) -> Enforcer:
        if self.away:
            raise ChannelError("the enforcer is not running")
        return self

    def close(self) -> None:
        self.closed = True

    async def ask(self, make: Any, wanted: Any, seconds: float = 0) -> Any:
        message = make(7)
        if self.broken:
            raise ChannelError(self.broken)
        if isinstance(message, messages.EndSession):
            self.killed.append((message.session, message.reason))
            view = messages.SessionView("01ABC", 1, "local:ada", "crew", 1, "orders", "shop", 3, "active")
            found = message.session == "01A"
            return messages.SessionEnded(7, view if found else None, "" if found else "no session or flow is open")
        assert isinstance(message, messages.PutLocks)
        # It is never told what is not on the disk.
        assert read_locks(self.file) == message.locks.locks
        self.sets.append(message.locks)
        return messages.LocksTaken(7, 3)


class Here:
    def __init__(self, state: Path) -> None:
        made, report = parse_config(CONFIG, "weir.toml")
        assert made is not None, report.problems
        config: Config = msgspec.structs.replace(made, runtime=msgspec.structs.replace(made.runtime, state=state))
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.enforcer = Enforcer(state / lock_file.NAME)
        self.ended = 0
        turn = asyncio.Event()
        turn.set()
        self.agent: Any = SimpleNamespace(
            turn=turn, config=config, enforcer=self.enforcer, identities=SimpleNamespace(
                end_locked=self._end, person=lambda peer: SimpleNamespace(subject="corp:ada"),
                names=lambda *known: (*known, "corp:ada"),
                logins=SimpleNamespace(opened=lambda session: SimpleNamespace(subject="corp:ada") if session else None,
                                       of_workload=lambda name: None)),
            tell=lambda name, detail, workload="": self.told.append((name, dict(detail))))
        self.locks = self.agent.locks = Locks(self.agent)

    def _end(self) -> None:
        self.ended += 1

    async def put(self, kind: str, name: str, seconds: int = 0, reason: str = "") -> control.LockDone:
        return await self.locks.lock(control.PutLock(kind, name, reason, seconds), "local:root")

    async def lift(self, kind: str, name: str) -> control.LockDone:
        return await self.locks.unlock(control.LiftLock(kind, name), "local:root")


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


def lock(name: str = "crew", kind: str = "workload", **more: Any) -> Lock:
    return Lock(kind, name, "leaked", "local:root", 1, **more)  # type: ignore[arg-type]


# pure


def test_each_kind_by_its_name_alone() -> None:
    locked = LockedOut([lock(), lock("orders", "target"), lock("local:ada", "subject")])
    assert locked.why(("local:eve",), "other", "elsewhere") == locked.why() == ""
    assert locked.why(("orders", "crew"), "orders", "crew") == "", "names of other kinds"
    assert locked.why(workload="crew") == "workload crew is locked: leaked"
    assert locked.why(target="orders") == "target orders is locked: leaked"
    assert locked.why(("corp:ada", "local:ada")) == "subject local:ada is locked: leaked"


@pytest.mark.parametrize(("now", "uptime", "boot", "over"), [
    (99, 9, "b", False),              # neither clock
    (500, 9, "b", False),             # the clock was set forward
    (50, 11, "b", False),             # set back: it lasts longer, not shorter
    (100, 10, "b", True),
    (100, 1, "other", True),          # after a boot the other clock says nothing
    (99, 99, "other", False),
])
def test_a_clock_that_is_set_makes_no_lock_shorter(now: int, uptime: int, boot: str, over: bool) -> None:
    assert is_over(lock(until=100, deadline=10, boot="b"), now, uptime, boot) is over
    assert not is_over(lock(), now, uptime, boot)


# the file


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / lock_file.NAME
    assert read_locks(path) == ()
    for kept in ((lock(), lock("x", until=5, deadline=6, boot="b")), ()):
        write_locks(path, kept)
        assert read_locks(path) == kept
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == [lock_file.NAME]


GOOD = msgspec.json.encode((lock(),))


@pytest.mark.parametrize("content", [
    b"", b"{", b"null", b"{}", GOOD[:-1], GOOD[:40], b"\xff" * 100, GOOD.replace(b"workload", b"worklaod"),
    GOOD.replace(b'"reason"', b'"unless"'), msgspec.json.encode((lock(), lock())), GOOD.replace(b'"crew"', b'""'),
    msgspec.json.encode([lock(f"w{number}") for number in range(MOST + 1)]), GOOD + b" " * lock_file.LIMIT,
    GOOD.replace(b"leaked", b"x" * (REASON + 1)),
], ids=lambda one: f"{len(one)} bytes")
def test_a_file_that_is_not_right_lets_nobody_in(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / lock_file.NAME
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(LayoutError, match=r"locks\.json.*move it away"):
        read_locks(path)


@pytest.mark.parametrize("how", ["writable", "another's", "link", "directory", "pipe"])
def test_a_file_that_is_not_root_s_alone_lets_nobody_in(tmp_path: Path, how: str) -> None:
    path = tmp_path / lock_file.NAME
    if how == "directory":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    else:
        real = tmp_path / "real" if how == "link" else path
        write_locks(real, (lock(),))
        if how == "link":
            path.symlink_to(real)
        elif how == "writable":
            path.chmod(0o620)
        else:
            os.chown(path, 5, -1)
    with pytest.raises(LayoutError):
        read_locks(path)


def test_a_full_disk_leaves_what_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / lock_file.NAME
    write_locks(path, (lock(),))

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_locks(path, ())
    assert read_locks(path) == (lock(),)


# in force


async def test_kept_told_and_recorded(here: Here, tmp_path: Path) -> None:
    assert await here.put("workload", "crew", reason="leaked") == control.LockDone("", 3)
    assert await here.put("target", "orders", 60) == control.LockDone("", 3)
    assert [one.name for one in here.enforcer.sets[-1].locks] == ["crew", "orders"]
    assert here.locks.why(workload="crew") == "workload crew is locked: leaked"
    assert here.ended == 2
    again = Here(tmp_path)
    assert [(one.kind, one.name, one.by) for one in again.locks] == [
        ("workload", "crew", "local:root"), ("target", "orders", "local:root")]
    assert again.locks.rendered().locks == here.locks.rendered().locks
    assert await again.lift("workload", "crew") == control.LockDone()
    assert "is not locked" in (await again.lift("workload", "crew")).error
    assert [one.name for one in Here(tmp_path).locks] == ["orders"]
    assert here.told[0] == ("lock", {
        "what": "workload", "name": "crew", "by": "local:root", "reason": "leaked", "seconds": 0})
    assert again.told == [("unlock", {"what": "workload", "name": "crew", "by": "local:root", "reason": ""})]


async def test_each_change_has_a_later_serial(here: Here) -> None:
    for name in ("crew", "crew"):
        await here.put("workload", name)
    await here.lift("workload", "crew")
    serials = [one.serial for one in here.enforcer.sets]
    assert serials == sorted(set(serials))
    assert here.locks.rendered().serial == serials[-1]


async def test_at_once(here: Here) -> None:
    """Changes that meet lose none of one another."""
    await asyncio.gather(*(here.put("subject", f"corp:n{number}") for number in range(20)))
    assert len(read_locks(here.enforcer.file)) == len(here.enforcer.sets[-1].locks) == 20


async def test_the_same_again_takes_the_place(here: Here) -> None:
    await here.put("subject", "corp:ada", 60)
    await here.put("subject", "corp:ada", reason="for good")
    [one] = here.locks
    assert (one.until, one.reason) == (0, "for good")


@pytest.mark.parametrize(("kind", "name", "seconds", "reason", "why"), [
    ("workload", "crwe", 0, "", "there is no workload 'crwe'; there is: crew"),
    ("target", "crew", 0, "", "there is no target"), ("subject", "ada", 0, "", "local:NAME or corp:NAME"),
    ("subject", "local:", 0, "", "a subject is"), ("subject", "other:ada", 0, "", "a subject is"),
    ("subject", "corp:a\nda", 0, "", "a subject is"), ("subject", "corp:" + "x" * 300, 0, "", "a subject is"),
    ("group", "dba", 0, "", "one of these"), ("workload", "crew", -1, "", "at most"),
    ("workload", "crew", 1 << 40, "", "at most"), ("workload", "crew", 0, "two\nlines", "one line"),
    ("workload", "crew", 0, "x" * 201, "one line"),
])
async def test_what_would_lock_nobody_is_refused(
    here: Here, kind: str, name: str, seconds: int, reason: str, why: str
) -> None:
    assert why in (await here.put(kind, name, seconds, reason)).error
    assert (list(here.locks), here.enforcer.sets, here.told) == ([], [], [])


async def test_a_subject_of_a_saml_provider(here: Here) -> None:
    made, report = parse_config(CONFIG + """
[[saml_provider]]
name = "adfs"
issuer = "https://adfs.lab.example"
entity_id = "https://weir.lab.example"
metadata_url = "https://adfs.lab.example/metadata"
port = 18443
groups_attribute = "Role"
""", "weir.toml")
    assert made is not None, report.problems
    here.agent.config = msgspec.structs.replace(made, runtime=here.agent.config.runtime)
    assert (await here.put("subject", "adfs:ada")).error == ""
    assert here.locks.why(("adfs:ada",)) == "subject adfs:ada is locked"


async def test_the_longest_subject_can_be_locked(here: Here) -> None:
    """One that a provider lets people choose for themselves."""
    longest = "corp:" + "\U0001f600" * (LONGEST - 5)
    assert len(f"{'p' * 32}:{'x' * SUBJECT}") <= LONGEST
    assert (await here.put("subject", longest)).error == ""
    assert Locks(here.agent).why((longest,)) != ""


async def test_a_user_that_is_not_there_is_said(here: Here) -> None:
    done = await here.put("subject", "local:nobody-has-this-name")
    assert (done.error, done.notes) == ("", ("this host has no user nobody-has-this-name now",))


async def test_no_more_than_there_is_room_for(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    await here.put("subject", "corp:a")
    await here.put("subject", "corp:b")
    assert "the most" in (await here.put("subject", "corp:c")).error
    assert (await here.put("subject", "corp:b", 60)).error == ""


async def test_what_cannot_be_kept_is_not_said_to_be_done(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    await here.put("workload", "crew")

    def broken(*words: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_locks", broken)
    assert "nothing is locked: " in (await here.put("target", "orders")).error
    assert "it stays locked: " in (await here.lift("workload", "crew")).error
    assert [one.name for one in here.locks] == ["crew"]
    assert len(here.enforcer.sets) == 1


async def test_while_the_enforcer_is_away(here: Here) -> None:
    here.enforcer.away = True
    done = await here.put("workload", "crew")
    assert (done.error, done.ended) == ("", 0)
    assert "the next one begins with it" in done.notes[0]
    assert [one.name for one in here.locks.rendered().locks] == ["crew"]


async def test_an_enforcer_that_does_not_take_it_is_ended(here: Here) -> None:
    here.enforcer.broken = "the enforcer did not answer within 10 seconds"
    done = await here.put("workload", "crew")
    assert here.enforcer.closed
    assert (done.error, "is ended" in done.notes[0]) == ("", True)


async def test_for_a_while(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    await here.put("workload", "crew", 60)
    await here.put("target", "orders")
    await here.locks.look()
    assert len(list(here.locks)) == 2
    now, uptime = module.time.time_ns(), module.uptime()
    monkeypatch.setattr(module.time, "time_ns", lambda: now + 61 * SECOND)
    await here.locks.look()
    assert len(list(here.locks)) == 2, "a clock that was set forward"
    monkeypatch.setattr(module, "uptime", lambda: uptime + 61 * SECOND)
    await here.locks.look()
    assert [one.name for one in here.locks] == ["orders"]
    assert [one.name for one in here.enforcer.sets[-1].locks] == ["orders"]
    assert here.told[-1] == ("unlock", {"what": "workload", "name": "crew", "by": "", "reason": "its time is over"})


# who is locked asks for nothing


@pytest.mark.parametrize("subject", ["local:games", "corp:ada"])
async def test_who_is_locked_answers_and_asks_for_nothing(here: Here, subject: str) -> None:
    await here.put("subject", subject, reason="leaked")
    questions = Questions(here.agent)
    why = f"subject {subject} is locked: leaked"
    for request in (control.Decide("abcdefgh", True), control.BreakGlass("abcdefgh", "x"), control.Revoke("abcdefgh")):
        assert await questions.decide(request, ADA) == control.Answered(why)
    assert await questions.elevate(control.Elevate("orders", 60), ADA) == control.Requested("", why)
    assert here.told[-1][0] == "control.refused"
    assert here.told[-1][1]["reason"] == why


@pytest.mark.parametrize(("kind", "name"), [
    ("workload", "crew"), ("subject", "local:games"), ("subject", "local:mail"), ("subject", "corp:ada")])
async def test_nothing_is_started_for_who_is_locked(here: Here, kind: str, name: str) -> None:
    launches = Launches(here.agent)
    assert launches._locked("crew", "games", "mail", "login") == ""
    await here.put(kind, name)
    assert launches._locked("crew", "games", "mail", "login") == f"{kind} {name} is locked"
    assert launches._locked("other", "bin", "bin", "") == ""


def test_by_which_names_somebody_is_locked() -> None:
    assert subjects_of("ada") == ("local:ada",)
    assert subjects_of("ada", "corp:ada") == ("local:ada", "corp:ada")


# killing


async def test_who_ended_what_and_why_is_recorded(here: Here) -> None:
    questions = Questions(here.agent)
    killed = await questions.kill(control.KillSession("01A", "runaway"), ROOT)
    assert isinstance(killed, control.Killed)
    assert (killed.error, killed.session.session if killed.session else "") == ("", "01ABC")
    assert here.enforcer.killed == [("01A", "killed by local:root: runaway")]
    assert here.told == [("session.killed", {
        "session": "01ABC", "by": "local:root", "reason": "runaway", "error": "", "subject": "local:ada",
        "target": "orders"})]
    assert "no session" in (await questions.kill(control.KillSession("02"), ROOT)).error  # type: ignore[attr-defined]
    assert here.told[-1][1] == {
        "session": "02", "by": "local:root", "reason": "", "error": "no session or flow is open"}


@pytest.mark.parametrize("reason", ["two\nlines", "x" * 201, "\x1b[2J"])
async def test_a_reason_is_one_line(here: Here, reason: str) -> None:
    answer = await Questions(here.agent).kill(control.KillSession("01A", reason), ROOT)
    assert "one line" in answer.error  # type: ignore[attr-defined]
    assert (here.enforcer.killed, here.told) == ([], [])


# people


async def test_a_lock_of_one_name_is_of_all_and_says_so(here: Here) -> None:
    here.agent.config = msgspec.structs.replace(here.agent.config, people=People({
        "ada": ("corp:ada", "local:ada", "local:ada-admin")}))
    done = await here.put("subject", "local:ada-admin", reason="leaked")
    said = "locked with it, for they are the same person's ([people] of groups.toml): corp:ada, local:ada"
    assert said in done.notes
    for name in ("corp:ada", "local:ada", "local:ada-admin"):
        assert here.locks.why([name]) == "subject local:ada-admin is locked: leaked"
    assert here.locks.why(["local:eve"]) == ""
    lifted = await here.lift("subject", "local:ada")
    assert lifted.error == "subject local:ada is not locked, but local:ada-admin is, which is the same person"
    await here.put("subject", "corp:ada")
    lifted = await here.lift("subject", "local:ada-admin")
    assert lifted.notes == ("it is locked still: subject corp:ada is locked",)
    assert (await here.lift("subject", "corp:ada")).notes == ()
    assert here.locks.why(["local:ada"]) == ""


async def test_what_no_enforcer_has_had_stays_locked(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or what waits for people would be back with the next one: what was kept of it was given up by nobody."""
    here.enforcer.away, here.enforcer.up = True, False
    await here.put("workload", "crew")
    await here.put("target", "orders", 60)
    assert "it stays locked until an enforcer has had it" in (await here.lift("workload", "crew")).error
    now, uptime = module.time.time_ns(), module.uptime()
    monkeypatch.setattr(module.time, "time_ns", lambda: now + 61 * SECOND)
    monkeypatch.setattr(module, "uptime", lambda: uptime + 61 * SECOND)
    await here.locks.look()
    assert [one.name for one in here.locks] == ["crew", "orders"]
    here.enforcer.away, here.enforcer.up, here.enforcer.began = False, True, 2
    await here.locks.look()
    assert (await here.lift("workload", "crew")).error == ""
    assert list(here.locks) == []


async def test_nor_one_that_the_enforcer_did_not_take(here: Here) -> None:
    here.enforcer.broken = "the enforcer did not answer within 10 seconds"
    await here.put("workload", "crew")
    here.enforcer.broken = ""
    assert "it stays locked" in (await here.lift("workload", "crew")).error
    here.enforcer.began = 2
    assert (await here.lift("workload", "crew")).error == ""


async def test_nor_after_a_restart_of_the_agent(here: Here) -> None:
    await here.put("workload", "crew")
    here.enforcer.away, here.enforcer.up = True, False
    here.locks = here.agent.locks = Locks(here.agent)
    assert "it stays locked" in (await here.lift("workload", "crew")).error
    here.enforcer.away, here.enforcer.up = False, True
    assert (await here.lift("workload", "crew")).error == ""
