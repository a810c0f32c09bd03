"""Pure: single logout (Core, 3.7; Profiles, 4.4), as narrow as the rest: what a provider asks, and Weir's own words.

A request ends something, so it counts only signed: by HTTP-POST as an element, by HTTP-Redirect as the very octets of
the query (Bindings, 3.4.4.1).  A response ends nothing, for what it answers was done before it was asked: none is read.
"""
from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_plus

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from saml2 import saml, samlp

from agent.contract.identity import LOGOUT, SamlProvider
from enforcer.identity.logouts import Known, Logout
from enforcer.identity.saml.assertion import WINDOW, check_instant, check_issuer, parsed
from enforcer.identity.saml.envelope import SAMLP
from enforcer.identity.saml.signatures import SIGNATURE, verified
from enforcer.identity.saml.times import parse_time, render_time
from enforcer.identity.saml.tree import parse_tree, render_tree
from enforcer.identity.tokens import SKEW
from enforcer.words.errors import AuthenticationError

REQUEST: Final = SAMLP + "LogoutRequest"
XML: Final = 64 << 10                 # bytes of a request
INDEXES: Final = 100                  # sessions that one names
RELAY: Final = 80                     # bytes of RelayState (Bindings, 3.4.3)
# Of a query ECDSA has no one form: whoever signs with it posts.
_METHODS: Final[dict[str, hashes.HashAlgorithm]] = {
    f"http://www.w3.org/2001/04/xmldsig-more#rsa-sha{bits}": one
    for bits, one in ((256, hashes.SHA256()), (384, hashes.SHA384()), (512, hashes.SHA512()))}
_SIGNED: Final = ("SAMLRequest", "RelayState", "SigAlg")


@dataclass(frozen=True)
class Asked:
    """`xml` is what was signed, or stood in what was."""

    xml: bytes
    relay: str


def open_query(query: str, certificates: Iterable[x509.Certificate], now: int) -> Asked:
    """By HTTP-Redirect.  Raises AuthenticationError."""
    if len(query) > LOGOUT or not query.isascii():
        raise AuthenticationError("what came is too long")
    raw = _once([(name, value) for name, _, value in (one.partition("=") for one in query.split("&"))])
    if not {"SAMLRequest", "SigAlg", "Signature"} <= raw.keys() <= {*_SIGNED, "Signature"}:
        raise AuthenticationError("it is not signed, or holds something else than a request")
    algorithm = _METHODS.get(unquote_plus(raw["SigAlg"]))
    signed = "&".join(f"{name}={raw[name]}" for name in _SIGNED if name in raw).encode()
    if algorithm is None:
        raise AuthenticationError("it is signed otherwise than by RSA with SHA-256, SHA-384 or SHA-512")
    signature = _decoded(unquote_plus(raw["Signature"]))
    if not any(_is_signed(one, signature, signed, algorithm, now) for one in certificates):
        raise AuthenticationError("its signature is wrong, or of no key in the provider's metadata that is valid now")
    root = parse_tree(_inflated(_decoded(unquote_plus(raw["SAMLRequest"]))), XML)
    if root.tag != REQUEST or next(root.iter(SIGNATURE), None) is not None:
        raise AuthenticationError("it is no request for logout")
    return Asked(render_tree(root), _relay(unquote_plus(raw.get("RelayState", ""))))


def open_form(body: bytes, certificates: Iterable[x509.Certificate], now: int) -> Asked:
    """By HTTP-POST.  Raises AuthenticationError."""
    if len(body) > LOGOUT:
        raise AuthenticationError("what came is too long")
    try:
        found = _once(parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=8))
    except ValueError:
        raise AuthenticationError("what came is no form") from None
    root = parse_tree(_decoded(found.get("SAMLRequest", "")), XML)
    if root.tag != REQUEST or [one.getparent() for one in root.iter(SIGNATURE)] != [root]:
        raise AuthenticationError("it is no request for logout with one signature, in its place")
    return Asked(render_tree(verified(root, certificates, now)), _relay(found.get("RelayState", "")))


