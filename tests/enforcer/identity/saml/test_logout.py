"""Single logout: which requests end which sessions, by both bindings; each way in which one may be wrong."""
from __future__ import annotations

import base64
import time
import zlib
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
import saml_idp as idp
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from lxml import etree
from saml_logout import PLACE, form, posted, query, request

from agent.contract import identity as told
from enforcer.identity.logouts import Known
from enforcer.identity.sessions import Sessions

SLO = "https://idp.lab.example/slo"
SERVICE = f'<SingleLogoutService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" Location="{SLO}"/>'


def metadata(service: str = SERVICE, key: Any = idp.KEY, **changed: Any) -> bytes:
    now = int(time.time())
    made = idp.metadata(idp.certificate(key, **({"begin": now - 60, "end": now + 3600} | changed)))
    return made.replace(b"<SingleSignOnService", f"{service}<SingleSignOnService".encode(), 1)


class Here:
    def __init__(self, **changed: Any) -> None:
        self.said: list[Any] = []
        self.sessions = Sessions(self.said.append)
        assert self.sessions.configure((), (idp.provider(**({"metadata": metadata()} | changed)),)) == ""

    async def open(self, session: str = "s1", index: str = "one", **changed: Any) -> None:
        begun = await self.sessions.begin(told.Begin(1, session, "corp", "saml", 4444))
        found = dict(parse_qsl(urlsplit(begun.url).query))
        asked = etree.fromstring(zlib.decompress(base64.b64decode(found["SAMLRequest"]), -15)).get("ID")
        now = int(time.time())
        inner = idp.assertion(now, f"_a{time.monotonic_ns()}", in_response_to=asked, **(
            {"statement": f'<a:AuthnStatement SessionIndex="{index}"/>' if index else "<a:AuthnStatement/>"} | changed))
        answer = idp.form(idp.response(idp.sign(inner), now, in_response_to=asked), found["RelayState"])
        assert (await self.sessions.finish(told.Finish(2, session, answer))).error == ""

    def sit(self, session: str = "s1", index: str = "one", name: str = "ada") -> None:
        """As if it had been opened; how that goes is the first test's."""
        self.sessions._of[session] = "corp"
        self.sessions._known[session] = Known(name, index, int(time.time()))

    async def logout(self, query: str = "", form: bytes = b"", place: str = PLACE) -> told.LoggedOut:
        return await self.sessions.saml_logout(told.SamlLogout(3, "corp", place, query, form))

    @property
    def ended(self) -> list[str]:
        return sorted(one.session for one in self.said if isinstance(one, told.Ended))


def answered(url: str) -> tuple[Any, dict[str, str]]:
    """Weir's LogoutResponse, its signature verified with what Weir's key is known by."""
    parts, found = urlsplit(url), dict(parse_qsl(urlsplit(url).query))
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == SLO
    signed, _, signature = parts.query.rpartition("&Signature=")
    assert signature
    idp.WEIRS.public_key().verify(base64.b64decode(found["Signature"]), signed.encode(), padding.PKCS1v15(),
                                  hashes.SHA256())
    name = "SAMLResponse" if "SAMLResponse" in found else "SAMLRequest"
    return etree.fromstring(zlib.decompress(base64.b64decode(found[name]), -15)), found


@pytest.mark.parametrize("how", ["redirect", "post"])
async def test_a_right_one_ends_its_session_once_and_is_answered(how: str) -> None:
    here = Here()
    await here.open()
    given: Any = {"query": query(request(), "their/state")} if how == "redirect" else {
        "form": posted(relay="their/state")}
    done = await here.logout(**given)
    assert done.error == ""
    assert here.ended == ["s1"]
    assert here.said[-1].reason == "its session at the provider has ended"
    response, found = answered(done.url)
    assert found["RelayState"] == "their/state"
    assert (etree.QName(response).localname, response.get("InResponseTo"), response.get("Destination")) == (
        "LogoutResponse", "_logout", SLO)
    [code] = response.xpath("//p:StatusCode/@Value", namespaces=idp.NAMESPACES)
    assert code.endswith(":Success")
    assert "came before" in (await here.logout(**given)).error


@pytest.mark.parametrize(("bits", "algorithm"), [("384", hashes.SHA384()), ("512", hashes.SHA512())])
async def test_other_hashes_and_another_way_to_write_the_same(bits: str, algorithm: Any) -> None:
    """What was signed are the octets that came, however they are escaped."""
    here = Here()
    here.sit()
    method = f"http://www.w3.org/2001/04/xmldsig-more#rsa-sha{bits}"
    done = await here.logout(query(request(), method=method, algorithm=algorithm, quote=lambda text: "".join(
        f"%{ord(one):02x}" for one in text)))
    assert done.error == ""
    assert here.ended == ["s1"]


