from __future__ import annotations

import json
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from notify_lab import ADA, notice, view
from receivers import TEAM, press, submit

from enforcer.notify import blocks
from enforcer.notify.blocks import Pressed
from enforcer.notify.interactions import (
    Malformed,
    Press,
    Submission,
    parse_envelope,
    parse_interaction,
    payload_of,
)

CALL = {"channel": "C0LAB0000", **blocks.message(notice(), "crewhost", "summary")}
PRESS = press(CALL, "1.2", ADA)
SUBMIT = submit(blocks.modal(view(), Pressed("abcdefgh", False, "C0LAB0000", "1.2")), ADA, " not now ")


def parsed(payload: Any) -> Press | Submission | None:
    return parse_interaction(json.dumps(payload).encode(), TEAM)


def test_a_button_and_a_modal() -> None:
    assert parsed(PRESS) == Press(ADA, "abcdefgh", True, "C0LAB0000", "1.2", PRESS["trigger_id"])
    assert parsed(SUBMIT) == Submission(ADA, Pressed("abcdefgh", False, "C0LAB0000", "1.2"), "not now")
    assert payload_of(urlencode({"payload": json.dumps(PRESS)}).encode()) == json.dumps(PRESS).encode()


@pytest.mark.parametrize("payload", [
    PRESS | {"team": {"id": "T0OTHER00"}}, PRESS | {"team": None},
    PRESS | {"user": {"id": ADA, "team_id": "T0OTHER00"}}, PRESS | {"user": {"id": ADA}},
    PRESS | {"actions": [PRESS["actions"][0] | {"value": "../../etc"}]},
    PRESS | {"actions": [PRESS["actions"][0] | {"value": "abcdefgh\n"}]},
    PRESS | {"actions": "x"}, PRESS | {"user": None}, [], 7, None,
    SUBMIT | {"view": SUBMIT["view"] | {"private_metadata": "{}"}},
    SUBMIT | {"view": SUBMIT["view"] | {"private_metadata": "[" * 4000}},
])
def test_another_team_and_other_things_are_refused(payload: Any) -> None:
    with pytest.raises(Malformed):
        parsed(payload)


@pytest.mark.parametrize("payload", [
    PRESS | {"actions": []}, PRESS | {"actions": [{"action_id": "other", "value": "x"}]},
    PRESS | {"type": "shortcut"}, SUBMIT | {"view": SUBMIT["view"] | {"callback_id": "another"}}])
def test_what_is_not_weirs_is_left_alone(payload: Any) -> None:
    assert parsed(payload) is None


@pytest.mark.parametrize("body", [
    b"", b"payload", b"payload=a&payload=b", b"x=1", b"payload=\xff", b"&".join([b"payload=1"] * 9), b"{}"])
def test_a_form_has_one_payload(body: bytes) -> None:
    with pytest.raises(Malformed):
        payload_of(body)


@given(st.binary(max_size=300))
def test_garbage_is_malformed(data: bytes) -> None:
    for parse in (parse_envelope, payload_of, lambda one: parse_interaction(one, TEAM)):
        with suppress(Malformed):
            parse(data)


def test_deep_json_is_malformed() -> None:
    for deep in (b'{"a":' * 100_000, b"[" * 200_000):
        with pytest.raises(Malformed):
            parse_envelope(deep)
        with pytest.raises(Malformed):
            parse_interaction(deep, TEAM)
