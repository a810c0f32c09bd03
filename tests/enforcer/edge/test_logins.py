"""Sessions end with the login that they speak for, also those that are just being opened."""
from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest

from agent.contract import messages
from agent.contract.locks import LockSet
from agent.contract.owner import Owner
from agent.contract.target import Egress, Target
from enforcer.edge import edge as module
from enforcer.edge.channel import Channel, open_channel
from enforcer.edge.edge import Configuration, Edge
from enforcer.words import events
from enforcer.words.decisions import DENY

TARGET = Target("orders", "postgresql", ("db.edge.example",), 5432, ("127.0.0.1",))


@dataclass
class Live:
    """A session, as far as the edge knows it."""

    name: str
    login: str
    ended: list[str] = field(default_factory=list)

    @property
    def owner(self) -> Owner:
        return owner(self.login)

    def end(self, reason: str, finish: bool = False) -> None:
        assert finish, "what runs may finish"
        self.ended.append(reason)


def edge() -> Edge:
    made: Any = Edge(asyncio.get_running_loop(), None)  # type: ignore[arg-type]
    made.configuration = Configuration({}, {}, None, b"", 100, "none")  # type: ignore[arg-type]
    made.commit = type("Commit", (), {"failure": ""})()
    return made  # type: ignore[no-any-return]


def owner(login: str) -> Owner:
    return Owner("crew", 5, "games", "corp:ada", (), None, "", 0, "192.0.2.4", 5432, "mark", login=login)


async def test_only_what_speaks_for_it_ends() -> None:
    one = edge()
    ada, eve, local = Live("a", "s1.1"), Live("b", "s2.1"), Live("c", "")
    for live in (ada, eve, local):
        one.add(live)  # type: ignore[arg-type]
    one.end_login("s1.1", "logged out")
    assert (ada.ended, eve.ended, local.ended) == (["logged out"], [], [])


async def test_what_becomes_a_session_late_is_refused() -> None:
    one = edge()
    one.end_login("s1.1", "logged out")
    assert one.barred(owner("s1.1")) == ("login-ended", "logged out")
    assert one.barred(owner("s1.2")) == one.barred(owner("")) == ("", "")
    denied = one.context(owner("s1.1"), TARGET).gate.decide(None, ())  # type: ignore[arg-type]
    assert (denied.outcome, denied.reason) == (DENY, "logged out")


async def test_the_local_users_have_no_login_that_could_end() -> None:
    one = edge()
    one.end_login("", "mistaken")
    local = Live("a", "")
    one.add(local)  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert (one.barred(owner("")), local.ended) == (("", ""), [])


async def test_the_ended_are_remembered_in_bounds() -> None:
    one = edge()
    for number in range(module.LOGINS + 10):
        one.end_login(f"s{number}.1", "x")
    assert len(one.ended) == module.LOGINS
    assert one.barred(owner(f"s{module.LOGINS + 9}.1"))[1] == "x"


async def test_the_agent_says_so_over_the_channel() -> None:
    mine, theirs = socket.socketpair()
    one = edge()
    channel = Channel(None, None)  # type: ignore[arg-type]
    channel.edge = one
    await open_channel(theirs.detach(), channel)
    reader, writer = await asyncio.open_unix_connection(sock=mine)
    live = Live("a", "s1.1")
    one.add(live)  # type: ignore[arg-type]
    writer.write(messages.render_frame(messages.EndLogin(7, "s1.1", "logged out")))
    size = messages.parse_length(await reader.readexactly(4))
    assert messages.parse_from_enforcer(await reader.readexactly(size)) == messages.Done(7)
    assert live.ended == ["logged out"]
    writer.close()
    await channel.closed.wait()


WHY = "the login that it was started with has ended: weir login, and start it again"


@pytest.mark.parametrize("mode", ["", "shadow", "record"])
@pytest.mark.parametrize("where", ["target", "egress"])
def test_behind_whom_nobody_is_reaches_nothing_and_is_told_why(house, where: str, mode: str) -> None:
    reached: list[int] = []

    async def server(reader: Any, writer: Any) -> None:
        reached.append(1)
        writer.close()

    async def work() -> None:
        upstream = await house.serve(server)
        at_target = house.target(upstream, tls="disable") if where == "target" else None
        port = await house.open(at_target, Egress("model", ("127.0.0.1",), (upstream,)))
        house.edge.configuration = replace(house.edge.configuration, modes={"crew": mode} if mode else {})
        mine = house.owner(upstream, **({"target": "orders"} if at_target else {"egress": "model"}))
        house.asked.owner = msgspec.structs.replace(mine, subject="", groups=(), nobody=WHY, listed=True)
        process = await asyncio.create_subprocess_exec(
            "psql", "-X", f"host=127.0.0.1 port={port} user=u dbname=d sslmode=disable", "-c", "select 1",
            stderr=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PGPASSWORD": "x"})
        out, err = await process.communicate()
        assert (process.returncode, out) == (2, b"")
        assert (WHY.encode() in err) is (where == "target"), err
        while house.edge.live or house.edge.arriving:
            await asyncio.sleep(0.01)
        await house.close()
        refused = [event for event in house.journal.events() if event[0] == events.REFUSED]
        assert [(event[3], event[4], WHY in event[9], event[11]) for event in refused] == [("crew", "", True, 99)]
        assert reached == []

    house.play(work, 60)


async def test_who_resolves_names_is_told_that_somebody_may_be_barred() -> None:
    told: list[str] = []
    one = edge()
    one.barring = lambda: told.append("")
    one.end_login("", "mistaken")
    assert not told
    one.end_login("s1.1", "logged out")
    one.lock(LockSet(1, ()))
    assert len(told) == 2
