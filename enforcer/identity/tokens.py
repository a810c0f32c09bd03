"""Pure: whether a signed token is this provider's, for Weir, now.  joserfc checks the signature; the rules are here.

The key is chosen here, by the token's `kid` among the provider's own keys: what a token's header says of keys (jwk,
jku, x5c, x5u) is never looked at (RFC 8725, 3.10), nor is a key of a kind that its algorithm does not have (3.1).  No
text of an error holds anything of a token.
"""
from __future__ import annotations

import base64
import hmac
import json
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, Key, OKPKey, RSAKey

from agent.contract.identity import TOKEN, Provider
from enforcer.words.errors import AuthenticationError

HEADER: Final = 8 << 10               # bytes
SIGNATURE: Final = 2 << 10            # bytes: RSA with 16384 bits
SKEW: Final = 60                      # seconds that clocks may differ
LONGEST: Final = 366 * 86400          # seconds that `exp` may lie ahead
KEYS: Final = 100                     # of one provider
RSA_BITS: Final = range(2048, 16385)
CURVES: Final = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
ACCESS, PERSON, LOGOUT = "access", "id", "logout"      # what a token is taken for
TYPES: Final = {ACCESS: {None, "jwt", "at+jwt", "application/at+jwt"}, PERSON: {None, "jwt"},
                LOGOUT: {None, "jwt", "logout+jwt", "application/logout+jwt"}}


class UnknownKey(AuthenticationError):
    """No key of the provider's, as far as they are known, has signed it: they may have been rotated."""


class _Bounds(jws.JWSRegistry):
    max_header_length = HEADER
    max_payload_length = TOKEN
    max_signature_length = SIGNATURE

    def get_alg(self, name: str) -> Any:
        """RFC 9864 has two names for EdDSA now; providers have the old one, and joserfc warns of it each time."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return super().get_alg(name)


def _registry(algorithms: tuple[str, ...]) -> _Bounds:
    """A header may hold more than is known (RFC 7515, 4): it is not looked at."""
    return _Bounds(algorithms=algorithms, strict_check_header=False)


@dataclass(frozen=True)
class Keys:
    """A provider's, by `kid`; one without has None."""

    all: tuple[tuple[str | None, str | None, Key], ...] = ()       # kid, alg where the key names one, key

    def find(self, kid: str | None, algorithm: str) -> tuple[Key, ...]:
        """Those that may have signed; at most KEYS."""
        fitting = [(name, key) for name, said, key in self.all if said in (None, algorithm) and _fits(key, algorithm)]
        if kid is None:               # Core 1.0, 10.1: only where there is one
            return (fitting[0][1],) if len(fitting) == 1 else ()
        return tuple(key for name, key in fitting if name == kid)


def parse_keys(document: Any) -> Keys:
    """Of a JWK set (RFC 7517, 5): keys that cannot be used here are left out.  Raises AuthenticationError."""
    rows = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(rows, list) or len(rows) > KEYS:
        raise AuthenticationError(f"the provider's keys are no JWK set of {KEYS} at most")
    return Keys(tuple(_parse_keys(rows)))


def _parse_keys(rows: Iterable[Any]) -> Iterable[tuple[str | None, str | None, Key]]:
    for row in rows:
        if not isinstance(row, dict) or row.get("use", "sig") != "sig" or row.get("kty") not in ("RSA", "EC", "OKP"):
            continue
        operations = row.get("key_ops", ["verify"])
        if not isinstance(operations, list) or "verify" not in operations:
            continue
        public = {name: row[name] for name in ("kty", "n", "e", "crv", "x", "y") if name in row}
        try:
            with warnings.catch_warnings():          # of short keys: they are not used
                warnings.simplefilter("ignore")
                key = JWKRegistry.import_key(public)
                key.public_key        # noqa: B018  made from what it holds at first use
        except (JoseError, ValueError, TypeError, KeyError, AttributeError):
            continue
        kid, algorithm = row.get("kid"), row.get("alg")
        if isinstance(kid, str | None) and isinstance(algorithm, str | None):
            yield kid, algorithm, key


def _fits(key: Key, algorithm: str) -> bool:
    """RFC 7518, 3.1: the kind of key; RSA of 2048 bits or more (3.3), the curve of the algorithm (3.4)."""
    if isinstance(key, RSAKey):
        return algorithm[:2] in ("RS", "PS") and key.public_key.key_size in RSA_BITS
    if isinstance(key, ECKey):
        return CURVES.get(algorithm) == key.curve_name
    # joserfc's EdDSA takes both curves.
    return isinstance(key, OKPKey) and algorithm == "EdDSA" and key.curve_name in ("Ed25519", "Ed448")


