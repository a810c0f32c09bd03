"""Real keys and really signed tokens, right or wrong in one place."""
from __future__ import annotations

import base64
import hashlib
import hmac
import json
import warnings
from typing import Any

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc import jws
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from agent.contract.identity import Provider

NOW = 1_800_000_000
ISSUER = "https://idp.lab.example/realms/corp"
RSA = RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"})
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    SHORT = RSAKey.generate_key(1024, {"kid": "short"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed"})
STRANGE = RSAKey.generate_key(2048, {"kid": "rsa"})      # of the same name as the provider's

PROVIDER = Provider(
    name="corp", issuer=ISSUER, client_id="weir", client_secret="", audience="weir-api",
    algorithms=("RS256", "PS256", "ES256", "EdDSA"), ca="", scopes=(), subject_claim="sub",
    groups_claim=("realm_access", "roles"), groups={"dba": "dba", "/staff": "data"}, required={}, refresh=60)


def public(*keys: Key, **more: Any) -> dict[str, Any]:
    return {"keys": [{**key.as_dict(private=False), **more} for key in keys]}


def claims(**changed: Any) -> dict[str, Any]:
    """Of an ID token; one that is given as None is left out."""
    whole = {"iss": ISSUER, "aud": "weir", "sub": "7b1f", "exp": NOW + 300, "iat": NOW, "nonce": "n",
             "realm_access": {"roles": ["dba", "other"]}} | changed
    return {name: value for name, value in whole.items() if value is not None}


def sign(payload: Any, key: Key = RSA, algorithm: str = "RS256", **header: Any) -> str:
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    head = {"alg": algorithm, "kid": key.kid, **header}
    registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return jws.serialize_compact({name: one for name, one in head.items() if one is not None}, raw, key,
                                     registry=registry)


def by_hand(head: dict[str, Any], payload: Any, signature: bytes = b"") -> str:
    """What no library would sign."""
    return ".".join(map(_part, (json.dumps(head).encode(), json.dumps(payload).encode(), signature)))


def by_bytes(head: bytes, payload: Any) -> str:
    """Really signed, RS256 with RSA, whatever the header's bytes are."""
    signed = f"{_part(head)}.{_part(json.dumps(payload).encode())}"
    return f"{signed}.{_part(RSA.private_key.sign(signed.encode(), PKCS1v15(), SHA256()))}"


def by_hmac(head: dict[str, Any], payload: Any, secret: bytes) -> str:
    """HS256 with any bytes as the key."""
    signed = by_hand(head, payload).rpartition(".")[0]
    return f"{signed}.{_part(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def _part(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
