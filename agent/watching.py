"""Who is told that holds or sessions have changed: the enforcer speaks of it while somebody wants to know."""
from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from agent.channel import ChannelError, EnforcerChannel
from agent.contract.messages import Changed, Done, WatchChanges

LOG = logging.getLogger("weir.watching")

EVERYTHING: Final = Changed(holds=True, sessions=True)
News = Callable[[Changed], None]


class Watching:
    """`channel` gives the enforcer's, or raises ChannelError."""

    def __init__(self, channel: Callable[[], EnforcerChannel]) -> None:
        self._channel = channel
        self._news: dict[str, News] = {}
        self._known: EnforcerChannel | None = None
        self._telling: asyncio.Task[None] | None = None

    def watch(self, name: str, news: News) -> None:
        """From now on `news` is told; whoever must know what is so now looks after this."""
        self._news[name] = news
        self._say()

    def leave(self, name: str) -> None:
        if self._news.pop(name, None) and not self._news:
            self._say()

    def began(self) -> None:
        """The enforcer runs, or does not: a new one knows of nobody, and what it holds is not what the last one did."""
        try:
            channel = self._channel()
        except ChannelError:
            self._known = None
            return
        if channel is not self._known:
            self._known = channel
            channel.news = self._changed
            self._say()
            self._changed(EVERYTHING)

    def _changed(self, message: Changed) -> None:
        for news in tuple(self._news.values()):
            news(message)

    def _say(self) -> None:
        if self._known is None:
            return
        if self._telling is None or self._telling.done():
            self._telling = asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        """One at a time, and at the end what holds then: how often a process of ours changes its mind is nothing to the
        enforcer."""
        told: tuple[EnforcerChannel, bool] | None = None
        while self._known is not None and told != (now := (self._known, bool(self._news))):
            told = now
            channel, on = now
            try:
                await channel.ask(lambda number, on=on: WatchChanges(number, on), Done)  # type: ignore[misc]
            except ChannelError as reason:
                LOG.error("the enforcer does not tell what changes: %s", reason)
