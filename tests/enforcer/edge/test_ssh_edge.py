"""SSH through the Edge: OpenSSH's clients, a real sshd, and what is behind its tunnels."""
from __future__ import annotations

from collections.abc import Iterator

import pytest
from sshhouse import Server, Stage, play, run_server

from enforcer.words import events


@pytest.fixture(scope="session")
def sshd() -> Iterator[Server]:
    with run_server() as server:
        yield server


@pytest.fixture
def stage(house, sshd: Server) -> Stage:
    return Stage(house, sshd)


def test_a_command(stage: Stage) -> None:
    async def work() -> None:
        done = await stage.exec("id -un; cat; echo oops >&2; exit 7", stdin=b"hello\n")
        assert (done.code, done.out, done.err) == (7, b"deploy\nhello\n", "oops\n")
        await stage.until(lambda: stage.events(events.SessionClosed))
        assert stage.results() == [("ok", "exit 7")]
        assert stage.reasons() == ["client closed"]
        (opened,) = stage.events(events.SessionOpened)
        assert opened["target"] == "ssh"

    play(stage, work)
