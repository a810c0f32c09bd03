"""Pure: a response -> the one assertion in it, as it was signed, or nothing.

Signature wrapping moves the signed element aside and puts another where it was (Somorovsky 2012, XSW1 to XSW8).  It is
refused twice: a response has one assertion, in its one place, and signatures only where they belong, before anything
is verified; and what is read afterwards is parsed from the bytes whose digest was signed, not from what came.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from lxml import etree

from agent.contract.identity import FORM
from enforcer.identity.saml.encryption import decrypt
from enforcer.identity.saml.signatures import SIGNATURE, signature_of, verified
from enforcer.identity.saml.tree import parse_tree, render_tree
from enforcer.words.errors import AuthenticationError

SAMLP: Final = "{urn:oasis:names:tc:SAML:2.0:protocol}"
SAML: Final = "{urn:oasis:names:tc:SAML:2.0:assertion}"
RESPONSE, ASSERTION, ENCRYPTED = SAMLP + "Response", SAML + "Assertion", SAML + "EncryptedAssertion"
_CHILDREN: Final = {f"{SAML}Issuer", SIGNATURE, f"{SAMLP}Extensions", f"{SAMLP}Status", ASSERTION, ENCRYPTED}


@dataclass(frozen=True)
class Keys:
    certificates: Sequence[x509.Certificate]      # of the provider's metadata
    private: rsa.RSAPrivateKey | None             # Weir's own


@dataclass(frozen=True)
class Opened:
    """`response`: signed or not (`signed`); `assertion`: as it was signed, None where there is none (a
    response that only says why not)."""

    response: bytes
    signed: bool
    assertion: bytes | None


def open_response(raw: bytes, keys: Keys, now: int) -> Opened:
    """Raises AuthenticationError."""
    root = parse_tree(raw, FORM)
    inner, signed = _only_assertion(root), signature_of(root) is not None
    if signed:
        root = verified(root, keys.certificates, now)
        # A signature of its own is verified in what came: the namespaces that it needs may not be in these bytes.
        inner = inner if inner is not None and signature_of(inner) is not None else _only_assertion(root)
    if inner is None:
        return Opened(render_tree(root), signed, None)
    if inner.tag == ENCRYPTED:
        inner = parse_tree(decrypt(inner, keys.private), FORM)
        _check_decrypted(inner)
    if signature_of(inner) is not None:
        inner = verified(inner, keys.certificates, now)
    elif not signed:
        raise AuthenticationError("neither it nor its assertion is signed")
    return Opened(render_tree(root), signed, render_tree(inner))


def _only_assertion(root: etree._Element) -> etree._Element | None:
    """The response's form (Core, 3.3.3), narrower: one assertion at most, and nothing beside it that could be one."""
    if root.tag != RESPONSE:
        raise AuthenticationError("it is no SAML 2.0 response")
    tags = [one.tag for one in root]
    if not _CHILDREN.issuperset(tags) or any(tags.count(one) > 1 for one in _CHILDREN):
        raise AuthenticationError("it holds more than one of what a response has one of, or something else")
    found = [*root.iter(ASSERTION), *root.iter(ENCRYPTED)]
    if len(found) > 1 or any(one.getparent() is not root for one in found) or len(list(root.iter(RESPONSE))) > 1:
        raise AuthenticationError("it holds more than one assertion, or one where none belongs")
    _check_signatures(root, [root, *root.iter(ASSERTION)])
    return found[0] if found else None


def _check_decrypted(element: etree._Element) -> None:
    inside = [*element.iter(ASSERTION), *element.iter(ENCRYPTED), *element.iter(RESPONSE)]
    if element.tag != ASSERTION or len(inside) > 1:
        raise AuthenticationError("what is encrypted is not one assertion")
    _check_signatures(element, [element])


def _check_signatures(root: etree._Element, owners: list[etree._Element]) -> None:
    found = [one.getparent() for one in root.iter(SIGNATURE)]
    if any(one not in owners for one in found) or len(found) != len(set(found)):
        raise AuthenticationError("a signature stands where none belongs")
