"""docs/reference-*.md are what the code says, whole."""
from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest
from reference import cli, meanings, policy, recording
from reference.__main__ import PAGES

from agent.cli import weir
from enforcer.policy.cedar import SCHEMA
from enforcer.policy.model import CHAIN
from enforcer.recording import schema

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(("name", "render"), PAGES.items(), ids=PAGES)
def test_a_page_is_what_the_code_says(name: str, render) -> None:
    assert (ROOT / name).read_text() == render(), "make docs writes it again"


def test_every_reference_page_is_made() -> None:
    assert {f"docs/{one.name}" for one in (ROOT / "docs").glob("reference-*.md")} <= set(PAGES)


def test_every_command_is_there() -> None:
    found = {path for path, _ in cli.commands()}
    assert {f"weir {name}" for name in weir.list_commands(None)} <= found  # type: ignore[arg-type]
    assert "weir approvals break-glass" in found
    assert "not installed" not in cli.render_page()


def test_every_action_and_resource_is_there() -> None:
    text = resources.files("enforcer.policy").joinpath(SCHEMA).read_text()
    assert set(policy.entities(text)) == set(re.findall(r"^entity (\w+)", text, re.M)) >= set(CHAIN)
    said = {name for line in re.findall(r"^action (.*?)(?: in \[|\s+appliesTo|;)", text, re.M | re.S)
            for name in re.findall(r'"([\w:-]+)"', line)}
    assert set(policy.actions(text)) == said
    assert all(kinds or any(name in groups for groups, _ in policy.actions(text).values())
               for name, (_, kinds) in policy.actions(text).items()), "asked of nothing, and no group"


def test_every_event_is_there() -> None:
    page = recording.render_page()
    for struct in schema.STRUCTS.values():
        assert f"\n### {struct.__name__}\n" in page
    told = recording.host_events()
    assert told["socket.foreign"][0] >= {"pid", "fd", "cookie"}
    assert {"connect", "connect.unaccounted", "connects.ended", "lock", "ledger.acknowledged", "degraded"} <= set(told)


def test_events_that_pages_name_are_told() -> None:
    """recording.md explains some in tables; each of these exists."""
    page = (ROOT / "docs/recording.md").read_text()
    told = [re.compile(re.sub(r"<\w+>", "[a-z.]+", one)) for one in (
        *recording.host_events(), *recording.recorder_events())]
    tables = [table for table in re.split(r"\n\n", page) if re.match(r"(?:.*\n)?\| name \|", table)]
    assert len(tables) >= 3
    for row in re.findall(r"^\| ((?:`[a-z]+\.[a-z-]+`(?:, )?)+) \|", "\n".join(tables), re.M):
        for name in re.findall(r"`([a-z.-]+)`", row):
            assert any(one.fullmatch(name) for one in told), name


def test_what_each_event_says_is_told() -> None:
    """tests/reference/meanings.py has a line for each, and for no other."""
    assert set(meanings.HOST) == set(recording.host_events())
    assert set(meanings.RECORDER) == set(recording.recorder_events())
