"""Pure: a signed element -> the bytes that were signed.  signxml checks the signature; what may be signed how is here.

Whoever reads on reads these bytes and nothing else (XML Signature Best Practices: see what is signed): an element that
was moved, wrapped or put beside the signed one is not in them.  The keys are the metadata's: what the signature itself
says of keys (KeyInfo) is not believed.
"""
from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from lxml import etree
from signxml.algorithms import DigestAlgorithm, SignatureMethod
from signxml.exceptions import SignXMLException
from signxml.verifier import SignatureConfiguration, VerifyResult, XMLVerifier

from enforcer.identity.saml.tree import parse_tree, render_tree
from enforcer.words.errors import AuthenticationError

DS: Final = "{http://www.w3.org/2000/09/xmldsig#}"
SIGNATURE: Final = DS + "Signature"
ENVELOPED: Final = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
EXCLUSIVE: Final = "http://www.w3.org/2001/10/xml-exc-c14n#"
METHODS: Final = frozenset((
    SignatureMethod.RSA_SHA256, SignatureMethod.RSA_SHA384, SignatureMethod.RSA_SHA512,
    SignatureMethod.SHA256_RSA_MGF1, SignatureMethod.SHA384_RSA_MGF1, SignatureMethod.SHA512_RSA_MGF1,
    SignatureMethod.ECDSA_SHA256, SignatureMethod.ECDSA_SHA384, SignatureMethod.ECDSA_SHA512))
DIGESTS: Final = frozenset((DigestAlgorithm.SHA256, DigestAlgorithm.SHA384, DigestAlgorithm.SHA512))
LIMIT: Final = 1 << 20                # bytes that were signed
_ID: Final = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,255}")      # of xs:NCName


def signature_of(element: etree._Element) -> etree._Element | None:
    """Its own, which is a child of it (Core, 5.4.1)."""
    found: etree._Element | None = element.find(SIGNATURE)
    return found


def verified(element: etree._Element, certificates: Iterable[x509.Certificate], now: int) -> etree._Element:
    """The element as it was signed, read anew from those bytes, without its signature.  Raises AuthenticationError."""
    name = _reference(element)
    _drop_keys(element)
    for certificate in certificates:
        signed = _verify(element, certificate, now)
        if signed is None:
            continue
        found = parse_tree(signed, LIMIT)
        if found.tag != element.tag or found.get("ID") != name:
            raise AuthenticationError("its signature is of something else")
        return found
    raise AuthenticationError("its signature is wrong, or of no key in the provider's metadata that is valid now")


def _reference(element: etree._Element) -> str:
    """The element's ID, where its signature has the one form that SAML lets it have: one reference, to the element
    that it stands in, and no transform that could leave something out (Core, 5.4.2 to 5.4.4)."""
    name: str = element.get("ID", "")
    information = f"{SIGNATURE}/{DS}SignedInfo/{DS}"
    references = element.findall(f"{information}Reference")
    methods = [one.get("Algorithm") for one in element.iterfind(f"{information}CanonicalizationMethod")]
    if not _ID.fullmatch(name) or len(references) != 1 or references[0].get("URI") != f"#{name}":
        raise AuthenticationError("its signature does not refer to what it stands in, and to nothing else")
    transforms = [one.get("Algorithm") for one in references[0].iterfind(f"{DS}Transforms/{DS}Transform")]
    if transforms != [ENVELOPED, EXCLUSIVE] or methods != [EXCLUSIVE]:
        raise AuthenticationError("its signature has other transforms than enveloped and exclusive canonicalization")
    if element.find(f"{SIGNATURE}/{DS}Object") is not None:
        raise AuthenticationError("its signature holds an object")
    return name


def _drop_keys(element: etree._Element) -> None:
    """What its signature says of keys: nobody reads it, and nobody waits for it to be read."""
    for one in element.findall(f"{SIGNATURE}/{DS}KeyInfo"):
        one.getparent().remove(one)


def _verify(element: etree._Element, certificate: x509.Certificate, now: int) -> bytes | None:
    """None: it is not this key's."""
    how = SignatureConfiguration(
        location="./", expect_references=1, signature_methods=METHODS, digest_algorithms=DIGESTS,
        verification_time=datetime.datetime.fromtimestamp(now, datetime.UTC))
    try:
        found = XMLVerifier().verify(
            render_tree(element), x509_cert=certificate, id_attribute="ID", expect_config=how)
    except (SignXMLException, InvalidSignature, UnsupportedAlgorithm, etree.LxmlError, ValueError, TypeError, KeyError,
            AttributeError):
        return None
    return found.signed_data if isinstance(found, VerifyResult) else None
