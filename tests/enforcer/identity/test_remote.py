"""A provider that lies, stalls, redirects, sends too much: refused, in bounds, and without a word of it in any text."""
from __future__ import annotations

import gzip
import time
from typing import Any

import pytest
import signing
from hostile import Hostile
from joserfc.jwk import RSAKey

from enforcer import https
from enforcer.identity import remote
from enforcer.identity.answers import Refused
from enforcer.identity.remote import Remote, Unreachable
from enforcer.identity.tokens import ACCESS, UnknownKey
from enforcer.words.errors import AuthenticationError

WELL_KNOWN = "/.well-known/openid-configuration"


def token(hostile: Hostile, key: Any = signing.RSA, **changed: Any) -> str:
    now = int(time.time())
    return signing.sign(signing.claims(iss=hostile.issuer, aud="weir-api", exp=now + 300, iat=now, **changed), key)


async def test_what_is_right(hostile: Hostile) -> None:
    found = await Remote(hostile.provider()).identify(token(hostile), ACCESS)
    assert (found.subject, found.groups) == ("corp:7b1f", ("dba",))


@pytest.mark.parametrize(("changed", "said"), [
    ({"issuer": "https://127.0.0.1:1"}, "names another issuer"), ({"issuer": 7}, "malformed"),
    ({"jwks_uri": "http://127.0.0.1/keys"}, "jwks_uri is no https address"), ({"jwks_uri": None}, "malformed"),
    ({"token_endpoint": "https://user:pw@127.0.0.1/"}, "token_endpoint is no https"),
    ({"device_authorization_endpoint": "file:///etc/passwd"}, "no https"),
    ({"authorization_endpoint": "https://x/" + "y" * 3000}, "no https"),
    ({"revocation_endpoint": "https://x/\n"}, "no https"),
    *(({name: url}, f"{name} is at another host") for name in (
        "jwks_uri", "token_endpoint", "authorization_endpoint", "device_authorization_endpoint",
        "revocation_endpoint", "introspection_endpoint")
      for url in ("https://169.254.169.254/latest", "https://127.0.0.1:1/", "https://127.0.0.1/",
                  "https://127.0.0.1.evil.example/", "https://localhost/")),
])
async def test_a_configuration_that_is_not_taken(hostile: Hostile, changed: dict[str, Any], said: str) -> None:
    hostile.say(WELL_KNOWN, hostile.metadata(**changed))
    with pytest.raises(AuthenticationError, match=said):
        await Remote(hostile.provider()).metadata()


async def test_other_hosts_are_named(hostile: Hostile) -> None:
    """Some providers have more than one: a configuration that is not theirs sends nobody to the host's inside."""
    hostile.say(WELL_KNOWN, hostile.metadata(token_endpoint="https://Tokens.lab.example/t", jwks_uri=(
        "https://keys.lab.example:8443/k")))
    for hosts in ((), ("tokens.lab.example",), ("tokens.lab.example", "keys.lab.example")):
        with pytest.raises(AuthenticationError, match="which `hosts` does not name"):
            await Remote(hostile.provider(hosts=hosts)).metadata()
    found = await Remote(hostile.provider(hosts=("TOKENS.lab.example:443", "keys.lab.example:8443"))).metadata()
    assert found.jwks_uri == "https://keys.lab.example:8443/k"


@pytest.mark.parametrize("document", [
    b'{"issuer": "a", "issuer": "b"}', b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'"x"', b"null"])
async def test_a_configuration_that_is_none(hostile: Hostile, document: bytes) -> None:
    hostile.say(WELL_KNOWN, document)
    with pytest.raises(AuthenticationError) as wrong:
        await Remote(hostile.provider()).metadata()
    assert not isinstance(wrong.value, Unreachable)


async def test_redirects_are_not_followed(hostile: Hostile) -> None:
    hostile.answers[WELL_KNOWN] = lambda: (302, {"Location": f"{hostile.issuer}/elsewhere"}, b"")
    hostile.say("/elsewhere", hostile.metadata())
    with pytest.raises(Unreachable):
        await Remote(hostile.provider()).metadata()
    assert hostile.asked == [WELL_KNOWN]


async def test_an_answer_without_an_end(hostile: Hostile) -> None:
    big = b'{"x": "' + b"y" * (https.ANSWER + 1) + b'"}'
    hostile.say(WELL_KNOWN, big)
    with pytest.raises(Unreachable, match="TooLong"):
        await Remote(hostile.provider()).metadata()


async def test_a_compressed_answer(hostile: Hostile) -> None:
    body = gzip.compress(b" " * (5 << 20))
    hostile.answers[WELL_KNOWN] = lambda: (200, {"Content-Encoding": "gzip"}, body)
    with pytest.raises(Unreachable, match="TooLong"):
        await Remote(hostile.provider()).metadata()


