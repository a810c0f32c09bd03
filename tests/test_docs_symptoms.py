"""docs/operator/troubleshooting.md: what it says that Weir says, Weir says."""
from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/operator/troubleshooting.md").read_text()
DIFFERS = "\0"                        # where a text holds something that differs
SHORTEST = 5                          # characters of a piece that tells anything


@cache
def texts() -> str:
    """All texts of the code, as they are put together there."""
    found = []
    for path in (path for folder in ("agent", "enforcer", "probes") for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(
                    str(one.value) if isinstance(one, ast.Constant) else DIFFERS for one in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def symptoms() -> list[str]:
    """What stands in backquotes in the first cells of the tables of what Weir itself says."""
    found = []
    for table in PAGE.split("| it says | because | do |\n")[1:]:
        for row in re.findall(r"^\| (.*?) \| .* \|$", table.partition("\n\n")[0], re.M):
            found += re.findall(r"`([^`]+)`", _plain(row))
    return found


def _plain(text: str) -> str:
    """Without the backquotes that are Weir's own."""
    return re.sub(r"`(users|read_only)`", r"\1", text)


def test_there_are_symptoms_for_each_part() -> None:
    assert len(symptoms()) > 60
    assert PAGE.count("| it says | because | do |") >= 7


@pytest.mark.parametrize("symptom", symptoms())
def test_the_code_says_so(symptom: str) -> None:
    said = _plain(texts())
    pieces = [one for one in symptom.split("...") if len(one.strip()) >= SHORTEST]
    assert pieces, f"{symptom!r} would fit anything"
    for piece in pieces:
        assert piece.strip(" ") in said, f"nothing in the code says {piece!r}"
