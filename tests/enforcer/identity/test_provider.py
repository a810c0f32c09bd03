"""The identity process' own code against a real provider, Keycloak, without the rest of Weir.

Keycloak is started once (some 25 seconds of a processor): slow.
"""
from __future__ import annotations

import asyncio
import base64
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
import saml_idp
from lab import certificates
from lab.keycloak import HERE, HOME, PLAIN, REALM, SEALED, Browser, Keycloak, keycloak

from agent.commands.loopback_answer import Listener
from agent.contract import identity as told
from agent.contract.identity import NAME_ID, Provider, SamlProvider
from enforcer.identity.remote import Remote
from enforcer.identity.sessions import Sessions
from enforcer.identity.tokens import ACCESS
from enforcer.words.errors import AuthenticationError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keycloak]:
    assert (HOME / "bin" / "kc.sh").exists(), "no Keycloak: sudo ./bootstrap test-all installs it"
    with keycloak(tmp_path_factory.mktemp("idp"), certificates.make_authority(), HERE) as made:
        yield made


def person(made: Keycloak, **changed: Any) -> Provider:
    base = {"name": "corp", "issuer": made.issuer, "client_id": "weir", "client_secret": "", "audience": "weir-api",
            "algorithms": ("RS256", "ES256"), "ca": Path(made.ca).read_text(), "scopes": (), "subject_claim": "sub",
            "groups_claim": ("groups",), "groups": {"data": "data", "dba": "dba"}, "required": {"email_verified": True},
            "refresh": 1}
    return Provider(**(base | changed))


def service(made: Keycloak, **changed: Any) -> Provider:
    return person(made, **({"client_id": "weir-svc", "client_secret": made.service_secret, "required": {}} | changed))


class Told:
    def __init__(self) -> None:
        self.messages: asyncio.Queue[Any] = asyncio.Queue()

    def __call__(self, message: Any) -> None:
        self.messages.put_nowait(message)

    async def until(self, wanted: Any) -> Any:
        async with asyncio.timeout(120):
            while not wanted(message := await self.messages.get()):
                pass
        return message


async def forget(sessions: Sessions, session: str = "s") -> None:
    """With what it has to say at the provider."""
    sessions.forget(told.Forget(9, session))
    await asyncio.gather(*sessions._revoking)


async def log_in(sessions: Sessions, made: Keycloak, name: str = "ada") -> None:
    """By the device flow."""
    begun = await sessions.begin(told.Begin(1, "s", "corp", "device"))
    assert begun.error == ""
    await asyncio.to_thread(Browser(made, HERE).go, begun.complete, name)


async def test_the_device_flow(provider: Keycloak) -> None:
    said = Told()
    sessions = Sessions(said)
    assert sessions.configure((person(provider),)) == ""
    await log_in(sessions, provider)
    verified = await said.until(lambda one: isinstance(one, told.Verified))
    assert (verified.subject, verified.groups) == (f"corp:{provider.user('ada')}", ("data",))
    # Refreshed, without anybody asking.
    again = await said.until(lambda one: isinstance(one, told.Verified))
    assert (again.subject, again.groups) == (verified.subject, verified.groups)
    await forget(sessions, "s")


async def test_the_code_flow_on_the_loopback_redirect(provider: Keycloak) -> None:
    said = Told()
    sessions = Sessions(said)
    assert sessions.configure((person(provider),)) == ""
    with Listener() as listener:
        begun = await sessions.begin(told.Begin(1, "s", "corp", "code", listener.port))
        assert begun.error == ""
        page: list[Any] = []
        browser = threading.Thread(target=lambda: page.append(Browser(provider, HERE).go(begun.url, "ada")))
        browser.start()
        query = await asyncio.to_thread(listener.wait, begun.url, "corp", 30)
        browser.join(60)
    assert page[0].status_code == 200
    assert query is not None
    assert (await sessions.finish(told.Finish(2, "s", query))).error == ""
    assert (await said.until(lambda one: True)).groups == ("data",)
    assert (await sessions.finish(told.Finish(3, "s", query))).error == "no login waits for this answer"
    await forget(sessions, "s")


