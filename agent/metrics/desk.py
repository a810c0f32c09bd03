"""The metrics, as the agent has them: what their process asks is answered here, for whoever it let in.

Whether somebody may ask is settled by who connected, as at the page: no crew, whatever its uid.  However many ask, and
however often, the agent looks once at a time, and rests after it.
"""
from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

import msgspec

from agent.channel import ChannelError
from agent.contract import messages
from agent.contract import metrics as asked
from agent.contract.control import ServiceView, Status
from agent.contract.families import Sample
from agent.metrics.figures import Found, render_figures
from agent.metrics.places import look_at_disk, look_at_processes
from agent.metrics.process import MetricsProcess
from agent.status import health_of
from agent.web.listening import Admission, open_page
from agent.web.listing import Listing

if TYPE_CHECKING:
    from agent.supervisor import Agent

LOG = logging.getLogger("weir.metrics")

BESIDE: Final = "metrics"             # its cgroup
SECTION: Final = "[metrics]"
ANSWER: Final = 2.0                   # seconds that the enforcer may take: it may hang, and that is to be seen


class Metrics:
    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.process: MetricsProcess | None = None
        self._place: object = None            # what its listener was opened with
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._found, self._status = Listing(self._find), Listing(self._look)
        self._version = _version()
        self._answers: dict[type[Any], Callable[[Any], Awaitable[msgspec.Struct]]] = {
            asked.Admit: Admission(agent, BESIDE, BESIDE).admit, asked.AskHealth: self._health,
            asked.AskFigures: self._figures,
        }

    # the process

    def configured(self) -> None:
        """At the start, and after each reload."""
        self._spawn(self._configured())

    async def _configured(self) -> None:
        config = self._agent.config
        async with self._turn:
            if self.process is not None and config.metrics.listen != self._place:
                await self._end()
            self._place = config.metrics.listen
            if self._place is not None and self.process is None:
                self.process = MetricsProcess(
                    config.runtime.web_user, self._agent.own / BESIDE, self._agent.tell, self._agent.news,
                    lambda: open_page(config.metrics.place, config.metrics_socket, SECTION), self._answer)
                self.process.start()

    async def stop(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await self._end()

    async def _end(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            await process.stop()
            self._agent.config.metrics_socket.unlink(missing_ok=True)

    def view(self) -> ServiceView | None:
        return self.process.view() if self.process is not None else None

    def hints(self) -> tuple[str, ...]:
        """For the status."""
        if self.process is None or self.process.up:
            return ()
        return (f"the metrics cannot be read: their process is not up: {self.process.error}",)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # questions

    async def _answer(self, question: asked.Question) -> msgspec.Struct:
        return await self._answers[type(question)](question)

    async def _health(self, question: asked.AskHealth) -> asked.HealthAnswer:
        return asked.HealthAnswer(question.number, health_of(await self._status.get()))

    async def _figures(self, question: asked.AskFigures) -> asked.Figures:
        return asked.Figures(question.number, await self._found.get())

    async def _look(self) -> Status:
        status = await self._agent.questions.status()
        assert isinstance(status, Status)
        return status

    async def _find(self) -> tuple[Sample, ...]:
        agent, config = self._agent, self._agent.config
        status, figures = await asyncio.gather(self._look(), self._of_enforcer())
        services = {"enforcer": status.enforcer, "recorder": status.recorder, **{
            name: view for name, view in (("identity", status.identity), ("notify", status.notify),
                                          ("web", status.web), ("credentials", self._of_vaults()),
                                          (BESIDE, self.view())) if view is not None}}
        pids = {"agent": os.getpid(), "launcher": agent.launcher.pid,
                **{name: view.pid for name, view in services.items()}}
        usage, disk, authorities = await asyncio.gather(
            asyncio.to_thread(look_at_processes, {name: pid for name, pid in pids.items() if pid}),
            asyncio.to_thread(look_at_disk, config.journal, config.recordings),
            asyncio.to_thread(agent.rotation.authorities))
        answer = agent.ledger.answer
        return render_figures(Found(
            status, figures, agent.health.problems(), agent.health.holes, agent.ledger.view(),
            answer.gaps if answer is not None else 0, authorities, services, usage, disk, agent.reloads.counts,
            self._version, time.time_ns(), config.recording.journal_limit, config.recording.reserve))

    def _of_vaults(self) -> ServiceView | None:
        process = self._agent.vaults.process
        return process.view() if process is not None else None

    async def _of_enforcer(self) -> messages.Figures | None:
        try:
            return await self._agent.enforcer.channel.ask(messages.AskFigures, messages.Figures, ANSWER)
        except ChannelError:
            return None


def _version() -> str:
    try:
        return importlib.metadata.version("weir")
    except importlib.metadata.PackageNotFoundError:
        return "source"
