"""Pure: links by which somebody says yes or no to one hold: what they are for, signed with a key of the agent's alone.

`PAYLOAD.MAC` in base64url without padding: the payload is JSON of Grant, the MAC HMAC-SHA256 over DOMAIN and that.
"""
from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

import msgspec

DOMAIN: Final = b"weir link v1\0"     # nothing else is signed by these bytes and this key
LIMIT: Final = 1024                   # characters of a token
MAC: Final = 32                       # bytes


class Grant(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    ticket: str
    since: int                        # of the hold, nanoseconds UTC: no later one of the same name
    approve: bool
    by: str                           # subject
    webhook: str
    until: int                        # seconds UTC


def mint(key: bytes, grant: Grant) -> str:
    payload = msgspec.json.encode(grant)
    return f"{_encode(payload)}.{_encode(_mac(key, payload))}"


def parse_token(key: bytes, token: str, now: int) -> Grant | None:
    """None where the agent has not signed it, or its time is over.  `now`: seconds UTC.  Nothing of what is not signed
    is parsed."""
    text, dot, mac = token.partition(".")
    if not dot or len(token) > LIMIT or not token.isascii():
        return None
    payload, said = _decode(text), _decode(mac)
    if payload is None or said is None or not hmac.compare_digest(_mac(key, payload), said):
        return None
    try:
        grant = msgspec.json.decode(payload, type=Grant)
    except ValueError:
        return None
    return grant if now < grant.until and mint(key, grant) == token else None


def _mac(key: bytes, payload: bytes) -> bytes:
    return hmac.new(key, DOMAIN + payload, hashlib.sha256).digest()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes | None:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        return None