@pytest.mark.parametrize(("changed", "why"), [
    ({"version": "1.1"}, "no SAML 2.0"), ({"destination": "https://evil.example/"}, "another place"),
    ({"destination": ""}, "another place"), ({"issuer": "<a:Issuer>https://evil.example</a:Issuer>"}, "another issuer"),
    ({"issuer": ""}, "another issuer"), ({"instant": "2001-01-01T00:00:00Z"}, "too long ago"),
    ({"instant": "2100-01-01T00:00:00Z"}, "in the future"), ({"end": "2001-01-01T00:00:00Z"}, "has expired"),
    ({"name_id": ""}, "names nobody in clear"), ({"name_id": "<a:NameID/>"}, "names nobody in clear"),
    ({"name_id": '<a:NameID SPNameQualifier="urn:other">ada</a:NameID>'}, "names nobody in clear"),
    ({"name_id": '<a:NameID NameQualifier="urn:other">ada</a:NameID>'}, "names nobody in clear"),
    ({"name_id": "<a:EncryptedID/>"}, "names nobody in clear"), ({"index": "<p:SessionIndex/>"}, "without a name"),
    ({"index": "<p:SessionIndex>x</p:SessionIndex>" * 101}, "more than 100"),
    ({"root": "AuthnRequest"}, "no request for logout"), ({"root": "LogoutResponse"}, "no request for logout"),
    ({"more": "<!-- x -->"}, "comment"), ({"more": "<![CDATA[x]]>"}, "CDATA"),
])
@pytest.mark.parametrize("how", ["redirect", "post"])
async def test_a_wrong_one_ends_nothing(how: str, changed: dict[str, str], why: str) -> None:
    here = Here()
    here.sit()
    if how == "redirect":
        done = await here.logout(query(request(**changed)))
    else:
        # lxml reads what it signs: a comment is put in where it was signed without.
        text = idp.sign(request(**(changed | {"more": ""})), changed.get("root", "LogoutRequest"))
        done = await here.logout(form=form(text.replace("</a:Issuer>", f"</a:Issuer>{changed.get('more', '')}", 1)))
    assert why in done.error
    assert (done.url, here.ended) == ("", [])
    assert (await here.logout(query(request("_right")))).error == ""
    assert here.ended == ["s1"]


def changed_query(change: Any) -> str:
    pairs = parse_qsl(query(request(), "relay"))
    return urlencode(change(pairs))


@pytest.mark.parametrize("made", [
    lambda: changed_query(lambda pairs: pairs[:2]), lambda: changed_query(lambda pairs: pairs[:3]),
    lambda: changed_query(lambda pairs: [*pairs, pairs[0]]), lambda: changed_query(lambda pairs: [*pairs, ("x", "y")]),
    lambda: changed_query(lambda pairs: [pairs[0], ("RelayState", "other"), *pairs[2:]]),
    lambda: changed_query(lambda pairs: [pairs[0], *pairs[2:]]),
    lambda: changed_query(lambda pairs: [("SAMLRequest", parse_qsl(query(request("_other")))[0][1]), *pairs[1:]]),
    lambda: query(request(), key=idp.STRANGE),
    lambda: query(request(), method="http://www.w3.org/2000/09/xmldsig#rsa-sha1", algorithm=hashes.SHA1()),
    lambda: query(request(), method="http://www.w3.org/2000/09/xmldsig#hmac-sha1"),
    lambda: query(request(), relay="r" * 81), lambda: query("x" * 70_000), lambda: query("no xml"),
    lambda: query(idp.sign(request(), "LogoutRequest")), lambda: "", lambda: "SAMLRequest=%ff", lambda: "ä=1",
    lambda: "x" * (told.LOGOUT + 1), lambda: changed_query(lambda pairs: [*pairs[:3], ("Signature", "!")]),
])
async def test_queries_that_are_not_signed_as_they_must_be(made: Any) -> None:
    here = Here()
    here.sit()
    done = await here.logout(made() or "x")
    assert done.error
    assert here.ended == []


async def test_a_bomb_is_not_unpacked() -> None:
    here = Here()
    here.sit()
    done = await here.logout(query(request(more=" " * 20_000_000)))
    assert "too long" in done.error


def wrapped(text: str) -> str:
    """The signed one inside of another that names somebody else (XSW)."""
    inner = etree.fromstring(idp.sign(text, "LogoutRequest"))
    outer = etree.fromstring(request("_evil", name_id="<a:NameID>grace</a:NameID>"))
    holder = etree.SubElement(outer, f"{{{idp.NAMESPACES['p']}}}Extensions")
    signature = inner.find("ds:Signature", idp.NAMESPACES)
    inner.remove(signature)
    holder.append(inner)
    outer.insert(1, signature)
    return etree.tostring(outer).decode()


