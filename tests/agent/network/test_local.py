"""Unix sockets of targets: listeners that are made anew in the same directory, links in the view, whose a caller is."""
from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.contract import messages
from agent.network import local
from agent.people.identity import local_principal
from agent.settings import fields
from agent.settings.credential_table import CredentialRow
from agent.whois import Answers
from agent.workload.facts import Hashes
from agent.workload.owners import Owners, Start


def target(name: str, *sockets: str, upstream: str | None = None) -> Any:
    return SimpleNamespace(name=name, sockets=sockets, upstream=upstream, port=5432, credentials=())


def reach(path: Path) -> int:
    with socket.socket(socket.AF_UNIX) as one:
        return one.connect_ex(str(path))


def close(opened: dict[str, socket.socket]) -> None:
    for one in opened.values():
        one.close()


def test_they_are_made_anew_in_the_same_directory(tmp_path: Path) -> None:
    """A view that shows the directory shows the new ones."""
    place = tmp_path / "sockets"
    first = local.open_local(place, [target("orders", "/tmp/a"), target("gone", "/tmp/b"), target("tcp")])
    inode = place.stat().st_ino
    assert {path.name for path in place.iterdir()} == {"orders", "gone"}
    assert (place / "orders").stat().st_mode & 0o777 == 0o666
    assert reach(place / "orders") == 0
    close(first)
    assert reach(place / "orders") != 0, "nobody is there, and it says so at once"
    second = local.open_local(place, [target("orders", "/tmp/a")])
    assert [path.name for path in place.iterdir()] == ["orders"]
    assert (place.stat().st_ino, reach(place / "orders")) == (inode, 0)
    close(second)


def test_others_than_targets(tmp_path: Path) -> None:
    place = tmp_path / "sockets"
    opened = local.open_local(place, [target("orders", "/tmp/a"), target("reports", "/tmp/b")], (messages.REPORTS,))
    assert {path.name for path in place.iterdir()} == {"orders", "reports", "@reports"} == set(opened)
    assert reach(place / local.REPORTING[1]) == 0
    close(opened)
    with pytest.raises(ValueError, match="@reports"):
        fields.NAME.parse(messages.REPORTS)      # so no target has it


def test_what_a_killed_agent_left_in_the_way(tmp_path: Path) -> None:
    place = tmp_path / "sockets"
    place.mkdir()
    (place / ".orders").touch()
    close(local.open_local(place, [target("orders", "/tmp/a")]))


def test_a_path_that_is_too_long_says_which(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="orders"):
        local.open_local(tmp_path / ("x" * 120), [target("orders", "/tmp/a")])


def test_what_came_after_the_start() -> None:
    targets = [target("orders", "/run/p/a", "/tmp/b"), target("late", upstream="/srv/real"), target("tcp")]
    assert local.not_opened({}, targets) == ["orders"]
    assert local.links(targets) == (("/run/p/a", "orders"), ("/tmp/b", "orders"))
    assert local.real_sockets(targets) == ("/run/p/a", "/tmp/b", "/srv/real")
    keys = SimpleNamespace(sockets=(), upstream=None, credentials=(CredentialRow(agent="/srv/agent"), CredentialRow()))
    assert local.real_sockets([keys]) == ("/srv/agent",), "an agent's keys are no crew's"


# whose


CREW, CGROUP = 4711, 99


class Kernel:
    def task(self, pid: int) -> tuple[int, int] | None:
        return {CREW: (7, CGROUP), CREW + 1: (8, CGROUP), CREW + 2: (0, CGROUP)}.get(pid)


@pytest.fixture
def answers(tmp_path: Path) -> Answers:
    owners = Owners(tmp_path / "owners.json")
    (tmp_path / "crew-7").mkdir()
    owners.put(Start(7, "crew", 5, "games", ("games",), str(tmp_path / "crew-7"), 1))
    config: Any = SimpleNamespace(
        groups={"data": ("workload:crew",)}, targets=(target("orders", "/run/p/a", "/tmp/b"), target("tcp")))
    return Answers(Kernel(), owners, Hashes(), tmp_path, lambda: config, lambda: None,  # type: ignore[arg-type,return-value]
                   principal=lambda start: local_principal(
                       config.groups, start.user, start.unix_groups, start.workload))


async def whois(answers: Answers, name: str, pid: int, uid: int) -> Any:
    found = await answers.answer(messages.WhoisLocal(1, name, pid, uid))
    assert isinstance(found, messages.WhoisAnswer)
    return found.owner or found.reason


async def test_by_the_mark_of_the_process_that_connected(answers: Answers) -> None:
    owner = await whois(answers, "orders", CREW, 5)
    assert (owner.workload, owner.subject, owner.groups, owner.process.pid) == (
        "crew", "local:games", ("data",), CREW)
    assert (owner.target, owner.destination, owner.port, owner.attribution) == ("orders", "/run/p/a", 5432, "mark")
    assert (owner.local, owner.cookie) == (True, 0)


async def test_who_reports(answers: Answers) -> None:
    owner = await whois(answers, messages.REPORTS, CREW, 5)
    assert (owner.workload, owner.process.pid, owner.target, owner.destination, owner.port, owner.local) == (
        "crew", CREW, "", "/run/weir-reports", 0, True)
    assert "is no crew's" in await whois(answers, messages.REPORTS, CREW - 1, 5)
    assert "does not run as" in await whois(answers, messages.REPORTS, CREW, 6)


@pytest.mark.parametrize(("name", "pid", "uid", "reason"), [
    ("tcp", CREW, 5, "no socket that crews may dial"), ("other", CREW, 5, "no socket that crews may dial"),
    ("orders", CREW - 1, 5, "is no crew's"),          # no mark, outside of the slice, or gone
    ("orders", CREW + 1, 5, "is no crew's"),          # a mark that nobody was given
    ("orders", CREW + 2, 5, "is no crew's"),          # in the slice, of no start
    ("orders", CREW, 6, "does not run as"),           # the number went to a process of the workload's after the connect
])
async def test_who_cannot_be_told_is_nobody(answers: Answers, name: str, pid: int, uid: int, reason: str) -> None:
    assert reason in await whois(answers, name, pid, uid)