async def test_an_answer_that_does_not_come(hostile: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(https, "SECONDS", 0.2)

    def slowly() -> Any:
        time.sleep(1)
        return 200, {}, b"{}"

    hostile.answers[WELL_KNOWN] = slowly
    with pytest.raises(Unreachable):
        await Remote(hostile.provider()).metadata()


async def test_a_certificate_of_somebody_else(hostile: Hostile) -> None:
    with pytest.raises(Unreachable, match="certificate"):
        await Remote(hostile.provider(ca="")).metadata()


async def test_roots_that_are_none(hostile: Hostile) -> None:
    with pytest.raises(AuthenticationError, match="roots"):
        Remote(hostile.provider(ca="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))


async def test_unknown_keys_are_asked_for_once_in_a_while(hostile: Hostile) -> None:
    """A flood of tokens of unknown keys costs the provider nothing; a rotated key is found all the same."""
    clock = [1000.0]
    one = Remote(hostile.provider(), monotonic=lambda: clock[0])
    new = RSAKey.generate_key(2048, {"kid": "new"})
    assert await one.identify(token(hostile), ACCESS)
    for _ in range(20):
        with pytest.raises(UnknownKey):
            await one.identify(token(hostile, new), ACCESS)
    assert hostile.asked.count("/keys") == 1
    hostile.say("/keys", signing.public(new))
    clock[0] += remote.AGAIN + 1
    assert (await one.identify(token(hostile, new), ACCESS)).subject == "corp:7b1f"
    assert hostile.asked.count("/keys") == 2
    with pytest.raises(UnknownKey):
        await one.identify(token(hostile), ACCESS)


async def test_known_keys_hold_while_the_provider_is_away(hostile: Hostile) -> None:
    clock = [1000.0]
    one = Remote(hostile.provider(), monotonic=lambda: clock[0])
    assert await one.identify(token(hostile), ACCESS)
    clock[0] += remote.FRESH / 2
    hostile.say("/keys", b"", 503)
    assert await one.identify(token(hostile), ACCESS)


@pytest.mark.parametrize(("body", "status", "error"), [
    ({"error": "invalid_grant", "error_description": "SECRET"}, 400, "invalid_grant"),
    ({"error": "SECRET with spaces"}, 400, "error"), ({"error": ["SECRET"]}, 400, "error"),
    ({"error": "access_denied"}, 200, "access_denied"),
])
async def test_a_refusal_is_a_code_and_nothing_else(
    hostile: Hostile, body: dict[str, Any], status: int, error: str,
) -> None:
    hostile.say("/token", body, status)
    with pytest.raises(Refused) as wrong:
        await Remote(hostile.provider()).refresh("a-refresh-token")
    assert wrong.value.error == error
    assert "SECRET" not in str(wrong.value)


@pytest.mark.parametrize("body", [{}, {"access_token": 7}, {"access_token": ""}, [], {"access_token": "x" * 100_000},
                                  {"access_token": "x", "id_token": 7}])
async def test_an_answer_without_tokens(hostile: Hostile, body: Any) -> None:
    hostile.say("/token", body)
    with pytest.raises(AuthenticationError) as wrong:
        await Remote(hostile.provider()).refresh("a-refresh-token")
    assert "a-refresh-token" not in str(wrong.value)
    assert "xxxx" not in str(wrong.value)


async def test_a_provider_that_fails_is_away_and_does_not_refuse(hostile: Hostile) -> None:
    for status in (500, 502, 503):
        hostile.say("/token", {"error": "invalid_grant"}, status)
        with pytest.raises(Unreachable):
            await Remote(hostile.provider()).refresh("a-refresh-token")


@pytest.mark.parametrize("changed", [
    {"user_code": "\x1b[2J"}, {"user_code": ""}, {"verification_uri": "http://evil.example"}, {"expires_in": 0},
    {"verification_uri_complete": "javascript:alert(1)"}, {"device_code": ""}, {"user_code": "A" * 40},
    {"verification_uri": "https://x/\x1b]0;"}, {"error": "invalid_client"}])
async def test_a_device_code_that_nobody_should_see(hostile: Hostile, changed: dict[str, Any]) -> None:
    whole = {"device_code": "d", "user_code": "AB-CD", "verification_uri": "https://x/device", "expires_in": 600}
    hostile.say("/device", whole)
    assert (await Remote(hostile.provider()).device("v" * 64)).user_code == "AB-CD"
    hostile.say("/device", whole | changed)
    with pytest.raises(AuthenticationError):
        await Remote(hostile.provider()).device("v" * 64)


async def test_a_device_code_has_bounds(hostile: Hostile) -> None:
    hostile.say("/device", {"device_code": "d", "user_code": "AB-CD", "verification_uri": "https://x/device",
                            "expires_in": 10**9, "interval": 10**9})
    found = await Remote(hostile.provider()).device("v" * 64)
    assert (found.expires_in, found.interval) == (900, 60)


async def test_pkce_is_s256_or_nothing(hostile: Hostile) -> None:
    one = Remote(hostile.provider(scopes=("profile",)))
    url = await one.authorization_url("http://127.0.0.1:5/callback", "st", "no", "v" * 64)
    assert "code_challenge_method=S256" in url
    assert "v" * 64 not in url
    assert "scope=openid+profile" in url
    for methods in ([], ["plain"]):
        hostile.say(WELL_KNOWN, hostile.metadata(code_challenge_methods_supported=methods))
        with pytest.raises(AuthenticationError, match="PKCE"):
            await Remote(hostile.provider()).authorization_url("http://127.0.0.1:5/callback", "st", "no", "v" * 64)
