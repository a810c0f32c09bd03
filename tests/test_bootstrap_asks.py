"""What bootstrap gives pytest is understood: options of tests/conftest.py are known only where nothing else looks like
a path (pytest looks for conftest files before it knows them)."""
from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ASKED = re.findall(r'^ +run_tests (.+) "\$@" ;;$', (ROOT / "bootstrap").read_text("utf-8"), re.MULTILINE)


def test_both_forms_are_found() -> None:
    assert len(ASKED) == 2


@pytest.mark.parametrize("asked", ASKED)
def test_pytest_understands(asked: str) -> None:
    selection, *more = shlex.split(asked)
    assert not any((ROOT / one).exists() for one in more)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", selection, *more, "--help"], cwd=ROOT, capture_output=True, text=True,
        timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "--results=" in done.stdout


@pytest.mark.parametrize(("words", "code", "said"), [
    (["--help"], 0, ""), ([], 2, ""), (["instal"], 2, "bootstrap: there is no command instal"),
    (["install", "--no-unit"], 1, "--no-units is all that it takes")])
def test_what_it_does_not_know(words: list[str], code: int, said: str) -> None:
    """A misspelt --no-units would have enabled the units."""
    if words[:1] == ["install"] and os.geteuid() != 0:
        said = "run it as root"
    done = subprocess.run([ROOT / "bootstrap", *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code
    assert said in done.stderr
    assert "---" not in done.stdout + done.stderr, "comments of the script's own"


def test_results_apart_are_not_understood() -> None:
    """What this guards against: else the test above could not fail."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--results", "docs/results/tests.md", "--co"], cwd=ROOT, capture_output=True,
        text=True, timeout=120, check=False)
    assert done.returncode == 4
