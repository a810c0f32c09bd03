"""The demo is a test: a real crew, four questions, one approval, one denial, the chain verified."""
from __future__ import annotations

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
