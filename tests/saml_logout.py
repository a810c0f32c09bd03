"""Requests for logout as a SAML provider of the tests' makes them (tests/saml_idp.py), right or wrong in one place."""
from __future__ import annotations

import base64
import time
import zlib
from typing import Any
from urllib.parse import quote_plus, urlencode

import saml_idp as idp
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

PLACE = "https://weir.lab.example/saml/corp/logout"


def request(name: str = "_logout", **changed: Any) -> str:
    """As text, unsigned.  What is given as "" is left out."""
    now = int(time.time())
    said = {"version": "2.0", "instant": idp.render_time(now), "destination": PLACE, "end": idp.render_time(now + 300),
            "issuer": f"<a:Issuer>{idp.ISSUER}</a:Issuer>", "more": "",
            "name_id": '<a:NameID Format="urn:oasis:names:tc:SAML:2.0:nameid-format:persistent">ada</a:NameID>',
            "index": "<p:SessionIndex>one</p:SessionIndex>", "root": "LogoutRequest"} | changed

    def part(name: str, value: str) -> str:
        return f'{name}="{value}"' if value else ""

    return f"""<p:{said['root']} xmlns:p="{idp.NAMESPACES['p']}" xmlns:a="{idp.NAMESPACES['a']}" {part('ID', name)}
 {part('Version', said['version'])} {part('IssueInstant', said['instant'])} {part('Destination', said['destination'])}
 {part('NotOnOrAfter', said['end'])}>{said['issuer']}{said['more']}{said['name_id']}{said['index']}
</p:{said['root']}>"""


def form(text: str, **more: str) -> bytes:
    return urlencode({"SAMLRequest": base64.b64encode(text.encode()).decode(), **more}).encode()


def posted(key: Any = idp.KEY, relay: str = "", signing: dict[str, Any] | None = None, **changed: Any) -> bytes:
    made = idp.sign(request(**changed), changed.get("root", "LogoutRequest"), key, **(signing or {}))
    return form(made, **({"RelayState": relay} if relay else {}))


def query(text: str, relay: str = "", key: Any = idp.KEY, method: str = idp.RSA_SHA256,
          algorithm: Any = None, quote: Any = quote_plus) -> str:
    packer = zlib.compressobj(wbits=-15)
    packed = base64.b64encode(packer.compress(text.encode()) + packer.flush()).decode()
    parts = [("SAMLRequest", packed), *([("RelayState", relay)] if relay else []), ("SigAlg", method)]
    signed = "&".join(f"{name}={quote(value)}" for name, value in parts)
    signature = key.sign(signed.encode(), padding.PKCS1v15(), algorithm or hashes.SHA256())
    return f"{signed}&Signature={quote(base64.b64encode(signature).decode())}"
