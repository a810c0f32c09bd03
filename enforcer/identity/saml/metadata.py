"""Pure: what a provider says of itself (SAML 2.0 Metadata), as far as it is taken.

Whoever wrote the file, or serves it by TLS at the configured address, is believed: no signature in it is looked at.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from defusedxml import DefusedXmlException
from saml2 import BINDING_HTTP_REDIRECT, md, samlp

from agent.contract.identity import METADATA
from enforcer.identity.metadata import is_https
from enforcer.identity.saml.keys import parse_certificate
from enforcer.identity.saml.times import parse_time
from enforcer.words.errors import AuthenticationError

CERTIFICATES: Final = 6               # that may have signed, each of which is tried: old and new


@dataclass(frozen=True)
class Idp:
    address: str                      # of its single sign-on, by redirect
    certificates: tuple[x509.Certificate, ...]
    until: int | None                 # seconds UTC, after which it may not be used
    logout: str = ""                  # of its single logout, by redirect; "": it has none
    answers: str = ""                 # where it is answered


def parse_metadata(raw: bytes, issuer: str) -> Idp:
    """Raises AuthenticationError, with words for an operator."""
    entity = _entity(raw)
    if entity.entity_id != issuer:
        raise AuthenticationError("names another entityID than `issuer`")
    roles = [one for one in entity.idpsso_descriptor
             if samlp.NAMESPACE in (one.protocol_support_enumeration or "").split()]
    if len(roles) != 1:
        raise AuthenticationError("does not hold one IDPSSODescriptor of SAML 2.0")
    [role] = roles
    found = [one.location or "" for one in role.single_sign_on_service if one.binding == BINDING_HTTP_REDIRECT]
    if len(found) != 1 or not is_https(found[0]):
        raise AuthenticationError("does not name one https address for single sign-on by HTTP-Redirect")
    certificates = tuple(_certificates(role))
    if not 0 < len(certificates) <= CERTIFICATES:
        raise AuthenticationError("holds no certificate for signing with an RSA key of 2048 bits or more or an EC one "
                                  f"of P-256, P-384 or P-521, or more than {CERTIFICATES}")
    ends = [parse_time(one.valid_until, "validUntil") for one in (entity, role)]
    logout, answers = _logout(role)
    return Idp(found[0], certificates, min((one for one in ends if one is not None), default=None), logout, answers)


def _logout(role: Any) -> tuple[str, str]:
    """Where one is asked and answered, by redirect (Metadata, 2.4.2)."""
    places = [one for one in role.single_logout_service if one.binding == BINDING_HTTP_REDIRECT]
    if len(places) != 1 or not is_https(places[0].location or ""):
        return "", ""
    answers = places[0].response_location or places[0].location
    return (places[0].location, answers) if is_https(answers) else ("", "")


def _entity(raw: bytes) -> Any:
    if len(raw) > METADATA:
        raise AuthenticationError(f"is longer than {METADATA} bytes")
    # A DTD alone would pass defusedxml; in another encoding than UTF-8 it could not be seen here.
    try:
        text = raw.decode()
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise AuthenticationError("holds a DTD")
        entity = md.entity_descriptor_from_string(text.encode())
    except (DefusedXmlException, SyntaxError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        entity = None
    if entity is None:
        raise AuthenticationError("is not one EntityDescriptor of SAML 2.0 metadata, XML in UTF-8")
    return entity


def _certificates(role: Any) -> list[x509.Certificate]:
    found = []
    for descriptor in role.key_descriptor:
        if descriptor.use in (None, "signing") and descriptor.key_info is not None:
            texts = [one.x509_certificate.text or "" for one in descriptor.key_info.x509_data if one.x509_certificate]
            found += [one for one in map(parse_certificate, texts) if one is not None]
    return found
