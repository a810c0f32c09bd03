from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.notify.links import DOMAIN, LIMIT, Grant, mint, parse_token

KEY, NOW = b"k" * 32, 1_700_000_000
GRANT = Grant("abcdefgh", 5, True, "local:ada", "pager", NOW + 60)
TOKEN = mint(KEY, GRANT)


def test_what_was_signed_is_read() -> None:
    assert parse_token(KEY, TOKEN, NOW) == GRANT
    assert len(mint(KEY, msgspec.structs.replace(GRANT, by="p" * 32 + ":" + "x" * 256, webhook="w" * 64))) <= LIMIT


@pytest.mark.parametrize("changes", [
    {"ticket": "hgfedcba"}, {"since": 6}, {"approve": False}, {"by": "local:eve"}, {"webhook": "other"},
    {"until": NOW + 9999}])
def test_what_was_changed_is_not(changes: dict[str, Any]) -> None:
    payload = mint(KEY, msgspec.structs.replace(GRANT, **changes)).partition(".")[0]
    assert parse_token(KEY, f"{payload}.{TOKEN.partition('.')[2]}", NOW) is None


def test_its_time_and_its_key() -> None:
    assert parse_token(KEY, TOKEN, NOW + 60) is None
    assert parse_token(b"j" * 32, TOKEN, NOW) is None


def test_the_domain_is_signed_too() -> None:
    """A MAC that the same key made over the payload alone is none."""
    payload = msgspec.json.encode(GRANT)
    for made in (hmac.digest(KEY, payload, hashlib.sha256), hmac.digest(KEY, DOMAIN[:-1] + payload, hashlib.sha256)):
        token = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (payload, made))
        assert parse_token(KEY, token, NOW) is None


@given(st.integers(0, len(TOKEN) - 1), st.characters())
def test_any_other_character_breaks_it(place: int, other: str) -> None:
    changed = TOKEN[:place] + other + TOKEN[place + 1:]
    assert (parse_token(KEY, changed, NOW) is None) == (changed != TOKEN)


@given(st.text(max_size=300))
def test_garbage_is_nothing(text: str) -> None:
    assert parse_token(KEY, text, NOW) is None


@pytest.mark.parametrize("token", [
    TOKEN + "=", TOKEN + "\n", " " + TOKEN, TOKEN.replace(".", ".."), TOKEN + "A" * 2000])
def test_one_way_to_write_it(token: str) -> None:
    assert parse_token(KEY, token, NOW) is None
