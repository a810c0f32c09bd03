"""The demo is a test: a real crew, four questions, one approval, one denial, the chain verified."""
from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from lab import demo
from lab.lab import Lab

pytestmark = pytest.mark.lab


def test_the_demo(the_lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.story(the_lab) == 0
    said = capsys.readouterr().out
    assert "g***@***.example" in said
    assert "grace@navy.example" not in said
    assert "[redacted]" in said
    assert "sk-live" not in said
    assert "'cancelled_left': 0" in said
    assert "no-ddl-by-crews" in said
    assert "verified:" in said


def test_bootstrap_starts_it_with_what_it_needs() -> None:
    """By the very interpreter and search path that `./bootstrap demo` names."""
    root = Path(__file__).resolve().parents[2]
    line = next(one for one in (root / "bootstrap").read_text().splitlines() if "-m lab.demo" in one)
    path, python = re.search(r'PYTHONPATH=(\S+) .*"\$PREFIX/(\S+)"', line).groups()  # type: ignore[union-attr]
    program = Path(os.environ.get("WEIR_PREFIX", "/opt/weir")) / python
    done = subprocess.run([str(program), "-P", "-c", "import lab.demo"], cwd=root, env={"PYTHONPATH": path},
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
