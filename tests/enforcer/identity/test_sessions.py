"""Sessions against a provider that answers as it should not; how a right one goes is test_provider.py."""
from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
import signing
from codeflow import Told, answer, begin, finish, id_token
from hostile import Hostile

from agent.contract import identity as told
from enforcer.identity import sessions as module
from enforcer.identity.claims import Identity
from enforcer.identity.sessions import Sessions


async def test_a_code_flow(hostile: Hostile) -> None:
    said = Told()
    sessions = Sessions(said)
    asked = await begin(sessions, hostile)
    assert asked["redirect_uri"] == "http://127.0.0.1:4444/callback/corp"
    assert (asked["response_type"], asked["code_challenge_method"], asked["client_id"]) == ("code", "S256", "weir")
    assert len(asked["state"]) >= 43
    assert len(asked["nonce"]) >= 43
    hostile.say("/token", answer(hostile, nonce=asked["nonce"]))
    assert await finish(sessions, f"code=c&state={asked['state']}") == ""
    assert said.messages[0].subject == "corp:7b1f"
    # The same answer again is nobody's.
    assert await finish(sessions, f"code=c&state={asked['state']}") == "no login waits for this answer"
    assert hostile.asked.count("/token") == 1
    sessions.forget(told.Forget(3, "s1"))


async def test_a_wrong_answer_uses_the_login_up(hostile: Hostile) -> None:
    sessions = Sessions(Told())
    asked = await begin(sessions, hostile)
    hostile.say("/token", answer(hostile, nonce=asked["nonce"]))
    assert "another login" in await finish(sessions, "code=c&state=guess")
    assert await finish(sessions, f"code=c&state={asked['state']}") == "no login waits for this answer"
    assert "/token" not in hostile.asked


async def test_two_logins_do_not_mix(hostile: Hostile) -> None:
    """The answer to one, given to the other: state; a token of one, for the other: nonce."""
    sessions = Sessions(Told())
    first = await begin(sessions, hostile)
    begun = await sessions.begin(told.Begin(1, "s2", "corp", "code", 5555))
    second = {name: values[0] for name, values in parse_qs(urlsplit(begun.url).query).items()}
    assert not set(first.values()) & set(second.values()) - {"weir", "code", "S256", "openid"}
    hostile.say("/token", answer(hostile, nonce=first["nonce"]))
    assert "nonce" in await finish(sessions, f"code=c&state={second['state']}", "s2")
    assert "another login" in await finish(sessions, f"code=c&state={second['state']}", "s1")


@pytest.mark.parametrize(("changed", "said"), [
    ({"iss": "https://evil.example"}, "another issuer"), ({"aud": "other"}, "another audience"),
    ({"exp": 1}, "has expired"), ({"sub": ""}, "the subject"), ({"realm_access": {"roles": 1}}, "no list")])
async def test_a_token_that_is_not_taken(hostile: Hostile, changed: dict[str, Any], said: str) -> None:
    told_ = Told()
    sessions = Sessions(told_)
    asked = await begin(sessions, hostile)
    hostile.say("/token", answer(hostile, nonce=asked["nonce"], **changed))
    error = await finish(sessions, f"code=c&state={asked['state']}")
    assert said in error
    assert "SECRET" not in error
    assert told_.messages == []


async def open_person(hostile: Hostile, **changed: Any) -> tuple[Sessions, Told]:
    said = Told()
    sessions = Sessions(said)
    asked = await begin(sessions, hostile, **changed)
    hostile.say("/token", answer(hostile, nonce=asked["nonce"]))
    assert await finish(sessions, f"code=c&state={asked['state']}") == ""
    return sessions, said


async def test_a_refresh_reads_groups_again(hostile: Hostile) -> None:
    sessions, said = await open_person(hostile)
    hostile.say("/token", answer(hostile, realm_access={"roles": []}))
    found = await said.verified(2)
    assert (found[0].groups, found[1].groups) == (("dba",), ())
    sessions.forget(told.Forget(1, "s1"))


@pytest.mark.parametrize("how", ["code", "client"])
@pytest.mark.parametrize("ending", ["forgotten", "another configuration"])
async def test_one_that_ends_while_the_provider_is_asked_never_opens(hostile: Hostile, how: str, ending: str) -> None:
    """Nor does what the provider answers then live on."""
    said, go_on, right = Told(), threading.Event(), hostile.metadata(revocation_endpoint=f"{hostile.issuer}/revoke")
    sessions, secret = Sessions(said), {"client_secret": "s"} if how == "client" else {}
    hostile.say("/.well-known/openid-configuration", right)
    asked = await begin(sessions, hostile, **secret)
    hostile.say("/token", answer(hostile, nonce=asked["nonce"]) | {
        "access_token": id_token(hostile, aud="weir-api")})
    hostile.say("/revoke", {})
    late = hostile.answers["/token"]
    hostile.answers["/token"] = lambda: late() if go_on.wait(20) else (500, {}, b"")
    work = asyncio.ensure_future(
        sessions.finish(told.Finish(2, "s1", f"code=c&state={asked['state']}")) if how == "code"
        else sessions.begin(told.Begin(2, "s1", "corp", "client")))  # type: ignore[arg-type]
    await until(lambda: "/token" in hostile.asked)
    if ending == "forgotten":
        sessions.forget(told.Forget(3, "s1"))
    else:
        sessions.configure((hostile.provider(groups={}, **secret),))
    go_on.set()
    assert (await work).error == "it was ended meanwhile"
    assert [one for one in said.messages if isinstance(one, told.Verified)] == []
    assert sessions._tasks == {}
    if how == "code":
        await until(lambda: "/revoke" in hostile.asked)


