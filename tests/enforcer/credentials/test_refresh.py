"""ID tokens for a refresh token: a provider that is right, and one that lies, without a word of it in any text."""
from __future__ import annotations

import gzip
from typing import Any

import msgspec
import pytest
from hostile import Hostile, hostile

from agent.contract.refresh import Asked, Given, parse_given
from enforcer.credentials.refresh import refresh
from enforcer.identity.metadata import WELL_KNOWN

__all__ = ["hostile"]

TOKENS: dict[str, Any] = {"access_token": "a", "token_type": "Bearer", "id_token": "h.unter.2"}


@pytest.fixture
def provider(hostile: Hostile) -> Hostile:
    hostile.say(WELL_KNOWN, hostile.metadata())
    hostile.say("/token", TOKENS)
    return hostile


async def ask(provider: Hostile, **changed: str) -> Given:
    asked = Asked(provider.issuer, provider.ca, "kubernetes", "", "r-hunter1")
    given = await refresh(msgspec.structs.replace(asked, **changed))
    assert "unter" not in given.error + repr(given) + repr(asked)
    return given


async def test_a_token(provider: Hostile) -> None:
    assert await ask(provider) == Given("", "h.unter.2", "")
    provider.say("/token", TOKENS | {"refresh_token": "r-hunter3"})
    found = await ask(provider, client_secret="s")
    assert found == Given("", "h.unter.2", "r-hunter3") == parse_given(msgspec.json.encode(found))


@pytest.mark.parametrize(("changed", "said"), [
    ({"issuer": "https://other"}, "names another issuer"), ({"token_endpoint": "http://127.0.0.1/token"}, "no https"),
    ({"token_endpoint": "file:///etc/hunter"}, "no https"), ({"token_endpoint": None}, "makes no sense"),
])
async def test_a_configuration_that_is_wrong(provider: Hostile, changed: dict[str, Any], said: str) -> None:
    provider.say(WELL_KNOWN, provider.metadata() | changed)
    assert said in (await ask(provider)).error


@pytest.mark.parametrize(("status", "answer", "said"), [
    (400, {"error": "invalid_grant", "error_description": "hunter"}, "gives no token (invalid_grant: its refresh"),
    (401, {"error": "hunter hunter"}, "gives no token (401)"), (500, b"<hunter>", "gives no token (500)"),
    (200, b"hunter", "makes no sense"), (200, b"[" * 100_000, "makes no sense"),
    (200, {"id_token": 4}, "makes no sense"),
    (200, {"access_token": "hunter"}, "no ID token"), (200, {"id_token": "hunter\n2"}, "no ID token"),
    (200, {"id_token": "h" * (1 << 17)}, "makes no sense"), (200, b"x" * (600 << 10), "(TooLong)"),
    (200, TOKENS | {"refresh_token": "hunter 3"}, "refresh token is none"), (307, {}, "gives no token (307)"),
])
async def test_answers_that_are_none(provider: Hostile, status: int, answer: Any, said: str) -> None:
    raw = answer if isinstance(answer, bytes) else msgspec.json.encode(answer)
    provider.answers["/token"] = lambda: (status, {}, raw)
    assert said in (await ask(provider)).error


async def test_one_that_is_not_who_it_should_be(provider: Hostile) -> None:
    assert "cannot be reached (ConnectError)" in (await ask(provider, ca="")).error
    assert "no roots" in (await ask(provider, ca="-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----")).error
    provider.answers["/token"] = lambda: (200, {"Content-Encoding": "gzip"}, gzip.compress(b"{}"))
    assert "(TooLong)" in (await ask(provider)).error
    provider.answers[WELL_KNOWN] = lambda: (404, {}, b"")
    assert "is not there (404)" in (await ask(provider)).error
