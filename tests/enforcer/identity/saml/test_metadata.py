"""What a provider says of itself, and the request that follows from it."""
from __future__ import annotations

import base64
import zlib
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
import saml_idp as idp
from cryptography.hazmat.primitives.asymmetric import padding
from lxml import etree

from agent.contract.identity import METADATA
from enforcer.identity.saml.keys import parse_key
from enforcer.identity.saml.metadata import parse_metadata
from enforcer.identity.saml.request import render_address
from enforcer.words.errors import AuthenticationError


def test_metadata() -> None:
    found = parse_metadata(idp.metadata(), idp.ISSUER)
    assert (found.address, found.certificates) == (idp.SSO, (idp.CERTIFICATE,))
    assert found.until is None
    more = idp.metadata(idp.CERTIFICATE, idp.certificate(idp.EC), use="", more='validUntil="2027-01-15T08:00:00Z"')
    again = parse_metadata(more, idp.ISSUER)
    assert (len(again.certificates), again.until) == (2, idp.NOW)


@pytest.mark.parametrize(("raw", "said"), [
    (idp.metadata(entity="https://evil.example"), "another entityID"), (b"", "is not one EntityDescriptor"),
    (b"<EntityDescriptor/>", "is not one EntityDescriptor"), (b"<", "is not one EntityDescriptor"),
    (b"\xff\xfe<", "is not one EntityDescriptor"), (idp.metadata() + b" " * METADATA, "is longer than"),
    (idp.metadata().replace(b"<!-- as providers have them -->", b"<!DOCTYPE r>"), "holds a DTD"),
    (idp.metadata().replace(b"<!-- as providers have them -->", b'<!DOCTYPE r [<!ENTITY x "y">]>'), "holds a DTD"),
    (idp.metadata(sso="http://idp.lab.example/sso"), "https address"),
    (idp.metadata(sso="javascript:x"), "https address"), (idp.metadata(binding="SOAP"), "https address"),
    (idp.metadata(use='use="encryption"'), "no certificate"),
    (idp.metadata(idp.certificate(idp.SHORT)), "no certificate"),
    (idp.metadata(*[idp.CERTIFICATE] * 7), "more than 6"),
    (idp.metadata().replace(b"IDPSSODescriptor", b"SPSSODescriptor"), "one IDPSSODescriptor"),
    (idp.metadata().replace(b"SAML:2.0:protocol", b"SAML:1.1:protocol"), "one IDPSSODescriptor"),
    (idp.metadata(more='validUntil="soon"'), "no time")], ids=lambda one: str(one)[-40:])
def test_metadata_that_is_not_taken(raw: bytes, said: str) -> None:
    with pytest.raises(AuthenticationError, match=said):
        parse_metadata(raw, idp.ISSUER)


def parameters(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query, strict_parsing=True))


def test_a_request() -> None:
    url = render_address(idp.asked(), idp.SSO, "relay", None, idp.NOW)
    found = parameters(url)
    assert url.startswith(f"{idp.SSO}?SAMLRequest=")
    assert set(found) == {"SAMLRequest", "RelayState"}
    request = etree.fromstring(zlib.decompress(base64.b64decode(found["SAMLRequest"]), -15))
    said: dict[str, Any] = dict(request.attrib)
    assert said == {
        "ID": idp.REQUEST, "Version": "2.0", "IssueInstant": "2027-01-15T08:00:00Z", "Destination": idp.SSO,
        "AssertionConsumerServiceURL": idp.PLACE,
        "ProtocolBinding": "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"}
    assert request.findtext("a:Issuer", namespaces=idp.NAMESPACES) == idp.WEIR


def test_a_signed_request() -> None:
    url = render_address(idp.asked(), f"{idp.SSO}?tenant=1", "relay", idp.WEIRS, idp.NOW)
    found = parameters(url)
    assert list(found) == ["tenant", "SAMLRequest", "RelayState", "SigAlg", "Signature"]
    signed = urlencode({name: found[name] for name in ("SAMLRequest", "RelayState", "SigAlg")})
    assert signed in url
    idp.WEIRS.public_key().verify(base64.b64decode(found["Signature"]), signed.encode(), padding.PKCS1v15(),
                                  idp.hashes.SHA256())


def test_keys_of_its_own() -> None:
    assert parse_key(idp.WEIRS_PEM).key_size == 2048
    for key in (idp.SHORT, idp.EC):
        pem = key.private_bytes(idp.Encoding.PEM, idp.PrivateFormat.PKCS8, idp.NoEncryption()).decode()
        with pytest.raises(AuthenticationError, match="no RSA key of 2048 bits"):
            parse_key(pem)
    with pytest.raises(AuthenticationError, match="no private key"):
        parse_key("x")
