"""A crew with Weir's listener: one import more than it would have otherwise.  A script in place of the model.

    python reporting_crew.py DATABASE_URI
"""
from __future__ import annotations

import json
import os
import sys
import threading

for name in ("CREWAI_DISABLE_TELEMETRY", "CREWAI_DISABLE_TRACKING", "CREWAI_DISABLE_VERSION_CHECK",
             "OTEL_SDK_DISABLED"):
    os.environ[name] = "true"
os.environ["CREWAI_TRACING_ENABLED"] = "false"

# ruff: noqa: E402  (crewai reads them when it is imported)
import psycopg2
import weir_crewai  # noqa: F401
from crewai import Agent, Crew, Task
from crewai.llms.base_llm import BaseLLM
from crewai.tools import tool

STEPS = (["read_orders"], ["first", "second"], ["clean_up"], ["tidy"], "done")
both = threading.Barrier(2, timeout=60)
said: dict[str, str] = {}


def ask(who: str, sql: str) -> str:
    connection = psycopg2.connect(sys.argv[1])
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(sql)
            said[who] = "ok"
    except psycopg2.Error as error:
        said[who] = str(error).splitlines()[0]
    finally:
        connection.close()
    return said[who]


@tool("read_orders")
def read_orders() -> str:
    """Alone."""
    return ask("read_orders", "SELECT 'read_orders', count(*) FROM orders")


@tool("first")
def first() -> str:
    """At the same time as the second."""
    both.wait()
    answer = ask("first", "SELECT 'first', count(*) FROM orders")
    both.wait()
    return answer


@tool("second")
def second() -> str:
    """At the same time as the first; would remove something too."""
    both.wait()
    answer = ask("second", "DELETE FROM scratch WHERE false AND 'second' = 'second'")
    both.wait()
    return answer


@tool("clean_up")
def clean_up() -> str:
    """May remove."""
    return ask("clean_up", "DELETE FROM scratch WHERE false AND 'clean_up' = 'clean_up'")


@tool("tidy")
def tidy() -> str:
    """May not."""
    return ask("tidy", "DELETE FROM scratch WHERE false AND 'tidy' = 'tidy'")


class Mind(BaseLLM):
    def __init__(self) -> None:
        super().__init__(model="scripted")
        self._left = list(STEPS)

    def call(self, messages, tools=None, callbacks=None, available_functions=None, from_task=None, from_agent=None,
             response_model=None):
        step = self._left.pop(0) if self._left else "done"
        if isinstance(step, str):
            return step
        return [{"id": f"c{n}", "type": "function", "function": {"name": name, "arguments": "{}"}}
                for n, name in enumerate(step)]

    def supports_function_calling(self) -> bool:
        return True

    def get_context_window_size(self) -> int:
        return 8192


agent = Agent(role="Shop analyst", goal="g", backstory="b", tools=[read_orders, first, second, clean_up, tidy],
              llm=Mind())
Crew(agents=[agent], name="shop", tasks=[
    Task(name="orders", description="Look after the orders.", expected_output="x", agent=agent)]).kickoff()
print("SAID " + json.dumps(said), flush=True)
