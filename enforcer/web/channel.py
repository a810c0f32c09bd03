"""Edge: the web process' end of the agent's channel, frames of agent.contract.web."""
from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from agent.contract import web as messages
from enforcer.frames import Frames, connect

ASK: Final = 60.0                     # seconds: a login asks its provider more than once
MOST: Final = 128                     # questions at a time
_Answer = TypeVar("_Answer", bound=messages.Message)
News = messages.Changed | messages.Over


class NoAnswer(Exception):
    """The agent does not answer, or not this."""


class Channel(Frames):
    """`configure` puts a Configure in force and gives what is wrong with it, or ""; `news` takes what comes unasked.
    `closed` is set when the agent is gone."""

    contract = messages

    def __init__(self, configure: Callable[[messages.Configure], str], news: Callable[[News], None]) -> None:
        super().__init__()
        self._configure, self._news = configure, news
        self._number = 0
        self._asked: dict[int, asyncio.Future[messages.Message]] = {}
        self._turn = asyncio.Semaphore(MOST)

    async def ask(self, question: messages.Question, wanted: type[_Answer]) -> _Answer:
        """Whatever number it has, it is given its own.  Raises NoAnswer."""
        async with self._turn:
            if self._transport is None:
                raise NoAnswer("the agent does not answer")
            self._number += 1
            number = self._number
            future = self._asked[number] = asyncio.get_running_loop().create_future()
            try:
                frame = messages.render_frame(msgspec.structs.replace(question, number=number), messages.ASKED)
                self._transport.write(frame)
                async with asyncio.timeout(ASK):
                    found = await future
            except (TimeoutError, ValueError):
                raise NoAnswer("the agent does not answer") from None
            finally:
                del self._asked[number]
        if not isinstance(found, wanted):
            raise NoAnswer("the agent answered something else")
        return found

    def connection_lost(self, error: Exception | None) -> None:
        for future in self._asked.values():
            if not future.done():
                future.set_exception(NoAnswer("the agent is gone"))
        super().connection_lost(error)

    def take(self, message: messages.FromAgent) -> None:
        if isinstance(message, messages.Ping):
            self.send(messages.Pong(message.number))
        elif isinstance(message, messages.Configure):
            self.send(messages.Done(message.number, self._configure(message)[:1000]))
        elif isinstance(message, News):
            self._news(message)
        elif (future := self._asked.get(message.number)) is not None and not future.done():
            future.set_result(message)


async def open_channel(descriptor: int, channel: Channel) -> None:
    await connect(channel, descriptor)
