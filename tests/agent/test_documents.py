"""JSON for programs, which a person may see on a terminal."""
from __future__ import annotations

import json

import pytest

from agent.contract.documents import render_json


@pytest.mark.parametrize("indent", [0, 2])
def test_nothing_in_it_writes_to_the_terminal_and_it_says_the_same(indent: int) -> None:
    value = {"text": "a\x1b[2J\x7f\x9b2J\u202e\u2028\U000e0001\n\"\\ü語\U0001f600", "n": [1, None]}
    text = render_json(value, indent)
    assert json.loads(text) == value
    assert all(one.isprintable() or one == "\n" for one in text)
    assert "ü語\U0001f600" in text
    assert ("\n" in text) == bool(indent)
