"""What the agent keeps for the enforcer: on the disk when it says so, bounded, and nothing else is written anywhere."""
from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.contract import messages
from agent.contract.messages import KEPT, TICKETS
from agent.tickets import Tickets

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the directory is root's: run as root")


class Told:
    def __init__(self) -> None:
        self.said: list[tuple[str, object]] = []

    def __call__(self, name: str, detail: object) -> None:
        self.said.append((name, dict(detail)["ticket"]))  # type: ignore[call-overload]


@pytest.fixture
def told() -> Told:
    return Told()


def name(number: int) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz234567"
    return "".join(letters[number >> shift & 31] for shift in range(35, -1, -5))


def test_kept_changed_forgotten_over_another_agent(tmp_path: Path, told: Told) -> None:
    tickets = Tickets(tmp_path, told)
    assert tickets.keep("abcdefgh", b"one") == ""
    assert tickets.keep("abcdefgh", b"two") == ""
    assert tickets.keep("zzzzzzzz", b"other") == ""
    assert Tickets(tmp_path, told).kept() == {"abcdefgh": b"two", "zzzzzzzz": b"other"}
    assert tickets.keep("abcdefgh", b"") == ""
    assert tickets.keep("abcdefgh", b"") == ""
    assert Tickets(tmp_path, told).kept() == {"zzzzzzzz": b"other"}
    assert told.said == [("ticket.kept", "abcdefgh"), ("ticket.kept", "zzzzzzzz"), ("ticket.forgotten", "abcdefgh")]
    assert [path.name for path in (tmp_path / "tickets").iterdir()] == ["zzzzzzzz"]


def test_root_s_alone(tmp_path: Path, told: Told) -> None:
    (tmp_path / "tickets").mkdir(mode=0o777)
    Tickets(tmp_path, told).keep("abcdefgh", b"one")
    assert (tmp_path / "tickets").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "tickets" / "abcdefgh").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("ticket", [
    "", "short", "ABCDEFGH", "../../etc", "abcdefg/", "abcdefgh\n", "abcdefghi", ".abcdefg"])
def test_no_other_name_becomes_a_file(tmp_path: Path, told: Told, ticket: str) -> None:
    assert Tickets(tmp_path, told).keep(ticket, b"x") == "that is no ticket"
    assert list((tmp_path / "tickets").iterdir()) == []


def test_bounds(tmp_path: Path, told: Told) -> None:
    tickets = Tickets(tmp_path, told)
    assert tickets.keep("abcdefgh", b"x" * (KEPT + 1)) == "that is no ticket"
    for number in range(TICKETS):
        assert tickets.keep(name(number), b"x") == ""
    assert "the most" in tickets.keep("zzzzzzzz", b"x")
    assert tickets.keep(name(0), b"y") == ""
    assert tickets.keep(name(1), b"") == ""
    assert tickets.keep("zzzzzzzz", b"x") == ""


def test_what_lies_there_besides_is_left_alone(tmp_path: Path, told: Told) -> None:
    Tickets(tmp_path, told).keep("abcdefgh", b"one")
    (tmp_path / "tickets" / "notes.txt").write_text("mine")
    (tmp_path / "tickets" / "bbbbbbbb").write_bytes(b"x" * (KEPT + 1))
    assert Tickets(tmp_path, told).kept() == {"abcdefgh": b"one"}
    assert (tmp_path / "tickets" / "notes.txt").exists()


def test_what_cannot_be_written_is_told_and_a_link_is_not_followed(tmp_path: Path, told: Told) -> None:
    tickets = Tickets(tmp_path, told)
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / "tickets" / ".abcdefgh").symlink_to(victim)
    (tmp_path / "tickets" / "abcdefgh").symlink_to(victim)
    assert tickets.keep("abcdefgh", b"one") == ""
    assert victim.read_text() == "untouched"
    (tmp_path / "tickets" / "abcdefgh").unlink()
    (tmp_path / "tickets").rmdir()
    assert str(tmp_path) in tickets.keep("zzzzzzzz", b"one")
    assert told.said == [("ticket.kept", "abcdefgh")]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Calls that fail as long as they are named here."""
    calls: set[str] = set()

    def failing(call: str) -> None:
        real = getattr(os, call)

        def instead(*words: Any, **options: Any) -> Any:
            if call in calls:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(*words, **options)

        monkeypatch.setattr(os, call, instead)

    for call in ("unlink", "fsync", "fdatasync"):
        failing(call)
    return calls


@pytest.mark.parametrize("killed", [False, True])
def test_what_the_disk_does_not_let_go_is_given_to_nobody_and_tried_again(
    tmp_path: Path, told: Told, broken: set[str], killed: bool,
) -> None:
    tickets = Tickets(tmp_path, told)
    tickets.keep("abcdefgh", b"one")
    broken.add("unlink")
    assert "error" in tickets.keep("abcdefgh", b"")
    assert tickets.kept() == {}
    assert tickets.keep("abcdefgh", b"one") == "it was to be forgotten"
    broken.clear()
    if killed:                        # the enforcer that would ask again
        assert tickets.kept() == {}
    else:
        assert tickets.keep("abcdefgh", b"") == ""
    assert Tickets(tmp_path, told).kept() == {}
    assert told.said == [("ticket.kept", "abcdefgh"), ("ticket.forgotten", "abcdefgh")]


def test_what_could_not_be_synced_is_forgotten_as_well(tmp_path: Path, told: Told, broken: set[str]) -> None:
    """It had its name, was not known, and came back with the next agent."""
    tickets = Tickets(tmp_path, told)
    broken.add("fsync")
    assert "error" in tickets.keep("abcdefgh", b"one")
    broken.clear()
    assert tickets.keep("abcdefgh", b"") == ""
    assert Tickets(tmp_path, told).kept() == {}


def test_what_could_not_be_written_leaves_nothing(tmp_path: Path, told: Told, broken: set[str]) -> None:
    tickets = Tickets(tmp_path, told)
    broken.add("fdatasync")
    assert "error" in tickets.keep("abcdefgh", b"one")
    assert list((tmp_path / "tickets").iterdir()) == []
    (tmp_path / "tickets" / ".zzzzzzzz").write_bytes(b"of an agent that was killed")
    Tickets(tmp_path, told)
    assert list((tmp_path / "tickets").iterdir()) == []


@pytest.mark.parametrize(("ticket", "content"), [
    ("../etc/x", b""), ("abcdefgh\n", b"x"), ("abcdefgh", b"x" * (KEPT + 1)), ("a" * 300, b"")])
def test_the_enforcer_cannot_even_say_it(ticket: str, content: bytes) -> None:
    frame = messages.render_frame(messages.KeepTicket(1, ticket, content))
    with pytest.raises(msgspec.MsgspecError):
        messages.parse_from_enforcer(frame[4:])


def test_all_of_them_fit_into_one_configure() -> None:
    kept = {name(number): b"x" * KEPT for number in range(TICKETS)}
    message = messages.Configure(1, "weir", (), (), {}, "/j", bytes(32), kept=kept)
    assert len(messages.render_frame(message)) < messages.LIMIT // 2