async def until(ready: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not ready():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("document", "status", "reason"), [
    ({"error": "invalid_grant"}, 400, "invalid_grant"), ({"access_token": "x"}, 200, "no ID token")])
async def test_a_refresh_that_is_refused_ends_it(hostile: Hostile, document: Any, status: int, reason: str) -> None:
    _, said = await open_person(hostile)
    hostile.say("/token", document, status)
    assert reason in (await said.ended()).reason


async def test_another_subject_at_a_refresh_ends_it(hostile: Hostile) -> None:
    _, said = await open_person(hostile)
    hostile.say("/token", answer(hostile, sub="admin"))
    assert "another subject" in (await said.ended()).reason
    assert {one.subject for one in said.messages if isinstance(one, told.Verified)} == {"corp:7b1f"}


async def test_a_provider_that_is_away_ends_it_when_its_token_does(
    hostile: Hostile, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "AGAIN", 0.1)
    said = Told()
    sessions = Sessions(said)
    asked = await begin(sessions, hostile)
    expires = int(time.time()) + 4
    hostile.say("/token", answer(hostile, nonce=asked["nonce"], exp=expires))
    assert await finish(sessions, f"code=c&state={asked['state']}") == ""
    hostile.say("/token", b"", 503)
    assert "its token has expired" in (await said.ended()).reason
    assert time.time() >= expires


@pytest.mark.parametrize("left", [-50, 0, 1, 5, 11, 300, 10**9])
def test_no_token_makes_it_ask_without_a_pause(left: int) -> None:
    """Clocks may differ: a token may look as if it had expired as it comes."""
    remote: Any = SimpleNamespace(provider=signing.PROVIDER)
    assert 1 <= module._rest(remote, Identity("corp:ada", (), 1000 + left), 1000) <= signing.PROVIDER.refresh


