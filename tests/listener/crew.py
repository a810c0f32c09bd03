"""Run by the crew's Python, with nothing of Weir on its path but weir-crewai: crewai as it is, a script in place of the
model, and tools that ask what the door was told.

    python crew.py SOCKET MODE
"""
from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import sys
import threading
import time

for name in ("CREWAI_DISABLE_TELEMETRY", "CREWAI_DISABLE_TRACKING", "CREWAI_DISABLE_VERSION_CHECK",
             "OTEL_SDK_DISABLED"):
    os.environ[name] = "true"
os.environ["CREWAI_TRACING_ENABLED"] = "false"
os.environ["WEIR_REPORTS"] = sys.argv[1]

listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[1])
listening.listen()

# ruff: noqa: E402  (it attaches when it is imported)
import weir_crewai
from crewai import Agent, Crew, Task
from crewai.events import ToolUsageStartedEvent, crewai_event_bus
from crewai.events.base_events import BaseEvent
from crewai.llms.base_llm import BaseLLM
from crewai.tools import tool

link, _ = listening.accept()
link.setblocking(False)
kept = b""
told: list[tuple[str, list]] = []
at_once = threading.Barrier(2, timeout=20)


def heard(who: str) -> None:
    """What Weir could know at this moment: the last frame that has been written."""
    global kept
    try:
        while data := link.recv(65536):
            kept += data
    except BlockingIOError:
        pass
    last = None
    while len(kept) >= 4 and len(kept) >= 4 + struct.unpack_from("<I", kept)[0]:
        size = struct.unpack_from("<I", kept)[0]
        last, kept = json.loads(kept[4:4 + size])["calls"], kept[4 + size:]
    told.append((who, last))


@tool("alone")
def alone(q: str) -> str:
    """Alone."""
    heard("alone")
    return "ok"


@tool("first")
def first(q: str) -> str:
    """One of two."""
    at_once.wait()
    heard("first")
    at_once.wait()
    return "ok"


@tool("second")
def second(q: str) -> str:
    """The other."""
    at_once.wait()
    at_once.wait()
    return "ok"


@tool("fails")
def fails(q: str) -> str:
    """Fails."""
    heard("fails")
    raise ValueError("no")


class Mind(BaseLLM):
    def __init__(self, *script: object) -> None:
        super().__init__(model="scripted")
        self._script = list(script)

    def call(self, messages, tools=None, callbacks=None, available_functions=None, from_task=None, from_agent=None,
             response_model=None):
        step = self._script.pop(0) if self._script else "done"
        if isinstance(step, str):
            return step
        return [{"id": f"c{n}", "type": "function", "function": {"name": name, "arguments": '{"q": "x"}'}}
                for n, name in enumerate(step)]

    def supports_function_calling(self) -> bool:
        return True

    def get_context_window_size(self) -> int:
        return 8192


def make(*script: object, tasks: int = 1) -> Crew:
    agent = Agent(role="Analyst", goal="g", backstory="b", tools=[alone, first, second, fails], llm=Mind(*script))
    return Crew(agents=[agent], name="shop", tasks=[
        Task(name=f"t{n}", description="d", expected_output="x", agent=agent) for n in range(1, tasks + 1)])


def busy() -> None:
    """The bus' pool is full, so that what its handlers would tell comes too late."""
    held = threading.Event()

    class Other(BaseEvent):
        type: str = "other"

    crewai_event_bus.on(Other)(lambda source, event: held.wait(5))
    for _ in range(10):
        crewai_event_bus.emit(None, Other())


def run(mode: str) -> None:
    if mode == "sync":
        make(["alone"], "fine", ["first", "second"], ["fails"], "fine", tasks=2).kickoff()
    elif mode == "async":
        asyncio.run(make(["alone"], ["first", "second"], ["fails"], "fine").kickoff_async())
    elif mode == "thread":
        busy()
        crew = make(["alone"], ["first", "second"], ["fails"], "fine")
        one = threading.Thread(target=crew.kickoff)
        one.start()
        one.join()
    elif mode == "text":
        agent = Agent(role="Analyst", goal="g", backstory="b", tools=[alone], llm=Text())
        Crew(agents=[agent], name="shop", tasks=[
            Task(name="t1", description="d", expected_output="x", agent=agent)]).kickoff()
    elif mode == "speed":
        reporter = weir_crewai.attach()
        event = ToolUsageStartedEvent(tool_name="x", tool_args={})
        began = time.perf_counter()
        for number in range(1000):
            event.event_id, event.type = str(number), "tool_usage_started"
            reporter.sink(None, event)
            event.event_id, event.type, event.started_event_id = f"e{number}", "tool_usage_finished", str(number)
            reporter.sink(None, event)
            heard("")
        told[:] = [("speed", (time.perf_counter() - began) / 1000)]  # type: ignore[list-item]
    heard("end")


class Text(Mind):
    """A model that knows no function calls: ReAct, by text."""

    def __init__(self) -> None:
        super().__init__("Thought: x\nAction: alone\nAction Input: {\"q\": \"x\"}", "Thought: x\nFinal Answer: done")

    def supports_function_calling(self) -> bool:
        return False


run(sys.argv[2])
print("TOLD " + json.dumps(told), flush=True)