async def test_a_code_is_for_who_has_its_verifier(provider: Keycloak) -> None:
    """PKCE: the code of one login, with the verifier of another, buys nothing."""
    sessions = Sessions(Told())
    assert sessions.configure((person(provider),)) == ""
    with Listener() as listener:
        begun = await sessions.begin(told.Begin(1, "s", "corp", "code", listener.port))
        browser = threading.Thread(target=lambda: Browser(provider, HERE).go(begun.url, "ada"))
        browser.start()
        query = await asyncio.to_thread(listener.wait, begun.url, "corp", 30)
        browser.join(60)
    assert query is not None
    code = dict(part.split("=", 1) for part in query.split("&"))["code"]
    with pytest.raises(AuthenticationError, match="invalid_grant"):
        await Remote(person(provider)).exchange(code, "v" * 64, f"http://127.0.0.1:{listener.port}/callback/corp")
    await forget(sessions, "s")


def by_saml(made: Keycloak, **changed: Any) -> SamlProvider:
    base = {"name": "corp", "issuer": made.issuer, "entity_id": PLAIN, "metadata": b"", "metadata_url": made.metadata,
            "ca": Path(made.ca).read_text(), "key": "", "subject_claim": NAME_ID, "groups_claim": ("groups",),
            "groups": {"data": "data", "dba": "dba"}, "required": {}}
    return SamlProvider(**(base | changed))


async def posted(sessions: Sessions, made: Keycloak, session: str = "s") -> str:
    """What the browser brings of a login by SAML."""
    with Listener() as listener:
        begun = await sessions.begin(told.Begin(1, session, "corp", "saml", listener.port))
        assert begun.error == ""
        page: list[Any] = []
        browser = threading.Thread(target=lambda: page.append(Browser(made, HERE).go(begun.url, "ada")))
        browser.start()
        form = await asyncio.to_thread(listener.wait, begun.url, "corp", 30)
        browser.join(60)
    assert page
    assert page[0].status_code == 200, page[0].text[:2000]
    assert form is not None
    return form


@pytest.mark.parametrize("entity", [PLAIN, SEALED])
async def test_saml(provider: Keycloak, entity: str) -> None:
    said = Told()
    sessions = Sessions(said)
    sealed = {"entity_id": SEALED, "key": provider.key}
    assert sessions.configure((), (by_saml(provider, **(sealed if entity == SEALED else {})),)) == ""
    form = await posted(sessions, provider)
    other = await posted(sessions, provider, "other")
    response = base64.b64decode(dict(parse_qsl(form))["SAMLResponse"])
    assert (b"EncryptedAssertion" in response) == (entity == SEALED)
    assert "another login" in (await sessions.finish(told.Finish(2, "other", form))).error
    assert (await sessions.finish(told.Finish(2, "s", form))).error == ""
    found = await said.until(lambda one: True)
    assert (found.subject, found.groups) == ("corp:ada", ("data",))
    assert (await sessions.finish(told.Finish(3, "s", form))).error == "no login waits for this answer"
    assert (await sessions.finish(told.Finish(3, "other", other))).error == "no login waits for this answer"
    await forget(sessions, "s")


@pytest.mark.parametrize(("old", "new", "reason"), [
    (b">ada<", b">root<", "signature is wrong"), (b">ada<", b">ada<!-- -->.evil<", "a comment"),
    (b"urn:weir:lab", b"urn:weir:xxx", "signature is wrong"),
    (b"SAML:2.0:status:Success", b"SAML:2.0:status:Responder", "says Responder")])
async def test_saml_that_somebody_changed(provider: Keycloak, old: bytes, new: bytes, reason: str) -> None:
    sessions = Sessions(Told())
    assert sessions.configure((), (by_saml(provider),)) == ""
    found = dict(parse_qsl(await posted(sessions, provider)))
    response = base64.b64decode(found["SAMLResponse"])
    assert old in response, response
    form = urlencode({**found, "SAMLResponse": base64.b64encode(response.replace(old, new)).decode()})
    assert reason in (await sessions.finish(told.Finish(2, "s", form))).error


