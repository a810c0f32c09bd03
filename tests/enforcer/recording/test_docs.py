"""docs/recording.md and docs/auditor.md say what is."""
from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from enforcer.recording import schema
from enforcer.recording.cli import group

DOCS = Path(__file__).resolve().parents[3] / "docs"
FORMAT, AUDITOR = (DOCS / "recording.md").read_text(), (DOCS / "auditor.md").read_text()


@pytest.fixture
def db():
    made = sqlite3.connect(":memory:")
    for statement in schema.SCHEMA:
        made.execute(statement)
    yield made
    made.close()


def test_every_table_and_column_is_documented(db) -> None:
    told = {name: re.sub(r"\([^)]*\)", "", columns) for name, columns in
            re.findall(r"^\| `(\w+)`(?: \(\w+ ?\d*\))? \| (seq.*|id.*|digest.*) \|$", FORMAT, re.M)}
    for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
        if table in ("position", "live", "live_operation"):
            continue
        assert told[table].replace(" ", "").split(",") == [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
    for (view,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'view'"):
        assert f"`{view}`" in FORMAT


def test_statements_run(db) -> None:
    blocks = re.findall(r"```sql\n(.*?)```", AUDITOR, re.S)
    statements = [one for block in blocks for one in block.split(";") if one.strip()]
    assert len(statements) >= 15
    for statement in statements:
        db.execute(statement).fetchall()


def test_commands_are_documented() -> None:
    for name, command in group.commands.items():
        assert f"`weir {name} " in AUDITOR
        for option in re.findall(rf"^\| `weir {name} (.*?)` \|", AUDITOR, re.M):
            inner = getattr(command, "commands", {}).get(option.split()[0], command)
            known = {flag for one in inner.params for flag in one.opts}
            assert set(re.findall(r"(?<!\S)\[?(--?\w+)", option)) <= known


def test_events_of_the_recorder_are_documented() -> None:
    source = "".join(path.read_text() for path in (DOCS.parent / "enforcer" / "recording").glob("*.py"))
    names = set(re.findall(r"""(?:tell|_end)\((?:file, )?"([a-z.-]+)""", source))
    assert len(names) > 10
    for name in names:
        assert f"`{name}`" in FORMAT, name
