"""Pure: what a provider says of itself (OpenID Connect Discovery 1.0; RFC 8414, 8628, 9207), as far as it is taken."""
from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from agent.contract.identity import Provider
from enforcer.words.errors import AuthenticationError

URL: Final = 2048                     # characters
WELL_KNOWN: Final = "/.well-known/openid-configuration"
BASIC, POST, NONE = "client_secret_basic", "client_secret_post", "none"


class Metadata(msgspec.Struct, frozen=True):
    """`None`: the provider has none."""

    issuer: str
    jwks_uri: str
    token_endpoint: str
    authorization_endpoint: str | None = None
    device_authorization_endpoint: str | None = None
    revocation_endpoint: str | None = None
    introspection_endpoint: str | None = None
    code_challenge_methods_supported: list[str] | None = None
    token_endpoint_auth_methods_supported: list[str] | None = None
    authorization_response_iss_parameter_supported: bool = False


def place(issuer: str) -> str:
    """Discovery 1.0, 4.1."""
    return issuer.rstrip("/") + WELL_KNOWN


def parse_metadata(document: Any, provider: Provider) -> Metadata:
    """Raises AuthenticationError."""
    try:
        found = msgspec.convert(document, Metadata)
    except msgspec.ValidationError as wrong:
        raise AuthenticationError(f"the provider's configuration is malformed: {_plain(str(wrong))}") from None
    if found.issuer != provider.issuer:           # 4.3: MUST be the same
        raise AuthenticationError("the provider's configuration names another issuer")
    hosts = {_host(provider.issuer), *(_host(f"https://{one}") for one in provider.hosts)}
    for name in ("jwks_uri", "token_endpoint", "authorization_endpoint", "device_authorization_endpoint",
                 "revocation_endpoint", "introspection_endpoint"):
        if (url := getattr(found, name)) is not None and not is_https(url):
            raise AuthenticationError(f"the provider's {name} is no https address")
        if url is not None and _host(url) not in hosts:
            raise AuthenticationError(f"the provider's {name} is at another host, which `hosts` does not name")
    return found


def is_https(url: str) -> bool:
    try:
        parts = urlsplit(url)
        plain = parts.scheme == "https" and bool(parts.hostname) and parts.username is None and not parts.fragment
        return plain and len(url) <= URL and url.isprintable() and url.isascii() and (parts.port or 443) > 0
    except ValueError:
        return False


def _host(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 443


def auth_method(provider: Provider, metadata: Metadata) -> str:
    """How Weir says who it is (Core 1.0, 9)."""
    if not provider.client_secret:
        return NONE
    known = metadata.token_endpoint_auth_methods_supported
    return POST if known is not None and BASIC not in known and POST in known else BASIC


def has_pkce(metadata: Metadata) -> bool:
    """RFC 8414, 2: one that does not say may have it all the same."""
    methods = metadata.code_challenge_methods_supported
    return methods is None or "S256" in methods


def _plain(text: str) -> str:
    """msgspec's own words: they name fields and types, never values."""
    return "".join(one for one in text if one.isprintable())[:200]
