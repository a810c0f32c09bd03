"""Back-channel logout: which tokens end a session, and which one; each way in which one may be wrong, really signed."""
from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlencode

import pytest
import signing
from codeflow import Told, answer, begin, finish, id_token
from hostile import Hostile

from agent.contract import identity as told
from enforcer.identity import logouts as module
from enforcer.identity.logouts import EVENT, Known, Logout, Logouts, parse_form, parse_logout
from enforcer.identity.sessions import Sessions
from enforcer.words.errors import AuthenticationError

NOW = signing.NOW


def logout(hostile: Hostile, key: Any = signing.RSA, algorithm: str = "RS256", typ: str | None = "logout+jwt",
           **changed: Any) -> str:
    now = int(time.time())
    whole = {"iss": hostile.issuer, "aud": "weir", "iat": now, "exp": now + 120, "jti": f"j{time.monotonic_ns()}",
             "sub": "7b1f", "sid": "one", "events": {EVENT: {}}} | changed
    return signing.sign({name: one for name, one in whole.items() if one is not None}, key, algorithm, typ=typ)


async def post(sessions: Sessions, token: str, provider: str = "corp") -> str:
    body = urlencode({"logout_token": token, "other": "x"}).encode()
    return (await sessions.logout(told.Logout(9, provider, body))).error


async def logged_in(hostile: Hostile, said: Told, **claims: Any) -> Sessions:
    sessions = Sessions(said)
    asked = await begin(sessions, hostile)
    hostile.say("/token", answer(hostile, nonce=asked["nonce"], **({"sid": "one"} | claims)))
    assert await finish(sessions, f"code=c&state={asked['state']}") == ""
    return sessions


def ended(said: Told) -> list[str]:
    return [one.session for one in said.messages if isinstance(one, told.Ended)]


@pytest.mark.parametrize("changed", [
    {}, {"sub": None}, {"sid": None}, {"aud": ["weir"]}, {"typ": "JWT"}, {"typ": None}, {"events": {EVENT: {}, "x": 1}},
    {"key": signing.EC, "algorithm": "ES256"}])
async def test_a_right_one_ends_its_session_once(hostile: Hostile, changed: dict[str, Any]) -> None:
    hostile.say("/keys", signing.public(signing.RSA, signing.EC))
    said = Told()
    sessions = await logged_in(hostile, said)
    token = logout(hostile, **changed)
    assert await post(sessions, token) == ""
    assert ended(said) == ["s1"]
    assert said.messages[-1].reason == "its session at the provider has ended"
    assert await post(sessions, token) == "it is not taken: it came before"
    assert ended(said) == ["s1"]
    assert not sessions._tasks
    assert not sessions._known


@pytest.mark.parametrize(("changed", "why"), [
    ({"iss": "https://evil.example"}, "another issuer"), ({"aud": "other"}, "another audience"),
    ({"aud": "weir-api"}, "another audience"), ({"aud": None}, "another audience"),
    ({"exp": None}, "does not say when it expires"), ({"exp": 1}, "has expired"),
    ({"iat": None}, "when it was issued"), ({"iat": True}, "no time"), ({"iat": 1 << 33}, "in the future"),
    ({"iat": 1000}, "too long ago"),
    ({"jti": None}, "no jti"), ({"jti": 7}, "its jti is no text"), ({"jti": "x" * 256}, "its jti is no text"),
    ({"jti": ""}, "its jti is no text"),
    ({"sub": None, "sid": None}, "neither a session nor a subject"), ({"sid": ["one"]}, "its sid is no text"),
    ({"sub": ""}, "its sub is no text"), ({"nonce": "n"}, "it has a nonce"),
    ({"nonce": None, "events": None}, "logged out"),
    ({"events": {}}, "logged out"), ({"events": {EVENT: True}}, "logged out"), ({"events": [EVENT]}, "logged out"),
    ({"events": {"http://schemas.openid.net/event/other": {}}}, "logged out"),
    ({"key": signing.STRANGE}, "its signature is wrong"), ({"key": signing.ED, "algorithm": "EdDSA"}, "not among"),
    ({"typ": "at+jwt"}, "another kind"), ({"typ": "secevent+jwt"}, "another kind"),
])
async def test_a_wrong_one_ends_nothing(hostile: Hostile, changed: dict[str, Any], why: str) -> None:
    said = Told()
    sessions = await logged_in(hostile, said)
    error = await post(sessions, logout(hostile, **changed))
    assert why in error
    assert ended(said) == []
    assert await post(sessions, logout(hostile)) == "", "and keeps no right one from counting"
    assert ended(said) == ["s1"]


