"""Pure: whether what a [[target.credential]] gave can be shown to an API server, before it is handed on, and until when
it holds.  No server is asked."""
from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from agent.contract.credential import Credential

TOKEN_LIMIT: Final = 64 << 10         # bytes
_TOKEN: Final = re.compile(r"[!-~]+")                           # it goes into a header: RFC 9110 5.5, without blanks
_CLAIMS_LIMIT: Final = 1 << 62


class TokenWrong(Exception):
    """Holds nothing of it."""


class _Claims(msgspec.Struct, frozen=True):
    """RFC 7519, 4.1: NumericDate may have a fraction."""

    exp: int | float = 0
    sub: Any = ""


def checked(found: Credential, now: float) -> Credential:
    """With its end as far as it says one, and whose it is.  `now`: Unix seconds.  Raises TokenWrong."""
    if found.token:
        return _bearer(found, now)
    if found.certificate and found.key:
        return _certified(found, now)
    raise TokenWrong("has neither a token nor a certificate with its key")


def _bearer(found: Credential, now: float) -> Credential:
    token = found.token.strip("\r\n")
    if not _TOKEN.fullmatch(token) or len(token) > TOKEN_LIMIT:
        raise TokenWrong("its token is none: letters, digits and signs in one line would be right")
    end, subject = parse_claims(token)
    if end and end <= now:
        raise TokenWrong("its token has expired")
    ends = [one for one in (found.expires, end) if one]
    return msgspec.structs.replace(found, token=token, user=found.user or subject, expires=min(ends, default=0))


def parse_claims(token: str) -> tuple[int, str]:
    """When a JWT ends (Unix seconds, 0: it does not say) and whose it is; of what is no JWT nothing is known.  Whether
    it is right the server says."""
    parts = token.split(".")
    if len(parts) != 3:
        return 0, ""
    try:
        body = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        claims = msgspec.json.decode(body, type=_Claims)
    except (binascii.Error, ValueError, RecursionError):
        return 0, ""
    end = int(claims.exp) if 0 < claims.exp < _CLAIMS_LIMIT else 0
    subject = claims.sub if isinstance(claims.sub, str) and claims.sub.isprintable() and len(claims.sub) <= 256 else ""
    return end, subject


def _certified(found: Credential, now: float) -> Credential:
    try:
        certificate = x509.load_pem_x509_certificates(found.certificate.encode())[0]
        key = serialization.load_pem_private_key(found.key.encode(), None)
        same = key.public_key() == certificate.public_key()
    except (ValueError, TypeError, IndexError):
        raise TokenWrong("its certificate or key is not PEM, or the key is encrypted") from None
    if not same:
        raise TokenWrong("its certificate is of another key")
    end = int(certificate.not_valid_after_utc.timestamp())
    if end <= now:
        raise TokenWrong("its certificate has expired")
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    ends = [one for one in (found.expires, end) if one]
    return msgspec.structs.replace(found, user=found.user or str(names[0].value if names else ""), expires=min(ends))