async def test_saml_for_somebody_else(provider: Keycloak) -> None:
    """Who cannot sign cannot ask in the name of who does; an answer to another place than the registered is none."""
    sessions = Sessions(Told())
    for changed in ({"entity_id": SEALED}, {"entity_id": SEALED, "key": saml_idp.WEIRS_PEM}, {"name": "other"}):
        assert sessions.configure((), (by_saml(provider, **changed),)) == ""
        begun = await sessions.begin(told.Begin(1, "s", str(changed.get("name", "corp")), "saml", 4444))
        assert begun.error == ""
        assert (await asyncio.to_thread(Browser(provider, HERE).go, begun.url, "ada")).status_code == 400


async def test_a_refresh_reads_groups_again(provider: Keycloak) -> None:
    said = Told()
    sessions = Sessions(said)
    assert sessions.configure((person(provider),)) == ""
    await log_in(sessions, provider, "grace")
    assert (await said.until(lambda one: True)).groups == ()
    provider.join("grace", "data")
    try:
        assert (await said.until(lambda one: one.groups)).groups == ("data",)
    finally:
        provider.join("grace", "data", leave=True)
        await forget(sessions, "s")


async def test_who_is_locked_out_there_is_out(provider: Keycloak) -> None:
    said = Told()
    sessions = Sessions(said)
    assert sessions.configure((person(provider),)) == ""
    await log_in(sessions, provider)
    await said.until(lambda one: True)
    provider.revoke("ada")
    ended = await said.until(lambda one: isinstance(one, told.Ended))
    assert "invalid_grant" in ended.reason


async def test_logging_out_ends_it_there(provider: Keycloak) -> None:
    said = Told()
    sessions = Sessions(said)
    assert sessions.configure((person(provider),)) == ""
    await log_in(sessions, provider)
    await said.until(lambda one: True)
    token = sessions._refresh_tokens.get("s", "")
    await forget(sessions, "s")
    assert provider.admin("GET", f"/{REALM}/users/{provider.user('ada')}/sessions") == []
    if token:
        with pytest.raises(AuthenticationError, match="invalid_grant"):
            await Remote(person(provider)).refresh(token)


async def test_client_credentials(provider: Keycloak) -> None:
    said = Told()
    sessions = Sessions(said)
    roles = {"groups_claim": ("realm_access", "roles"), "groups": {"offline_access": "data"}}
    assert sessions.configure((service(provider, **roles),)) == ""
    assert (await sessions.begin(told.Begin(1, "c", "corp", "client"))).error == ""
    verified = await said.until(lambda one: True)
    assert verified.subject.startswith("corp:")
    assert verified.groups == ("data",)
    await forget(sessions, "c")
    assert sessions.configure((service(provider, client_secret="not-it"),)) == ""
    assert "the provider says" in (await sessions.begin(told.Begin(1, "c", "corp", "client"))).error


async def test_tokens_of_others(provider: Keycloak) -> None:
    """Really signed by the provider, and not for Weir."""
    remote = Remote(service(provider))
    assert (await remote.identify(provider.service_token(), ACCESS)).subject.startswith("corp:")
    with pytest.raises(AuthenticationError, match="another audience"):
        await remote.identify(provider.service_token("elsewhere"), ACCESS)
    with pytest.raises(AuthenticationError, match="algorithm"):
        await Remote(service(provider, algorithms=("ES256",))).identify(provider.service_token(), ACCESS)
    with pytest.raises(AuthenticationError, match=r"names another issuer|cannot be reached"):
        await Remote(service(provider, issuer=f"{provider.issuer}/")).identify(provider.service_token(), ACCESS)


async def test_keys_that_are_rotated(provider: Keycloak) -> None:
    """The provider signs with a new key: it is found; tokens of the old one count as long as that is published."""
    clock = [1000.0]
    remote = Remote(service(provider), monotonic=lambda: clock[0])
    old = provider.service_token()
    await remote.identify(old, ACCESS)
    realm = provider.admin("GET", f"/{REALM}")["id"]
    provider.admin("POST", f"/{REALM}/components", {
        "name": "fresh", "providerId": "rsa-generated", "providerType": "org.keycloak.keys.KeyProvider",
        "parentId": realm, "config": {"priority": ["1000"], "enabled": ["true"], "active": ["true"],
                                      "algorithm": ["RS256"], "keySize": ["2048"]}})
    fresh = provider.service_token()
    clock[0] += 60
    await remote.identify(fresh, ACCESS)
    await remote.identify(old, ACCESS)