async def test_no_other_token_is_one_and_it_is_no_other(hostile: Hostile) -> None:
    said = Told()
    sessions = await logged_in(hostile, said)
    assert "logged out" in await post(sessions, id_token(hostile, sid="one"))
    for unsigned in (signing.by_hand({"alg": "none"}, {"sub": "7b1f"}), "x", "", "a.b.c",
                     signing.by_hmac({"alg": "HS256", "kid": "rsa"}, {"sub": "7b1f"}, b"weir")):
        assert "it is not taken" in await post(sessions, unsigned)
    assert ended(said) == []
    # As an ID token it has another kind, and no nonce of a login.
    asked = await begin(sessions, hostile)
    hostile.say("/token", {**answer(hostile), "id_token": logout(hostile)})
    assert "another kind" in await finish(sessions, f"code=c&state={asked['state']}")


@pytest.mark.parametrize("changed", [
    {"sid": "two"}, {"sub": "other"}, {"sub": "other", "sid": None}, {"sub": None, "sid": "two"}])
async def test_another_session_goes_on(hostile: Hostile, changed: dict[str, Any]) -> None:
    said = Told()
    sessions = await logged_in(hostile, said)
    assert await post(sessions, logout(hostile, **changed)) == ""
    assert ended(said) == []


async def test_by_the_subject_all_of_its_sessions_end(hostile: Hostile) -> None:
    said = Told()
    sessions = await logged_in(hostile, said)
    begun = await sessions.begin(told.Begin(1, "s2", "corp", "code", 4444))
    state = begun.url.split("state=")[1].split("&")[0]
    nonce = begun.url.split("nonce=")[1].split("&")[0]
    hostile.say("/token", answer(hostile, nonce=nonce, sid="two"))
    assert await finish(sessions, f"code=c&state={state}", "s2") == ""
    assert await post(sessions, logout(hostile, sid=None)) == ""
    assert sorted(ended(said)) == ["s1", "s2"]


@pytest.mark.parametrize("changed", [{}, {"sid": None}, {"sub": None}])
async def test_a_login_that_was_under_way_does_not_come_after(hostile: Hostile, changed: dict[str, Any]) -> None:
    """Its tokens were issued before the logout, and read after it."""
    said = Told()
    sessions = Sessions(said)
    asked = await begin(sessions, hostile)
    before = answer(hostile, nonce=asked["nonce"], sid="one")
    assert await post(sessions, logout(hostile, **changed)) == ""
    hostile.say("/token", before)
    assert "has ended that session meanwhile" in await finish(sessions, f"code=c&state={asked['state']}")
    assert not sessions._known
    # Who logs in anew is welcome, later than the provider said it.
    asked = await begin(sessions, hostile)
    hostile.say("/token", answer(hostile, nonce=asked["nonce"], sid="two", iat=int(time.time()) + 2))
    assert await finish(sessions, f"code=c&state={asked['state']}") == ""
    sessions.forget(told.Forget(3, "s1"))


async def test_a_service_is_nobody_s_session(hostile: Hostile) -> None:
    said = Told()
    sessions = Sessions(said)
    assert sessions.configure((hostile.provider(),)) == ""
    token = signing.sign(signing.claims(iss=hostile.issuer, aud="weir-api", sid="one", nonce=None,
                                        exp=int(time.time()) + 300, iat=int(time.time()))).encode()
    assert (await sessions.begin(told.Begin(1, "f", "corp", "file", 0, token))).error == ""
    assert await post(sessions, logout(hostile, sid=None)) == ""
    assert ended(said) == []
    sessions.forget(told.Forget(3, "f"))


async def test_a_provider_that_is_none(hostile: Hostile) -> None:
    sessions = await logged_in(hostile, Told())
    assert "has no back-channel" in await post(sessions, logout(hostile), "other")
    sessions.forget(told.Forget(3, "s1"))


@pytest.mark.parametrize(("body", "why"), [
    (b"", "holds no"), (b"x", "no form"), (b"logout_token=a&logout_token=b", "or several"), (b"other=1", "holds no"),
    (b"\xff=1", "no form"), (b"a=" + b"x" * told.LOGOUT, "too long"), (b"&".join([b"a=1"] * 20), "no form")])
def test_forms_that_are_none(body: bytes, why: str) -> None:
    with pytest.raises(AuthenticationError, match=why):
        parse_form(body)


def one(number: int = 1, **changed: Any) -> Logout:
    claims = {"iat": NOW, "exp": NOW + 120, "jti": f"{number}", "sid": "s", "events": {EVENT: {}}} | changed
    return parse_logout(claims, "corp", NOW)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "USED", 3)
    logouts = Logouts()
    for number in range(3):
        logouts.take(one(number), NOW)
    with pytest.raises(AuthenticationError, match="too many"):
        logouts.take(one(4), NOW)
    with pytest.raises(AuthenticationError, match="came before"):
        logouts.take(one(2), NOW + 179)
    logouts.take(one(5), NOW + 181)   # nobody takes the others any more
    assert len(logouts._used) == len(logouts._recent) == 1


def test_no_expiry_makes_the_memory_long() -> None:
    assert one(exp=NOW + 10**7).until == NOW + module.WINDOW + 60


def test_another_provider_s_session_of_the_same_name_goes_on() -> None:
    known = Known("7b1f", "s", NOW)
    assert one().ends("corp", known)
    assert not one().ends("other", known)
    assert not one().ends("corp", Known())