def verify(
    token: str | bytes, keys: Keys, provider: Provider, now: int, *, kind: str, nonce: str = "",
) -> dict[str, Any]:
    """The claims.  `kind`: ACCESS, PERSON or LOGOUT; `nonce`: that it must hold.  Raises AuthenticationError,
    UnknownKey."""
    raw = token.encode(errors="replace") if isinstance(token, str) else token
    if not 0 < len(raw) <= TOKEN or raw.count(b".") != 2:
        raise AuthenticationError("it is no signed token, or too long")
    claims = _claims(_signed(raw, keys, provider.algorithms, kind))
    _check_issuer(claims, provider, kind)
    _check_times(claims, now)
    if nonce and not (isinstance(claims.get("nonce"), str) and hmac.compare_digest(
            claims["nonce"].encode(errors="replace"), nonce.encode())):
        raise AuthenticationError("its nonce is not the one of this login")
    return claims


def _signed(raw: bytes, keys: Keys, algorithms: tuple[str, ...], kind: str) -> bytes:
    """The payload, its signature verified."""
    try:
        header = jws.extract_compact(raw, registry=_registry(algorithms)).headers()
        parse_once(_decoded(raw.partition(b".")[0]))
    except (JoseError, ValueError, TypeError, RecursionError):
        raise AuthenticationError("it is no signed token") from None
    algorithm, kid, form = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise AuthenticationError("its signature algorithm is not among `algorithms`")
    # RFC 7515, 4.1.11: none is understood here; RFC 7797's b64 would change what is signed.
    if "crit" in header or "b64" in header:
        raise AuthenticationError("it has a critical extension, and none is known")
    if not isinstance(kid, str | None) or not isinstance(form, str | None):
        raise AuthenticationError("its header is malformed")
    if (form.lower() if form else None) not in TYPES[kind]:       # RFC 8725, 3.11
        raise AuthenticationError("it is a token of another kind")
    candidates = keys.find(kid, algorithm)
    if not candidates:
        raise UnknownKey("no key of the provider's has signed it")
    for key in candidates:
        try:
            return jws.deserialize_compact(raw, key, registry=_registry(algorithms)).payload
        except (JoseError, ValueError, TypeError):
            continue
    raise AuthenticationError("its signature is wrong")


def _claims(payload: bytes) -> dict[str, Any]:
    try:
        claims = parse_once(payload)
    except (ValueError, RecursionError):
        raise AuthenticationError("its claims are not JSON") from None
    if not isinstance(claims, dict):
        raise AuthenticationError("its claims are no object")
    return claims


def parse_once(raw: bytes) -> Any:
    """Of JSON.  Raises ValueError, RecursionError: also where an object has a name twice."""
    return json.loads(raw, object_pairs_hook=_once)


def _decoded(part: bytes) -> bytes:
    return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """RFC 7519, 4: names are unique; else two readers could see two tokens."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _check_issuer(claims: dict[str, Any], provider: Provider, kind: str) -> None:
    """Core 1.0, 3.1.3.7: issuer, audience, authorized party."""
    if claims.get("iss") != provider.issuer:
        raise AuthenticationError("it is of another issuer")
    audience = claims.get("aud")
    named = [audience] if isinstance(audience, str) else audience
    mine = provider.audience if kind == ACCESS else provider.client_id
    if not isinstance(named, list) or mine not in named or not all(isinstance(one, str) for one in named):
        raise AuthenticationError("it is for another audience")
    if kind != PERSON:
        return
    party = claims.get("azp")
    if (len(named) > 1 and party is None) or (party is not None and party != provider.client_id):
        raise AuthenticationError("it was issued to another client")


def _check_times(claims: dict[str, Any], now: int) -> None:
    expires, before, issued = (_time(claims, name) for name in ("exp", "nbf", "iat"))
    if expires is None:
        raise AuthenticationError("it does not say when it expires")
    if expires + SKEW <= now:
        raise AuthenticationError("it has expired")
    if expires > now + LONGEST:
        raise AuthenticationError("it would hold for more than a year")
    if before is not None and before > now + SKEW:
        raise AuthenticationError("it holds only later")
    if issued is not None and issued > now + SKEW:
        raise AuthenticationError("it was issued in the future")


def _time(claims: dict[str, Any], name: str) -> int | None:
    """RFC 7519, 2, NumericDate."""
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 40:
        raise AuthenticationError(f"its {name} is no time")
    return int(value)