def _once(pairs: list[tuple[str, str]]) -> dict[str, str]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise AuthenticationError("a parameter stands twice")
    return found


def _relay(text: str) -> str:
    if len(text.encode(errors="replace")) > RELAY:
        raise AuthenticationError(f"its RelayState is longer than {RELAY} bytes")
    return text


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise AuthenticationError("what came is malformed") from None


def _inflated(raw: bytes) -> bytes:
    """Never more than XML bytes and one, however much it would be."""
    unpacker = zlib.decompressobj(wbits=-15)
    try:
        found = unpacker.decompress(raw, XML + 1)
    except zlib.error:
        raise AuthenticationError("what came is malformed") from None
    if len(found) > XML or not unpacker.eof or unpacker.unused_data:
        raise AuthenticationError("what came is malformed, or too long")
    return found


def _is_signed(
    certificate: x509.Certificate, signature: bytes, signed: bytes, algorithm: hashes.HashAlgorithm, now: int,
) -> bool:
    key = certificate.public_key()
    ends = (certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp())
    if not isinstance(key, rsa.RSAPublicKey) or not ends[0] <= now <= ends[1]:
        return False
    try:
        key.verify(signature, signed, padding.PKCS1v15(), algorithm)
    except InvalidSignature:
        return False
    return True


def read_request(xml: bytes, provider: SamlProvider, place: str, now: int) -> Logout:
    """Core, 3.2.1 and 3.7.1.  `place`: where it must have been sent.  Raises AuthenticationError."""
    request = parsed(samlp.logout_request_from_string, xml)
    if request.version != "2.0" or not request.id:
        raise AuthenticationError("it is no SAML 2.0 request")
    if request.destination != place:
        raise AuthenticationError("it is for another place (Destination)")
    check_issuer(request.issuer, provider)
    check_instant(request.issue_instant, now)
    issued = parse_time(request.issue_instant, "IssueInstant") or 0
    end = parse_time(request.not_on_or_after, "NotOnOrAfter")
    if end is not None and end + SKEW <= now:
        raise AuthenticationError("it has expired")
    name = request.name_id
    if name is None or name.extension_elements or not name.text or not is_weirs(name, provider):
        raise AuthenticationError("it names nobody in clear")
    indexes = tuple(one.text or "" for one in request.session_index)
    if len(indexes) > INDEXES or not all(indexes):
        raise AuthenticationError(f"it names more than {INDEXES} sessions, or one without a name")
    # A login whose assertion named no session is known by its name alone.
    sessions = (*indexes, "") if indexes else ()
    return Logout(provider.name, name.text, sessions, issued, request.id, issued + WINDOW + SKEW)


def is_weirs(name: Any, provider: SamlProvider) -> bool:
    """It is this provider's name, for Weir (Core, 8.3.7)."""
    return (name.name_qualifier in (None, "", provider.issuer)
            and name.sp_name_qualifier in (None, "", provider.entity_id))


def render_response(provider: SamlProvider, request: str, address: str, name: str, now: int) -> bytes:
    """Core, 3.7.2: it is done.  `name`: its own ID."""
    status = samlp.Status(status_code=samlp.StatusCode(value=samlp.STATUS_SUCCESS))
    return str(samlp.LogoutResponse(
        id=name, version="2.0", issue_instant=render_time(now), destination=address, in_response_to=request,
        status=status, issuer=saml.Issuer(text=provider.entity_id))).encode()


def render_request(provider: SamlProvider, known: Known, address: str, name: str, now: int) -> bytes:
    """Core, 3.7.1: of this session."""
    index = [samlp.SessionIndex(text=known.session)] if known.session else []
    return str(samlp.LogoutRequest(
        id=name, version="2.0", issue_instant=render_time(now), destination=address,
        not_on_or_after=render_time(now + 300), issuer=saml.Issuer(text=provider.entity_id),
        name_id=saml.NameID(text=known.name, format=known.form or None), session_index=index)).encode()
