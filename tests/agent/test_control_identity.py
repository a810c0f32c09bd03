"""The control socket: logins are for everybody who is no crew."""
from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from agent.commands.asking import ask
from agent.contract import control
from agent.control import Control, Groups

REQUESTS = [control.Login("corp", 4444), control.Login(), control.FinishLogin("s", "code=x"), control.AwaitLogin("s"),
            control.Logout(), control.AskWhoAmI()]


class Actions:
    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def identity(self, request: Any, peer: Any) -> Any:
        self.asked.append((request, peer.uid))
        return control.Answered()


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("crew", [False, True])
async def test_a_crew_may_not_ask(tmp_path: Path, request_: Any, crew: bool) -> None:
    told: list[tuple[str, Any]] = []
    actions = Actions()
    one = Control(tmp_path / "s", actions, lambda: Groups(1, 2), lambda pid: crew,  # type: ignore[arg-type]
                  lambda name, detail: told.append((name, detail)))
    one.open()
    try:
        answer = await asyncio.to_thread(ask, tmp_path / "s", request_)
    finally:
        await one.close()
    if crew:
        assert isinstance(answer, control.Refused | control.Failed)
        assert answer.text == "a crew may not speak to Weir's agent"
        assert actions.asked == []
        assert told[0][0] == "control.refused"
    else:
        assert answer == control.Answered()
        assert actions.asked == [(request_, os.geteuid())]


def test_what_came_back_is_in_no_text() -> None:
    assert "SECRET" not in repr(control.FinishLogin("s", "code=SECRET"))
