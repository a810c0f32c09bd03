"""Pure: what comes back: to the loopback redirect, from the token and the device endpoint."""
from __future__ import annotations

import hmac
import re
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl

import msgspec

from agent.contract.identity import QUERY, TOKEN
from enforcer.identity.metadata import Metadata, is_https
from enforcer.words.errors import AuthenticationError

_CODE: Final = re.compile(r"[a-z_]{1,64}")
_TYPED: Final = re.compile(r"[A-Za-z0-9 -]{1,32}")
DEVICE: Final = 900                   # seconds that a device code is asked about, at most
Token = Annotated[str, msgspec.Meta(min_length=1, max_length=TOKEN)]


class Refused(AuthenticationError):
    """The provider says no; `error` is its code (RFC 6749, 5.2), or "error"."""

    def __init__(self, error: Any) -> None:
        self.error = error if isinstance(error, str) and _CODE.fullmatch(error) else "error"
        super().__init__(f"the provider says {self.error}")


class Tokens(msgspec.Struct, frozen=True):
    """Never printed."""

    access_token: Token
    id_token: Token | None = None
    refresh_token: Token | None = None

    def __repr__(self) -> str:
        return "Tokens(...)"


class DeviceCode(msgspec.Struct, frozen=True):
    """RFC 8628, 3.2."""

    device_code: Token
    user_code: str
    verification_uri: str
    expires_in: int
    verification_uri_complete: str | None = None
    interval: int = 5

    def __repr__(self) -> str:
        return "DeviceCode(...)"


def parse_tokens(document: Any) -> Tokens:
    """Raises AuthenticationError."""
    try:
        return msgspec.convert(dict(document), Tokens)
    except (msgspec.ValidationError, TypeError, ValueError):
        raise AuthenticationError("the provider's answer holds no token") from None


def parse_device(document: Any) -> DeviceCode:
    """Raises AuthenticationError.  What a person sees is checked: it is shown on a terminal."""
    if isinstance(document, dict) and "error" in document:
        raise Refused(document["error"])
    try:
        found = msgspec.convert(document, DeviceCode)
    except msgspec.ValidationError:
        raise AuthenticationError("the provider's answer is no device code") from None
    complete = found.verification_uri_complete
    if not is_https(found.verification_uri) or not (complete is None or is_https(complete)):
        raise AuthenticationError("the provider's address for the code is no https address")
    if not _TYPED.fullmatch(found.user_code) or found.expires_in < 1:
        raise AuthenticationError("the provider's code cannot be typed")
    return msgspec.structs.replace(
        found, expires_in=min(found.expires_in, DEVICE), interval=max(1, min(found.interval, 60)))


def parse_redirect(query: str, state: str, issuer: str, metadata: Metadata) -> str:
    """The code.  RFC 6749, 4.1.2; RFC 9207, 2.4: an answer of another provider is refused.  Raises
    AuthenticationError."""
    if len(query) > QUERY:
        raise AuthenticationError("what came back is too long")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=32)
    except ValueError:
        raise AuthenticationError("what came back is malformed") from None
    found = dict(pairs)
    if len(found) != len(pairs):
        raise AuthenticationError("what came back is malformed")
    if not hmac.compare_digest(found.get("state", "").encode(errors="replace"), state.encode()):
        raise AuthenticationError("what came back is the answer to another login")
    if "iss" in found or metadata.authorization_response_iss_parameter_supported:
        if found.get("iss") != issuer:
            raise AuthenticationError("what came back is another provider's answer")
    if "error" in found:
        raise Refused(found["error"])
    if not found.get("code"):
        raise AuthenticationError("what came back holds no code")
    return found["code"]
