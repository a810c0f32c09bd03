"""The agent's end of pages of the recording: each answer to whom it belongs, bounded in number and time."""
from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
import pytest

from agent import services
from agent.contract.ledger import PAGES, AskLedger, AskRecording, LedgerAnswer, RecordingAnswer
from agent.services import Recorder
from enforcer.recording.answering import Door


class Slow:
    """Pages that come when they are let."""

    def __init__(self) -> None:
        self.asked: list[AskRecording] = []
        self.made: list[RecordingAnswer] = []

    def ask(self, question: AskRecording) -> None:
        self.asked.append(question)

    def take(self) -> RecordingAnswer | None:
        return self.made.pop(0) if self.made else None

    def close(self) -> None:
        pass


@contextmanager
def door(descriptor: int, pages: Slow) -> Iterator[None]:
    made = Door(descriptor, lambda question: LedgerAnswer(question.number, (), 0, {}, {}, ()), pages)
    over = threading.Event()

    def turn() -> None:
        while not over.is_set():
            made.turn()
            time.sleep(0.002)

    thread = threading.Thread(target=turn)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        made.close()


@asynccontextmanager
async def asking(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Recorder, Slow, list[LedgerAnswer]]]:
    monkeypatch.setattr(services, "PING_EVERY", 0.05)
    told: list[LedgerAnswer] = []

    async def tell(answer: LedgerAnswer) -> None:
        told.append(answer)

    service = Recorder("nobody", Path("/nowhere"), lambda name, detail: None, lambda: None, (),
                       lambda number: AskLedger(number, 0), tell)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    pages, ended = Slow(), asyncio.get_running_loop().create_task(asyncio.sleep(60, 0))
    with theirs, door(os.dup(theirs.fileno()), pages):
        running = asyncio.get_running_loop().create_task(service._ask(ours, ended))
        await asyncio.sleep(0.1)
        try:
            yield service, pages, told
        finally:
            ended.cancel()
            await asyncio.gather(running, ended, return_exceptions=True)


QUESTION = AskRecording(0, "sessions", "keycloak:eve")


async def test_each_answer_to_its_question_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asking(monkeypatch) as (service, pages, told):
        both = [asyncio.create_task(service.page(msgspec.structs.replace(QUESTION, name=name))) for name in "ab"]
        while len(pages.asked) < 2:
            await asyncio.sleep(0.01)
        before = len(told)
        while len(told) < before + 2:     # the ledger goes on meanwhile
            await asyncio.sleep(0.01)
        pages.made += [RecordingAnswer(one.number, one.name.encode()) for one in reversed(pages.asked)]
        assert [one.content for one in await asyncio.gather(*both)] == [b"a", b"b"]


async def test_no_more_at_a_time_than_the_recorder_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asking(monkeypatch) as (service, _, _):
        waiting = [asyncio.create_task(service.page(QUESTION)) for _ in range(PAGES)]
        await asyncio.sleep(0.05)
        assert (await service.page(QUESTION)).wrong == "too many ask for the recording: try again"
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_what_does_not_come_in_time_is_said_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "PAGE_WAIT", 0.1)
    async with asking(monkeypatch) as (service, pages, told):
        assert (await service.page(QUESTION)).wrong == "the recorder has much to do: try again"
        pages.made.append(RecordingAnswer(pages.asked[0].number, b"late"))
        before = len(told)
        while len(told) < before + 2:
            await asyncio.sleep(0.01)
        assert service._pages == {}


async def test_without_a_recorder_there_is_no_page() -> None:
    async def tell(answer: LedgerAnswer) -> None:
        raise AssertionError

    service = Recorder("nobody", Path("/nowhere"), lambda name, detail: None, lambda: None, (),
                       lambda number: AskLedger(number, 0), tell)
    assert (await service.page(QUESTION)).wrong == "the recorder is not running"
