"""The real notify process as the agent's child would speak with it, and one that is broken."""
from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
from notify_lab import ADA, notice, slack_settings, until
from receivers import slack_receiver, webhook_receiver

from agent.channel import ChannelError
from agent.contract import notify as told
from agent.contract.notify import EVENTS, Webhook
from agent.notify.files import parse_secret
from agent.notify.process import News, NotifyChannel

SECRET = "whsec_" + "bGFi" * 8


class Child:
    def __init__(self) -> None:
        self.news: list[News] = []


@pytest.fixture
async def broken() -> AsyncIterator[tuple[NotifyChannel, socket.socket]]:
    ours, theirs = socket.socketpair()
    channel = await NotifyChannel.open(ours, lambda news: None)
    yield channel, theirs
    channel.close()
    theirs.close()


@pytest.mark.parametrize("raw", [
    struct.pack("<I", told.LIMIT + 1), struct.pack("<I", 3) + b"abc", struct.pack("<I", 1) + b"\xc0",
    told.render_frame(told.Ping(1)),
    struct.pack("<I", len(told.render_frame(told.Told("TOO-LONG!", told.Place("a", "b")))) - 4)
    + told.render_frame(told.Told("TOO-LONG!", told.Place("a", "b")))[4:]])
async def test_what_is_no_message_ends_it(broken: tuple[NotifyChannel, socket.socket], raw: bytes) -> None:
    channel, theirs = broken
    theirs.sendall(raw)
    await asyncio.wait_for(channel.closed.wait(), 5)
    with pytest.raises(ChannelError):
        await channel.ask(told.Ping, told.Pong)


async def test_another_answer_ends_it(broken: tuple[NotifyChannel, socket.socket]) -> None:
    channel, theirs = broken
    theirs.sendall(told.render_frame(told.Done(1)))
    with pytest.raises(ChannelError):
        await channel.ask(told.Ping, told.Pong, 0.5)


def test_secrets_are_not_printed() -> None:
    slack = slack_settings("https://slack.com/api", signing_secret="sesame")
    hook = Webhook("pager", "https://x/y?token=sesame", b"sesame", "", EVENTS, "summary")
    printed = repr((slack, hook, told.Configure(1, "h", slack, (hook,))))
    assert "sesame" not in printed
    assert slack.bot_token not in printed


async def test_the_process_itself() -> None:
    """As `nobody`, whom it may run as: told, pressed, answered, tested, ended."""
    ours, theirs = socket.socketpair()
    news: list[News] = []
    with slack_receiver() as slack, webhook_receiver() as hook:
        command = [sys.executable, "-m", "enforcer.notify.app", "--channel", str(theirs.fileno())]
        child = await asyncio.create_subprocess_exec(
            *command, pass_fds=(theirs.fileno(),), user="nobody", group="nogroup", extra_groups=[],
            stderr=subprocess.PIPE)
        theirs.close()
        channel = await NotifyChannel.open(ours, news.append)
        settings = Webhook("pager", hook.url, parse_secret(SECRET), "", EVENTS, "summary")
        configure = lambda number: told.Configure(number, "crewhost", slack_settings(slack.url), (settings,))  # noqa: E731
        assert (await channel.ask(configure, told.Done)).error == ""
        await channel.ask(lambda number: told.Put(number, (notice(),)), told.Done)
        await until(lambda: sum(isinstance(one, told.Told) for one in news) == 2)
        from receivers import press
        [place] = [one.place for one in news if isinstance(one, told.Told) and one.place.way.startswith("slack")]
        await until(lambda: slack.sockets)
        await asyncio.to_thread(slack.envelope, press(slack.of("chat.postMessage")[0], place.reference, ADA))
        [asked] = await until(lambda: [one for one in news if isinstance(one, told.Answer)])
        assert (asked.user, asked.ticket, asked.approve) == (ADA, "abcdefgh", True)
        channel.send(told.Answered(asked.number, "you may not"))
        await until(lambda: slack.of("chat.postEphemeral"))
        tried = await channel.ask(told.Try, told.Tried, 10)
        assert {one.way: one.error for one in tried.results} == {
            "slack": "", "slack C0LAB0000": "", "slack socket": "", "webhook pager": ""}
        assert (await channel.ask(told.Ping, told.Pong)).number
        channel.close()
        _, said = await asyncio.wait_for(child.communicate(), 10)
        assert child.returncode == 0, said
        assert b"xoxb" not in said
    assert (slack.wrong, hook.wrong) == ([], [])