async def test_a_provider_that_was_away_is_asked_again_soon(hostile: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not only when the next refresh would be."""
    monkeypatch.setattr(module, "AGAIN", 0.05)
    waits: list[float] = []
    monkeypatch.setattr(module, "_rest", lambda *_: (waits.append(0), 0.05 if len(waits) == 1 else 3600)[1])
    sessions, said = await open_person(hostile)
    hostile.say("/token", b"", 503)
    await until(lambda: hostile.asked.count("/token") >= 4)
    hostile.say("/token", answer(hostile))
    assert len(await said.verified(2)) == 2
    assert len(waits) == 2
    sessions.forget(told.Forget(1, "s1"))


async def test_a_file_ends_with_its_token_and_goes_on_with_the_next(hostile: Hostile) -> None:
    said = Told()
    sessions = Sessions(said)
    assert sessions.configure((hostile.provider(),)) == ""

    async def present(**changed: Any) -> str:
        raw = id_token(hostile, **({"aud": "weir-api"} | changed)).encode() + b"\n"
        return (await sessions.begin(told.Begin(1, "f1", "corp", "file", 0, raw))).error

    assert await present(exp=int(time.time()) + 2) == ""
    assert "another audience" in await present(aud="weir")
    assert await present(realm_access={"roles": []}) == ""
    assert [one.groups for one in said.messages] == [("dba",), ()]
    assert await present(exp=int(time.time()) + 1) == ""
    assert (await said.ended()).reason == "its token has expired"


async def introspected(hostile: Hostile, said: Told, endpoint: str | None = "/introspect") -> tuple[Sessions, str]:
    """A token file's session; and why it was not opened."""
    url = endpoint and f"{hostile.issuer}{endpoint}"
    hostile.say("/.well-known/openid-configuration", hostile.metadata(introspection_endpoint=url))
    sessions = Sessions(said)
    assert sessions.configure((hostile.provider(client_secret="s", introspect=True),)) == ""
    raw = id_token(hostile, aud="weir-api").encode() + b"\n"
    return sessions, (await sessions.begin(told.Begin(1, "f1", "corp", "file", 0, raw))).error


async def test_a_file_ends_when_its_provider_says_so(hostile: Hostile) -> None:
    said = Told()
    hostile.say("/introspect", {"active": True})
    _, error = await introspected(hostile, said)
    assert error == ""
    await until(lambda: hostile.asked.count("/introspect") >= 2)
    hostile.say("/introspect", b"", 503)           # away: what holds goes on
    seen = hostile.asked.count("/introspect")
    await until(lambda: hostile.asked.count("/introspect") >= seen + 2)
    assert [type(one) for one in said.messages] == [told.Verified]
    hostile.say("/introspect", {"active": False})
    assert (await said.ended()).reason == "the provider says that it does not hold any more"


@pytest.mark.parametrize(("document", "status", "said"), [
    ({"active": False}, 200, "does not hold any more"), ({"active": "true"}, 200, "does not hold any more"),
    ({}, 200, "does not hold any more"), ([], 200, "does not hold any more"), (b"{", 200, "makes no sense"),
    ({"active": True}, 401, "does not say whether it holds (401)"), ({"active": True}, 302, "cannot be reached"),
    (b"", 503, "cannot be reached"), (b'{"active": false, "active": true}', 200, "makes no sense")])
async def test_what_is_no_yes_opens_nothing(hostile: Hostile, document: Any, status: int, said: str) -> None:
    hostile.say("/introspect", document, status)
    sessions, error = await introspected(hostile, Told())
    assert said in error
    assert sessions._of == sessions._tasks == {}


async def test_nowhere_to_ask_is_no_yes(hostile: Hostile) -> None:
    assert "has no introspection endpoint" in (await introspected(hostile, Told(), None))[1]


async def test_a_provider_that_changes_ends_its_sessions(hostile: Hostile) -> None:
    sessions, said = await open_person(hostile)
    assert sessions.configure((hostile.provider(),)) == ""
    assert not [one for one in said.messages if isinstance(one, told.Ended)]
    assert sessions.configure((hostile.provider(groups={}),)) == ""
    assert "configuration has changed" in (await said.ended()).reason
    assert (await sessions.begin(told.Begin(1, "s3", "other", "device"))).error == "there is no provider other"


async def test_a_device_flow_is_asked_about_until_it_is_answered(
    hostile: Hostile, monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = Told()
    sessions = Sessions(said)
    assert sessions.configure((hostile.provider(),)) == ""
    hostile.say("/device", {"device_code": "SECRET-device", "user_code": "AB-CD", "verification_uri": "https://x/d",
                            "expires_in": 60, "interval": 1})
    hostile.say("/token", {"error": "authorization_pending"}, 400)
    begun = await sessions.begin(told.Begin(1, "d1", "corp", "device"))
    assert (begun.user_code, begun.url) == ("AB-CD", "https://x/d")
    await until(lambda: "/token" in hostile.asked)
    hostile.say("/token", answer(hostile))
    assert (await said.verified(1))[0].subject == "corp:7b1f"
    sessions.forget(told.Forget(1, "d1"))


@pytest.mark.parametrize("how", ["device", "refresh"])
async def test_tokens_that_nobody_has_are_given_back(hostile: Hostile, how: str) -> None:
    """Where the provider gave them, and they cannot be taken."""
    right = hostile.metadata(revocation_endpoint=f"{hostile.issuer}/revoke")
    hostile.say("/.well-known/openid-configuration", right)
    hostile.say("/revoke", {})
    hostile.say("/device", {"device_code": "d", "user_code": "AB-CD", "verification_uri": "https://x/d",
                            "expires_in": 60, "interval": 1})
    if how == "device":
        said = Told()
        sessions = Sessions(said)
        assert sessions.configure((hostile.provider(),)) == ""
        hostile.say("/token", answer(hostile, sub=""))
        assert (await sessions.begin(told.Begin(1, "d1", "corp", "device"))).error == ""
    else:
        sessions, said = await open_person(hostile)
        hostile.say("/token", answer(hostile, sub=""))
    assert "the subject" in (await said.ended()).reason
    await until(lambda: "/revoke" in hostile.asked)
    await asyncio.gather(*sessions._revoking)
    assert sessions._refresh_tokens == sessions._of == {}


@pytest.mark.parametrize("error", ["access_denied", "expired_token", "invalid_client"])
async def test_a_device_flow_that_is_refused(hostile: Hostile, error: str) -> None:
    said = Told()
    sessions = Sessions(said)
    assert sessions.configure((hostile.provider(),)) == ""
    hostile.say("/device", {"device_code": "d", "user_code": "AB-CD", "verification_uri": "https://x/d",
                            "expires_in": 60, "interval": 1})
    hostile.say("/token", {"error": error}, 400)
    await sessions.begin(told.Begin(1, "d1", "corp", "device"))
    assert error in (await said.ended()).reason


async def test_sessions_have_a_bound(hostile: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 1)
    sessions = Sessions(Told())
    await begin(sessions, hostile)
    begun = await sessions.begin(told.Begin(1, "s2", "corp", "code", 1))
    assert "the most" in begun.error
    sessions.forget(told.Forget(1, "s1"))


async def test_what_holds_tokens_says_nothing_of_them(hostile: Hostile) -> None:
    sessions = Sessions(Told())
    asked = await begin(sessions, hostile)
    waiting = sessions._waiting["s1"]
    for secret in (asked["state"], waiting.verifier, waiting.nonce):
        assert secret not in repr(waiting)
    begin_file = told.Begin(1, "s", "corp", "file", 0, b"SECRET")
    assert "SECRET" not in repr(begin_file) + repr(told.Finish(1, "s", "code=SECRET"))
    assert "SECRET" not in repr(msgspec.convert(answer(hostile), module.Tokens))
