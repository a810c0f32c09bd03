"""Pure: what Vault answers, and what of it counts.  Nothing of it is ever in an error.

Vault's HTTP API: auth methods, KV version 2 (/v1/MOUNT/data/PATH), database (/v1/MOUNT/creds/ROLE, static-creds),
/sys/leases.
"""
from __future__ import annotations

import re
from typing import Annotated, Any, Final, TypeVar

import msgspec

from agent.contract.vault import PASSWORD, PEM, SECRET, USER, Stored
from enforcer.words.errors import AuthenticationError

_SECONDS = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]
_TOKEN: Final = re.compile(r"[!-~]{1,16384}")         # it goes into a header
_LEASE: Final = re.compile(r"[!-~]{1,1024}")
_Answer = TypeVar("_Answer")


class Grant(msgspec.Struct, frozen=True):
    """A token of Vault's.  `seconds` 0: it does not end."""

    token: str
    seconds: int
    renewable: bool

    def __repr__(self) -> str:
        return "Grant(...)"


class Leased(msgspec.Struct, frozen=True):
    user: str
    password: str
    seconds: int                      # 0: not known
    lease: str = ""                   # Vault's name of it; "": a static role's

    def __repr__(self) -> str:
        return "Leased(...)"


class Parts(msgspec.Struct, frozen=True):
    user: str
    password: str
    certificate: str
    key: str
    token: str = ""

    def __repr__(self) -> str:
        return "Parts(...)"


class _Auth(msgspec.Struct, frozen=True):
    client_token: str
    lease_duration: _SECONDS = 0
    renewable: bool = False


class _Authenticated(msgspec.Struct, frozen=True):
    auth: _Auth


class _Self(msgspec.Struct, frozen=True):
    ttl: _SECONDS = 0
    renewable: bool = False


class _LookedUp(msgspec.Struct, frozen=True):
    data: _Self


class _SignedKey(msgspec.Struct, frozen=True):
    signed_key: Annotated[str, msgspec.Meta(min_length=1, max_length=PEM)]


class _Signature(msgspec.Struct, frozen=True):
    data: _SignedKey


class _Login(msgspec.Struct, frozen=True):
    username: Annotated[str, msgspec.Meta(min_length=1, max_length=USER)]
    password: Annotated[str, msgspec.Meta(min_length=1, max_length=PASSWORD)]
    ttl: _SECONDS = 0


class _Database(msgspec.Struct, frozen=True):
    data: _Login
    lease_id: str = ""
    lease_duration: _SECONDS = 0


class _Version(msgspec.Struct, frozen=True):
    data: dict[str, Any]


class _Kv(msgspec.Struct, frozen=True):
    data: _Version


class _Duration(msgspec.Struct, frozen=True):
    lease_duration: _SECONDS = 0


def _decode(content: bytes, wanted: type[_Answer]) -> _Answer:
    try:
        return msgspec.json.decode(content, type=wanted)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise AuthenticationError("it answered what makes no sense") from None


def parse_grant(content: bytes) -> Grant:
    """Of a login.  Raises AuthenticationError, as all of these."""
    auth = _decode(content, _Authenticated).auth
    return _grant(auth.client_token, auth.lease_duration, auth.renewable)


def parse_own(content: bytes, token: str) -> Grant:
    """Of auth/token/lookup-self."""
    data = _decode(content, _LookedUp).data
    return _grant(token, data.ttl, data.renewable)


def _grant(token: str, seconds: int, renewable: bool) -> Grant:
    if not _TOKEN.fullmatch(token):
        raise AuthenticationError("its token is none that could be used")
    return Grant(token, seconds, renewable and seconds > 0)


def parse_token(content: bytes) -> str:
    """What a token's file holds."""
    found = content.strip().decode("ascii", "replace")
    if not _TOKEN.fullmatch(found):
        raise AuthenticationError("its file holds no token")
    return found


def parse_renewed(content: bytes, *, auth: bool) -> int:
    """Seconds, of a token (`auth`; 0: it does not end) or a lease."""
    if auth:
        return _decode(content, _Authenticated).auth.lease_duration
    seconds = _decode(content, _Duration).lease_duration
    if not seconds:
        raise AuthenticationError("its lease has ended")
    return seconds


def parse_leased(content: bytes, *, static: bool) -> Leased:
    found = _decode(content, _Database)
    if "\0" in found.data.username + found.data.password:
        raise AuthenticationError("its credential has a zero byte")
    if static:
        return Leased(found.data.username, found.data.password, found.data.ttl)
    if not _LEASE.fullmatch(found.lease_id) or not found.lease_duration:
        raise AuthenticationError("its credential has no lease")
    return Leased(found.data.username, found.data.password, found.lease_duration, found.lease_id)


def parse_signed(content: bytes) -> str:
    """/v1/MOUNT/sign/ROLE: the certificate; whether it is one for the key the agent sees."""
    return _decode(content, _Signature).data.signed_key.strip()


def parse_stored(content: bytes, source: Stored) -> Parts:
    """What the row asks for.  A field that is named and not there is an error, but for a password beside a key."""
    data = _decode(content, _Kv).data.data
    certificate, key = (_field(data, name, PEM) for name in (source.certificate_field, source.key_field))
    if not (certificate + key).isascii():
        raise AuthenticationError("its certificate or key is not PEM")
    token = _field(data, source.token_field, SECRET, needed=not key).strip("\r\n")
    password = _field(data, source.password_field, PASSWORD, needed=not key and not source.token_field).rstrip("\r\n")
    if source.token_field and not token and not key:
        raise AuthenticationError(f"its field {source.token_field!r} is empty")
    if not password and not key and not token:
        raise AuthenticationError(f"its field {source.password_field!r} is empty")
    user = source.user or _field(data, source.user_field, USER)
    return Parts(user, password, certificate, key, token)


def _field(data: dict[str, Any], name: str, limit: int, needed: bool = True) -> str:
    if not name or (name not in data and not needed):
        return ""
    found = data.get(name)
    if not isinstance(found, str) or not found or len(found) > limit or "\0" in found:
        raise AuthenticationError(f"it has no field {name!r}, or that is no text of at most {limit} characters")
    return found
