"""Messages without the body that they should have, with another one behind them in the same read."""
from __future__ import annotations

import pytest
from pump import SYNC, query, render
from scripted import Scripted


@pytest.mark.parametrize("kind", [b"D", b"C"], ids=["describe", "close"])
def test_the_clients_ends_the_session(kind: bytes) -> None:
    session = Scripted()
    session.send(render(kind) + SYNC)
    assert "invalid message format" in session.closed


def test_a_command_complete_without_a_tag_ends_the_session() -> None:
    session = Scripted()
    session.send(query("SELECT 1"))
    session.hear(render(b"C") + render(b"Z", b"I"))
    assert "malformed CommandComplete" in session.closed
