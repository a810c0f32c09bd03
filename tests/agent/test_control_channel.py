"""The agent's end of the enforcer's channel: split bytes, garbage, silence, floods."""
from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from agent import channel as channels
from agent.channel import ChannelError, EnforcerChannel
from agent.contract import messages


class Peer:
    """The enforcer's end, by hand."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.sock, data)

    async def message(self) -> messages.FromAgent:
        size = messages.parse_length(await self._exactly(4))
        return messages.parse_from_agent(await self._exactly(size))

    async def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = await self.loop.sock_recv(self.sock, size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data


@pytest.fixture
async def pair() -> AsyncIterator[tuple[EnforcerChannel, Peer, list[messages.Message]]]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    asked: list[messages.Message] = []

    async def answer(question: channels.Question) -> messages.Message:
        asked.append(question)
        if isinstance(question, messages.AskCredential):
            if question.target == "breaks":
                raise RuntimeError("secret")
            await asyncio.Event().wait()
        return messages.WhoisAnswer(question.number, None, "nobody")

    channel = await EnforcerChannel.open(ours, answer)
    with theirs:
        yield channel, Peer(theirs), asked
        channel.close()
        await asyncio.sleep(0)


Pair = tuple[EnforcerChannel, Peer, list[messages.Message]]


async def test_question_and_answer(pair: Pair) -> None:
    channel, peer, _ = pair
    waiting = asyncio.create_task(channel.ask(messages.Ping, messages.Pong))
    question = await peer.message()
    assert isinstance(question, messages.Ping)
    await peer.send(messages.render_frame(messages.Pong(question.number + 7)))      # nobody asked
    await peer.send(messages.render_frame(messages.Pong(question.number)))
    assert await waiting == messages.Pong(question.number)


async def test_every_cut_of_a_frame(pair: Pair) -> None:
    _, peer, asked = pair
    frame = messages.render_frame(messages.Whois(1, 9, 5, b"\0" * 16, 80))
    for byte in frame:
        await peer.send(bytes([byte]))
    assert isinstance(await peer.message(), messages.WhoisAnswer)
    await peer.send(frame * 3 + frame[:5])
    for _ in range(3):
        await peer.message()
    assert len(asked) == 4


async def test_no_answer_in_time(pair: Pair) -> None:
    channel, _, _ = pair
    with pytest.raises(ChannelError, match="did not answer"):
        await channel.ask(messages.Ping, messages.Pong, 0.01)
    assert not channel._asked


async def test_an_answer_of_another_kind_ends_it(pair: Pair) -> None:
    channel, peer, _ = pair
    waiting = asyncio.create_task(channel.ask(messages.ListHolds, messages.HoldsAnswer))
    await peer.send(messages.render_frame(messages.Pong((await peer.message()).number)))
    with pytest.raises(ChannelError, match="something else"):
        await waiting
    assert channel.closed.is_set()


@pytest.mark.parametrize("garbage", [
    b"\xff\xff\xff\xff", b"\x01\0\0\0\xc1", messages.render_frame(messages.Ping(1)),
    b"\x05\0\0\0hello", messages.render_frame(messages.Configured(1)).replace(b"Configured", b"Configurex"),
])
async def test_garbage_ends_it(pair: Pair, garbage: bytes) -> None:
    channel, peer, _ = pair
    waiting = asyncio.create_task(channel.ask(messages.Ping, messages.Pong))
    await peer.message()
    await peer.send(garbage)
    with pytest.raises(ChannelError):
        await waiting
    assert channel.closed.is_set()
    with pytest.raises(ChannelError, match="not running"):
        await channel.ask(messages.Ping, messages.Pong)


async def test_the_end_of_the_enforcer(pair: Pair) -> None:
    channel, peer, _ = pair
    waiting = asyncio.create_task(channel.ask(messages.Ping, messages.Pong))
    await peer.message()
    peer.sock.shutdown(socket.SHUT_RDWR)
    with pytest.raises(ChannelError):
        await waiting
    await channel.closed.wait()


async def test_a_bug_in_an_answer_ends_it_without_a_word_of_it(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    channel, peer, _ = pair
    await peer.send(messages.render_frame(messages.AskCredential(1, "breaks", "d", "r", ())))
    await channel.closed.wait()
    assert "secret" not in caplog.text


@pytest.mark.parametrize(("bound", "least"), [("at_once", 8), ("most", 100_000)])
async def test_a_flood_of_questions_waits_unread(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, bound: str, least: int,
) -> None:
    monkeypatch.setattr(EnforcerChannel, bound, least)
    _, peer, asked = pair
    flood = messages.render_frame(messages.AskCredential(1, "t", "d", "x" * 10_000, ())) * 200
    sending = asyncio.create_task(peer.send(flood))
    for _ in range(200):
        await asyncio.sleep(0)
    assert not sending.done()
    assert 8 <= len(asked) < 50
    sending.cancel()


@pytest.mark.parametrize("question", [
    messages.AskCredential(1, "x" * 1000, "d", "r", ()), messages.AskCredential(1, "t", "d" * 10_001, "r", ()),
    messages.AskCredential(1, "t", "d", "r" * 10_001, ()), messages.AskCredential(1, "t", "d", "r", ("g",) * 2000),
    messages.Whois(1, 9, 5, bytes(16), 1, "x" * 1000), messages.Whois(1, 9, 5, bytes(17), 1),
    messages.WhoAsks(1, 1, False, bytes(1 << 20), 1), messages.WhoisLocal(1, "x" * 1000, 1, 1),
    messages.NameAsked(1, "w", "n" * 2000, "A", "answered"), messages.NameAsked(1, "w", "n", "A" * 1000, "answered"),
    messages.NameAsked(1, "w", "n", "A", "answered", addresses=("",) * 2000),
    messages.NameAsked(1, "w", "n", "A", "refused", reason="x" * 2000),
], ids=lambda question: type(question).__name__)
async def test_a_question_that_holds_more_than_it_needs_ends_it(pair: Pair, question: messages.Message) -> None:
    channel, peer, asked = pair
    await peer.send(messages.render_frame(question))
    async with asyncio.timeout(5):
        await channel.closed.wait()
    assert not asked


async def test_who_does_not_read_its_answers_is_left(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EnforcerChannel, "unread", 100_000)
    channel, peer, _ = pair
    question = messages.render_frame(messages.Whois(1, 9, 5, b"\0" * 16, 80))
    async with asyncio.timeout(20):
        while not channel.closed.is_set():
            with suppress(ConnectionError):
                await peer.send(question * 100)
    assert channel._transport is None


async def test_what_does_not_fit_is_not_sent(pair: Pair) -> None:
    channel, _, _ = pair
    with pytest.raises(ChannelError, match="limit"):
        await channel.ask(lambda number: messages.EndSession(number, "s", "x" * messages.LIMIT), messages.Done)
    assert not channel.closed.is_set()
