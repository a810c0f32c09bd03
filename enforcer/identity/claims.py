"""Pure: verified claims -> who it is and in which groups of Weir's."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent.contract.identity import GROUPS, Provider, SamlProvider
from enforcer.identity.logouts import NOBODY, Known
from enforcer.words.errors import AuthenticationError

SUBJECT: Final = 255                  # characters, OpenID Connect Core 1.0, 2: `sub`
VALUES: Final = 10_000                # of the groups claim that are looked at


@dataclass(frozen=True)
class Identity:
    subject: str                      # "PROVIDER:CLAIM"
    groups: tuple[str, ...]           # sorted
    expires: int                      # seconds UTC
    known: Known = NOBODY             # as the provider itself knows it


def identify(provider: Provider | SamlProvider, claims: Mapping[str, Any]) -> Identity:
    """Raises AuthenticationError: a claim is missing, or is not what it must be."""
    _check_required(provider, claims)
    return Identity(f"{provider.name}:{_subject(provider, claims)}", _groups(provider, claims), int(claims["exp"]),
                    _known(claims))


def _known(claims: Mapping[str, Any]) -> Known:
    """What a logout may name (Back-Channel Logout 1.0, 2.4); what is no text is nothing that it could."""
    name, session, issued = (claims.get(one) for one in ("sub", "sid", "iat"))
    return Known(name if isinstance(name, str) else "", session if isinstance(session, str) else "",
                 int(issued) if isinstance(issued, int | float) else 0)


def _subject(provider: Provider | SamlProvider, claims: Mapping[str, Any]) -> str:
    name = provider.subject_claim
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= SUBJECT or not value.isprintable() or value != value.strip():
        raise AuthenticationError(f"claim {name}, the subject, is missing or no text of {SUBJECT} printable characters")
    return value


def _check_required(provider: Provider | SamlProvider, claims: Mapping[str, Any]) -> None:
    for name, wanted in provider.required.items():
        found = claims.get(name)
        # `true` is neither 1 nor "true".
        if type(found) is not type(wanted) or found != wanted:
            raise AuthenticationError(f"claim {name} is not what the configuration requires")


def _groups(provider: Provider | SamlProvider, claims: Mapping[str, Any]) -> tuple[str, ...]:
    """A claim that is not there is no group; one of another form is refused, for nobody knows what it meant."""
    value: Any = claims
    for part in provider.groups_claim:
        if not isinstance(value, Mapping):
            raise AuthenticationError(f"claim {'.'.join(provider.groups_claim)} is no list of texts")
        value = value.get(part, {} if part != provider.groups_claim[-1] else [])
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or len(values) > VALUES or not all(isinstance(one, str) for one in values):
        raise AuthenticationError(f"claim {'.'.join(provider.groups_claim)} is no list of texts")
    found = sorted({provider.groups[one] for one in values if one in provider.groups})
    if len(found) > GROUPS:
        raise AuthenticationError(f"more than {GROUPS} groups")
    return tuple(found)