@pytest.mark.parametrize("made", [
    lambda: form(request()), lambda: posted(idp.STRANGE), lambda: form(wrapped(request())),
    lambda: form(idp.sign(request(), "LogoutRequest").replace(">ada<", ">grace<")),
    lambda: posted(signing={"method": "http://www.w3.org/2000/09/xmldsig#rsa-sha1", "hash": hashes.SHA1()}),
    lambda: posted(signing={"uri": ""}), lambda: posted(relay="r" * 81), lambda: b"SAMLRequest=a&SAMLRequest=b",
    lambda: b"x" * (told.LOGOUT + 1), lambda: b"\xff", lambda: b"SAMLRequest=!", lambda: b"a=b",
])
async def test_forms_that_are_not_signed_as_they_must_be(made: Any) -> None:
    here = Here()
    here.sit()
    here.sit("s2", name="grace")
    done = await here.logout(form=made())
    assert done.error
    assert here.ended == []


async def test_a_certificate_whose_time_is_over() -> None:
    now = int(time.time())
    here = Here(metadata=metadata(begin=now - 7200, end=now - 3600))
    assert "valid now" in (await here.logout(query(request()))).error


@pytest.mark.parametrize(("changed", "ended"), [
    ({}, ["s1"]), ({"index": ""}, ["s1", "s2"]), ({"index": "<p:SessionIndex>none</p:SessionIndex>"}, []),
    ({"index": "<p:SessionIndex>one</p:SessionIndex><p:SessionIndex>two</p:SessionIndex>"}, ["s1", "s2"]),
    ({"name_id": "<a:NameID>grace</a:NameID>"}, []), ({"name_id": "<a:NameID>grace</a:NameID>", "index": ""}, ["s3"]),
])
async def test_whose_sessions_end(changed: dict[str, str], ended: list[str]) -> None:
    here = Here()
    here.sit("s1", "one")
    here.sit("s2", "two")
    here.sit("s3", "three", "grace")
    assert (await here.logout(query(request(**changed)))).error == ""
    assert here.ended == ended


async def test_a_login_that_named_no_session_is_known_by_its_name() -> None:
    here = Here()
    await here.open(index="")
    assert (await here.logout(query(request()))).error == ""
    assert here.ended == ["s1"]


async def test_without_a_place_to_answer_it_ends_all_the_same() -> None:
    here = Here(metadata=metadata(""))
    here.sit()
    assert await here.logout(query(request())) == told.LoggedOut(3)
    assert here.ended == ["s1"]


async def test_an_answer_is_no_request() -> None:
    """Nothing is done by a LogoutResponse: what it answers was done before it was asked."""
    here = Here()
    here.sit()
    done = await here.logout(query(request()).replace("SAMLRequest", "SAMLResponse"))
    assert "holds something else than a request" in done.error


async def test_who_logs_out_here_may_log_out_there() -> None:
    here = Here()
    await here.open()
    done = await here.sessions.leave(told.Leave(5, "s1"))
    asked, found = answered(done.url)
    assert "RelayState" not in found
    assert (etree.QName(asked).localname, asked.get("Destination")) == ("LogoutRequest", SLO)
    assert asked.xpath("string(a:NameID)", namespaces=idp.NAMESPACES) == "ada"
    assert asked.xpath("string(a:NameID/@Format)", namespaces=idp.NAMESPACES).endswith(":persistent")
    assert asked.xpath("string(p:SessionIndex)", namespaces=idp.NAMESPACES) == "one"
    assert asked.xpath("string(a:Issuer)", namespaces=idp.NAMESPACES) == idp.WEIR
    assert not here.sessions._known
    assert (await here.sessions.leave(told.Leave(6, "s1"))).url == ""
    without = Here(metadata=metadata(""))
    await without.open()
    assert await without.sessions.leave(told.Leave(7, "s1")) == told.LoggedOut(7)


async def test_providers_do_not_mix() -> None:
    here = Here()
    other = idp.provider(name="other", metadata=metadata(key=idp.STRANGE))
    here.sessions.configure((), (idp.provider(metadata=metadata()), other))
    done = await here.sessions.saml_logout(told.SamlLogout(3, "other", PLACE, query(request())))
    assert "its signature is wrong" in done.error
    done = await here.sessions.saml_logout(told.SamlLogout(3, "nobody", PLACE, query(request())))
    assert "has no single logout" in done.error
