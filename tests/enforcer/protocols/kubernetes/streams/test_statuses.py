"""How a command ended."""
from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from streamtalk import SUCCESS, failure

from enforcer.protocols.kubernetes.streams.statuses import read_ending, render_failure


@pytest.mark.parametrize(("text", "ending"), [
    (SUCCESS, ("ok", "exit 0", "")), (failure(3), ("ok", "exit 3", "")),
    (b'{"status":"Failure","message":"no such container","reason":"NotFound"}', ("error", "", "no such container")),
    (b'{"status":"Failure","reason":"NonZeroExitCode"}', ("error", "", "it failed")),
    (b'{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[1,{"reason":"ExitCode","message":"-1"}]}}',
     ("error", "", "it failed")),
    (b'{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":{}},"message":7}',
    ("error", "", "it failed")),
    (b"", ("error", "", "the server did not say how it ended")),
    (b"[]", ("error", "", "the server did not say how it ended")),
    (b"\xff", ("error", "", "the server did not say how it ended")),
])
def test_a_status(text: bytes, ending: tuple[str, str, str]) -> None:
    assert read_ending(text, True) == ending


def test_before_there_were_any() -> None:
    assert read_ending(b"", False) == ("ok", "", "")
    assert read_ending(b"command failed \xff", False) == ("error", "", "command failed \ufffd")


@given(st.binary(max_size=100))
def test_anything(text: bytes) -> None:
    read_ending(text, True)


def test_deep() -> None:
    assert read_ending(b'{"a":' * 30000, True)[0] == "error"


def test_weirs_own() -> None:
    status = json.loads(render_failure('it was "killed"', True))
    assert (status["status"], status["message"]) == ("Failure", 'weir: it was "killed"')
    assert int(status["details"]["causes"][0]["message"]) == 137   # as kubernetes.stream reads it
    assert read_ending(render_failure("killed", True), True) == ("error", "", "weir: killed")
    assert render_failure("killed", False) == b"weir: killed"
