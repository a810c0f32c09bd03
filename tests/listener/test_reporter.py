"""What the listener keeps and tells, without crewai: any order of events, a Weir that is not there, slow, or gone."""
from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.core.reports import CALLS, LIMIT, Frames, parse_report
from enforcer.words.reported import Call
from listener.door import Door


def event(kind: str, number: str, **more: Any) -> Any:
    return SimpleNamespace(**{
        "type": kind, "event_id": number, "started_event_id": None, "task_id": "T", "task_name": "t1",
        "agent_role": "Analyst", "agent_key": "k", "tool_name": "sql", **more})


def started(number: int, **more: Any) -> Any:
    return event("tool_usage_started", f"s{number}", **more)


def ended(number: int, kind: str = "finished", **more: Any) -> Any:
    return event(f"tool_usage_{kind}", f"e{number}", started_event_id=f"s{number}", **more)


@pytest.fixture
def make(listener: ModuleType) -> Iterator[Maker]:
    made: list[Any] = []

    def new(path: object) -> Any:
        made.append(listener.Reporter(str(path)))
        return made[-1]

    yield new
    for one in made:
        one.close()


Maker = Callable[[object], Any]
SOURCE = SimpleNamespace(crew=SimpleNamespace(name="shop"))


def active(reporter: Any) -> int:
    return len(parse_report(reporter._frame()[4:]))


def test_one_call_by_its_names(make: Maker, door: Door) -> None:
    reporter = make(door.path)
    reporter.sink(SOURCE, started(1))
    assert door.last() == (Call("shop", "Analyst", "t1", "sql"),)
    reporter.sink(SOURCE, ended(1, "error"))
    assert door.last() == ()


def test_names_that_are_not_there_or_long(make: Maker, door: Door) -> None:
    reporter = make(door.path)
    reporter.sink(object(), started(1, agent_role=None, task_name="x" * 500, tool_name="\ud800"))
    assert door.last() == (Call("", "k", "x" * 128, " "),)


@given(st.data())
def test_any_interleaving_gives_what_is_active(listener: ModuleType, data: st.DataObject) -> None:
    """Threads emit in any order; each event comes by the sink, by the bus' pool, or by both, the pool in any order."""
    reporter = listener.Reporter("/nowhere")
    count = data.draw(st.integers(1, 6))
    order = data.draw(st.permutations([n for n in range(count) for _ in (0, 1)]))
    by_sink = [data.draw(st.booleans()) for _ in range(count)]      # in whose context there is one
    begun: set[int] = set()
    now: set[int] = set()
    pool: list[Any] = []
    for number in order:
        one = ended(number) if number in begun else started(number)
        (now.discard if number in begun else now.add)(number)
        begun.add(number)
        if by_sink[number]:
            reporter.sink(SOURCE, one)
        pool.append(one)
        while pool and data.draw(st.booleans()):
            reporter.handler(SOURCE, pool.pop(data.draw(st.integers(0, len(pool) - 1))))
        assert active(reporter) >= len({n for n in now if by_sink[n]})
        if all(by_sink):
            assert active(reporter) == len(now)
    for one in data.draw(st.permutations(pool)):
        reporter.handler(SOURCE, one)
    assert active(reporter) == 0


def test_an_end_that_names_another_beginning(make: Maker) -> None:
    """CrewAI's scopes may be mixed up where a tool of an LLM fails: nothing stays active for ever."""
    reporter = make("/nowhere")
    reporter.sink(SOURCE, started(1))
    reporter.sink(SOURCE, started(2, tool_name="other"))
    reporter.sink(SOURCE, event("tool_usage_error", "e1", started_event_id="an LLM call's"))
    assert [names[3] for _, _, names in reporter._calls.values()] == ["other"]
    reporter.sink(SOURCE, event("task_completed", "tc", task_id="another"))
    assert active(reporter) == 1
    reporter.sink(SOURCE, event("task_failed", "tf"))
    assert active(reporter) == 0


def test_more_than_are_told(listener: ModuleType, make: Maker) -> None:
    reporter = make("/nowhere")
    for number in range(2000):
        reporter.sink(SOURCE, started(number, task_name="\U0001f600" * 500, agent_role='"' * 500))
    assert active(reporter) == CALLS
    assert len(reporter._frame()) < LIMIT
    assert len(reporter._calls) == listener.KNOWN


def test_where_weir_is_not(make: Maker, tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        reporter = make(path)
        reporter.sink(SOURCE, started(1))
        assert reporter._link is None


def test_events_that_are_none(make: Maker) -> None:
    reporter = make("/nowhere")
    for one in (None, object(), event("tool_usage_started", []), SimpleNamespace(type="tool_usage_started")):  # type: ignore[arg-type]
        reporter.sink(SOURCE, one)
        reporter.handler(SOURCE, one)


def test_weir_that_comes_back_is_told_all(
    listener: ModuleType, make: Maker, door: Door, monkeypatch: pytest.MonkeyPatch,
) -> None:
    reporter = make(door.path)
    reporter.sink(SOURCE, started(1))
    assert door.last() is not None
    door.hang_up()
    monkeypatch.setattr(listener, "AGAIN", 0.0)
    reporter._next = 0.0
    reporter.sink(SOURCE, started(2, tool_name="other"))
    assert [one.tool for one in door.last() or ()] == ["sql", "other"]


def test_it_does_not_try_again_and_again(make: Maker, door: Door) -> None:
    reporter = make(door.path)
    for number in range(50):
        reporter.sink(SOURCE, started(number))
        assert door.connections <= 1
        door.hang_up()


def test_weir_that_does_not_read_is_not_waited_for(
    make: Maker, slow_socket: socket.socket, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half a frame is worth nothing: it is hung up, and the next connection begins with a whole one."""
    reporter = make(slow_socket.getsockname())
    began = time.monotonic()
    for number in range(3000):
        reporter.sink(SOURCE, started(number, task_name="x" * 128))
        if reporter._link is None:
            break
    assert reporter._link is None
    assert time.monotonic() - began < 10
    reporter._next = 0.0
    reporter.tell()
    slow_socket.accept()[0].close()
    link, _ = slow_socket.accept()
    with link:
        assert Frames().feed(link.recv(1 << 20))[0] == 1


def test_a_fork_reports_for_itself(make: Maker, door: Door) -> None:
    reporter = make(door.path)
    reporter.sink(SOURCE, started(1))
    assert door.last() is not None
    child = os.fork()
    if child == 0:
        try:
            reporter.forked()
            ok = reporter._link is None and not reporter._calls
            reporter.sink(SOURCE, started(2, tool_name="child's"))
            os._exit(0 if ok else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [one.tool for one in door.last() or ()] == ["child's"]
    assert door.connections == 2
    reporter.sink(SOURCE, ended(1))
    assert door.last() == ()