@dataclass
class Door:
    """Where the provider posts that somebody has logged out there: what it posts."""

    url: str
    came: queue.Queue[bytes] = field(default_factory=queue.Queue)

    async def next(self) -> bytes:
        return await asyncio.to_thread(self.came.get, True, 60)


@pytest.fixture
def door() -> Iterator[Door]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            made.came.put(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Door(f"http://127.0.0.1:{server.server_port}/logout/corp")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield made
        server.shutdown()


async def test_a_logout_there_is_told_at_once(provider: Keycloak, door: Door) -> None:
    """Long before the next refresh; what Keycloak posts is taken as it is."""
    said = Told()
    sessions = Sessions(said)
    assert sessions.configure((person(provider, refresh=3600),)) == ""
    with provider.changed("weir", {"backchannel.logout.url": door.url, "backchannel.logout.session.required": "true"}):
        await log_in(sessions, provider)
        await said.until(lambda one: isinstance(one, told.Verified))
        provider.revoke("ada")
        body = await door.next()
    assert (await sessions.logout(told.Logout(7, "corp", body))).error == ""
    ended = await said.until(lambda one: isinstance(one, told.Ended))
    assert (ended.session, ended.reason) == ("s", "its session at the provider has ended")
    assert "came before" in (await sessions.logout(told.Logout(8, "corp", body))).error
    await asyncio.gather(*sessions._revoking)


async def test_a_logout_there_of_saml_is_told_at_once(provider: Keycloak, door: Door) -> None:
    """Posted by the provider itself, signed, with the session's index."""
    said = Told()
    sessions = Sessions(said)
    assert sessions.configure((), (by_saml(provider, entity_id=SEALED, key=provider.key),)) == ""
    with provider.changed(SEALED, {"saml_single_logout_service_url_post": door.url}, frontchannelLogout=False):
        for session in ("s", "other"):
            form = await posted(sessions, provider, session)
            assert (await sessions.finish(told.Finish(2, session, form))).error == ""
        known = dict(sessions._known)
        assert known["s"].session
        assert known["s"].session != known["other"].session
        provider.revoke("ada")
        bodies = [await door.next(), await door.next()]
    for number, body in enumerate(bodies):
        done = await sessions.saml_logout(told.SamlLogout(number, "corp", door.url, "", body))
        assert done.error == ""
        assert done.url.startswith(provider.issuer)
        assert len([one for one in known if one not in sessions._known]) == number + 1
    again = await sessions.saml_logout(told.SamlLogout(9, "corp", door.url, "", bodies[0]))
    assert "came before" in again.error
    elsewhere = await sessions.saml_logout(told.SamlLogout(9, "corp", f"{door.url}/", "", bodies[0]))
    assert "another place" in elsewhere.error


async def test_a_token_that_was_taken_back(provider: Keycloak) -> None:
    """Nothing in it says so: the provider is asked (RFC 7662)."""
    said = Told()
    sessions = Sessions(said)
    assert sessions.configure((service(provider, introspect=True),)) == ""
    token = provider.service_token().encode()
    issued = int(time.time())
    assert (await sessions.begin(told.Begin(1, "f", "corp", "file", 0, token))).error == ""
    await said.until(lambda one: isinstance(one, told.Verified))
    while int(time.time()) <= issued:          # it takes back what was issued in seconds before this one
        await asyncio.sleep(0.05)
    provider.revoke("service-account-weir-svc")
    ended = await said.until(lambda one: isinstance(one, told.Ended))
    assert ended.reason == "the provider says that it does not hold any more"
    assert "does not hold" in (await sessions.begin(told.Begin(1, "f", "corp", "file", 0, token))).error
