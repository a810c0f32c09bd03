"""The cookbook of docs/auditor.md: its questions and what answers them."""
from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

AUDITOR = Path(__file__).resolve().parents[1] / "docs/auditor.md"
_BLOCK = re.compile(r"^```(sql|sh)\n(.*?)^```", re.M | re.S)
_QUESTION = {"sql": re.compile(r"^-- ", re.M), "sh": re.compile(r"^# ", re.M)}


def questions(language: str = "sql", section: str = "") -> dict[str, list[str]]:
    """Question -> its statements, or its command; of one section where its heading's beginning is given."""
    page = AUDITOR.read_text()
    parts = [one for one in page[page.index("## Cookbook"):].split("\n### ") if one.startswith(section)]
    found: dict[str, list[str]] = {}
    for kind, block in _BLOCK.findall("\n### ".join(parts)):
        for one in _QUESTION[kind].split(block)[1:] if kind == language else ():
            question, _, answer = one.partition("\n")
            assert question not in found, question
            found[question] = [part.strip() for part in answer.split(";" if kind == "sql" else "\n") if part.strip()]
    return found


def answers(files: Iterable[Path], beginning: str, section: str = "") -> list[tuple[Any, ...]]:
    """What the question says of these files of a recording."""
    [statements] = [one for question, one in questions(section=section).items() if question.startswith(beginning)]
    rows, files = list[tuple[Any, ...]](), sorted(files)
    for statement in statements:
        for file in files:
            with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as opened:
                rows += opened.execute(statement).fetchall()
    return rows
