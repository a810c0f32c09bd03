"""No library stays beside newer sources: what bootstrap compares before it copies files over the installed ones."""
from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for folder in ("agent", "enforcer"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("bootstrap", "pyproject.toml", "setup.py", "requirements-dev.lock"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def fingerprint(clone: Path) -> str:
    """As bootstrap makes it; only the two functions are read, nothing is installed."""
    return subprocess.run(
        ["bash", "-euc", "eval \"$(sed -n '/^compiled_sources()/,/^}/p;/^hot_fingerprint()/,/^}/p' bootstrap)\"; "
         "hot_fingerprint"], cwd=clone, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("name", [
    "enforcer/hot/wire.py",
    "enforcer/protocols/postgresql/conversation.py",
    "enforcer/words/commands.py",             # not compiled: but compiled modules have its constants in them
    "agent/contract/messages.py",
    "pyproject.toml",
    "setup.py",
])
def test_what_compiled_modules_are_made_of_is_compiled_again(clone: Path, name: str) -> None:
    before = fingerprint(clone)
    with (clone / name).open("a") as file:
        file.write("# changed\n")
    assert fingerprint(clone) != before


@pytest.mark.parametrize("name", ["agent/cli.py", "agent/supervisor.py"])
def test_what_they_never_import_is_only_copied(clone: Path, name: str) -> None:
    before = fingerprint(clone)
    with (clone / name).open("a") as file:
        file.write("# changed\n")
    assert fingerprint(clone) == before
