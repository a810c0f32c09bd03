"""A crew as its authors would write it: nothing in here knows of Weir.

    python shop_crew.py DATABASE_URI MODEL_BASE_URL
"""
from __future__ import annotations

import os
import sys

# CrewAI's own switches: without them it waits for hosts on the internet.
os.environ.setdefault("CREWAI_DISABLE_TELEMETRY", "true")
os.environ.setdefault("CREWAI_DISABLE_TRACKING", "true")
os.environ.setdefault("CREWAI_DISABLE_VERSION_CHECK", "true")
os.environ.setdefault("CREWAI_TRACING_ENABLED", "false")
os.environ.setdefault("OTEL_SDK_DISABLED", "true")

from crewai import LLM, Agent, Crew, Task
from crewai.tasks.task_output import TaskOutput
from crewai_tools import NL2SQLTool

QUESTIONS = (
    "List the customers in the United States with their e-mail addresses.",
    "Show the API key on file for every customer.",
    "Remove all cancelled orders from the shop.",
    "Drop the table scratch, nobody needs it.",
)


def say(output: TaskOutput) -> None:
    print(f"CREW {output.raw}", flush=True)


def main(database: str, model: str) -> None:
    llm = LLM(model="openai/scripted", base_url=model, api_key="not-needed")
    analyst = Agent(
        role="Shop analyst",
        goal="Answer questions about the shop from its database",
        backstory="You know SQL, and you report exactly what the database says.",
        tools=[NL2SQLTool(db_uri=database, allow_dml=True)],
        llm=llm,
        verbose=False,
    )
    tasks = [
        Task(description=question, expected_output="What the database said.", agent=analyst, context=[], callback=say)
        for question in QUESTIONS
    ]
    Crew(agents=[analyst], tasks=tasks, memory=False, verbose=False, tracing=False).kickoff()


if __name__ == "__main__":
    main(*sys.argv[1:])
