"""Pure: a login -> the address that a browser goes to (Bindings, 3.4: HTTP-Redirect)."""
from __future__ import annotations

import base64
import zlib
from typing import Final
from urllib.parse import urlencode

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from saml2 import BINDING_HTTP_POST, saml, samlp

from enforcer.identity.saml.assertion import Asked
from enforcer.identity.saml.times import render_time

RSA_SHA256: Final = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"


def render_request(asked: Asked, address: str, now: int) -> bytes:
    """Core, 3.4.1."""
    request = samlp.AuthnRequest(
        id=asked.request, version="2.0", issue_instant=render_time(now), destination=address,
        assertion_consumer_service_url=asked.place, protocol_binding=BINDING_HTTP_POST,
        issuer=saml.Issuer(text=asked.provider.entity_id))
    return str(request).encode()


def render_address(asked: Asked, address: str, relay: str, key: rsa.RSAPrivateKey | None, now: int) -> str:
    """3.4.4.1: DEFLATE, base64, URL encoding; with a key signed, over the encoded parameters in this order."""
    return render_redirect("SAMLRequest", render_request(asked, address, now), address, relay, key)


def render_redirect(name: str, xml: bytes, address: str, relay: str, key: rsa.RSAPrivateKey | None) -> str:
    """Of any message."""
    packer = zlib.compressobj(wbits=-15)
    parameters = {name: base64.b64encode(packer.compress(xml) + packer.flush()).decode()}
    if relay:
        parameters["RelayState"] = relay
    if key is not None:
        parameters["SigAlg"] = RSA_SHA256
        signature = key.sign(urlencode(parameters).encode(), padding.PKCS1v15(), SHA256())
        parameters["Signature"] = base64.b64encode(signature).decode()
    return f"{address}{'&' if '?' in address else '?'}{urlencode(parameters)}"
