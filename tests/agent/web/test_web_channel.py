"""The agent's end of the web process' channel: what it may say, and what ends it."""
from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from agent.channel import ChannelError
from agent.contract import web as asked
from agent.web.process import WebChannel


class There:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.questions: list[Any] = []

    async def answer(self, question: asked.Question) -> asked.Message:
        self.questions.append(question)
        if isinstance(question, asked.Logout):
            raise RuntimeError("SECRET")
        if isinstance(question, asked.AskWho):
            await asyncio.Event().wait()
        return asked.Answered(question.number)

    def say(self, message: asked.Message) -> None:
        self.sock.sendall(asked.render_frame(message))

    async def hears(self) -> Any:
        loop = asyncio.get_running_loop()
        (size,) = struct.unpack("<I", await loop.sock_recv(self.sock, 4))
        return asked.parse_from_agent(await loop.sock_recv(self.sock, size))


@pytest.fixture
async def pair() -> AsyncIterator[tuple[WebChannel, There]]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    there = There(theirs)
    channel = await WebChannel.connect(ours, there.answer)
    with theirs:
        yield channel, there
        channel.close()
        await asyncio.sleep(0)


async def test_a_question_and_its_answer(pair: tuple[WebChannel, There]) -> None:
    channel, there = pair
    there.say(asked.Decide(5, "s" * 43, "abcdefgh", True))
    assert await there.hears() == asked.Answered(5)
    assert "sss" not in repr(there.questions)
    task = asyncio.ensure_future(channel.ask(asked.Ping, asked.Pong))
    ping = await there.hears()
    there.say(asked.Pong(ping.number))
    assert (await task).number == ping.number


@pytest.mark.parametrize("raw", [
    b"\xff\xff\xff\xff", struct.pack("<I", asked.ASKED + 1), struct.pack("<I", 3) + b"abc",
    asked.render_frame(asked.Configure(1, "https://x")), asked.render_frame(asked.Decide(1, "s" * 44, "t", True)),
    asked.render_frame(asked.Came(1, "other", "x", "GET")), asked.render_frame(asked.Came(1, "slack", "x", "PUT")),  # type: ignore[arg-type]
    asked.render_frame(asked.Came(1, "slack", "x", "POST", headers=(("a", "b"),) * 17)),
    asked.render_frame(asked.Came(1, "slack", "x", "POST", body=b"x" * (asked.FORM + 1))),
    asked.render_frame(asked.Admit(1, 0, "a" * 65)), asked.render_frame(asked.Admit(1, 0, "a", 1 << 16)),
    asked.render_frame(asked.FinishLogin(1, "s", "corp", "q" * (asked.QUERY + 1))),
    asked.render_frame(asked.Kill(1, "s", "x", "r" * 1025)), asked.render_frame(asked.AskLink(1, "t" * 1025)),
], ids=range(14))
async def test_what_is_no_message_ends_it(pair: tuple[WebChannel, There], raw: bytes) -> None:
    channel, there = pair
    await asyncio.get_running_loop().sock_sendall(there.sock, raw)
    async with asyncio.timeout(5):
        await channel.closed.wait()
    assert there.questions == []
    with pytest.raises(ChannelError):
        await channel.ask(asked.Ping, asked.Pong)


async def test_an_answer_that_nobody_awaits_is_nothing_and_another_ends_it(pair: tuple[WebChannel, There]) -> None:
    channel, there = pair
    there.say(asked.Pong(77))
    task = asyncio.ensure_future(channel.ask(asked.Ping, asked.Pong))
    there.say(asked.Done((await there.hears()).number))
    with pytest.raises(ChannelError, match="something else"):
        await task
    assert channel.closed.is_set()


async def test_a_bug_of_the_agents_ends_it_and_says_nothing(
    pair: tuple[WebChannel, There], caplog: pytest.LogCaptureFixture,
) -> None:
    channel, there = pair
    there.say(asked.Logout(1, "s" * 43))
    async with asyncio.timeout(5):
        await channel.closed.wait()
    assert "RuntimeError" in caplog.text
    assert "SECRET" not in caplog.text


async def test_floods_wait_unread(pair: tuple[WebChannel, There]) -> None:
    channel, there = pair
    sent = 0
    frame = asked.render_frame(asked.AskWho(1, "s" * 43))
    try:
        async with asyncio.timeout(1):
            while True:
                await asyncio.get_running_loop().sock_sendall(there.sock, frame * 100)
                sent += 100
                await asyncio.sleep(0)
    except TimeoutError:
        pass
    assert sent > WebChannel.at_once
    assert len(channel._answering) <= WebChannel.at_once
    assert not channel.closed.is_set()


async def test_more_than_there_is_room_for_is_answered_in_the_end(pair: tuple[WebChannel, There]) -> None:
    _, there = pair
    many = 3 * WebChannel.at_once
    await asyncio.get_running_loop().sock_sendall(
        there.sock, b"".join(asked.render_frame(asked.Watch(number, True)) for number in range(many)))
    async with asyncio.timeout(10):
        assert {(await there.hears()).number for _ in range(many)} == set(range(many))


async def test_long_answers_that_many_want_at_once_go_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(WebChannel, "unread", 1 << 19)

    async def answer(question: Any) -> asked.Message:
        return asked.Recorded(question.number, b"x" * (1 << 18))

    channel = await WebChannel.connect(ours, answer)
    reader, writer = await asyncio.open_connection(sock=theirs)
    writer.write(b"".join(asked.render_frame(asked.ListHolds(number, "s" * 43)) for number in range(100)))
    async with asyncio.timeout(10):
        for _ in range(100):
            await asyncio.sleep(0)
            await reader.readexactly(struct.unpack("<I", await reader.readexactly(4))[0])
    assert not channel.closed.is_set()
    channel.close()
    writer.close()


async def test_who_does_not_read_is_ended(pair: tuple[WebChannel, There], monkeypatch: pytest.MonkeyPatch) -> None:
    channel, _ = pair
    monkeypatch.setattr(WebChannel, "unread", 1 << 16)
    big = asked.Recorded(1, b"x" * (1 << 18))
    for _ in range(4):
        channel.send(big)
    assert channel.closed.is_set()
    assert channel.reason == "it does not read"


def test_what_holds_secrets_is_never_printed() -> None:
    for one in (asked.Configure(1, "https://x", key="SECRET"), asked.Begun(1, secret="SECRET", url="SECRET"),
                asked.Opened(1, secret="SECRET"), asked.AskWho(1, "SECRET"), asked.Decide(1, "SECRET", "t", True),
                asked.FinishLogin(1, "SECRET", "corp", "SECRET"), asked.FinishSaml(1, "corp", "SECRET", b"SECRET"),
                asked.Came(1, "slack", "x", "POST", body=b"SECRET"), asked.AskLink(1, "SECRET"),
                asked.AnswerLink(1, "SECRET")):
        assert "SECRET" not in repr(one)
        assert msgspec.msgpack.encode(one)
