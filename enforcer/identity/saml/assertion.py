"""Pure: an opened response -> claims, where it is this provider's, for Weir, for this very login, now.

The rules are those of Profiles, 4.1.4.3, and Core, 2.5; pysaml2 reads the elements.  What is not signed may refuse a
login, and never opens one.
"""
from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from defusedxml import DefusedXmlException
from saml2 import saml, samlp

from agent.contract.identity import NAME_ID, SamlProvider
from enforcer.identity.logouts import Known
from enforcer.identity.saml.envelope import Opened
from enforcer.identity.saml.times import parse_time
from enforcer.identity.tokens import SKEW
from enforcer.words.errors import AuthenticationError

LONGEST: Final = 31 * 86400           # seconds that a login lasts where nothing is said; `max_session` is less
LONGEST_NAME: Final = 1024             # characters that are remembered of a provider's own name of somebody
WINDOW: Final = 3600                  # seconds that an assertion may be used in, however long it says
_STATUS: Final = re.compile(r"urn:oasis:names:tc:SAML:2\.0:status:([A-Za-z]{1,64})")


@dataclass(frozen=True)
class Asked:
    """What the answer must be to."""

    provider: SamlProvider
    request: str                      # its ID
    place: str                        # where it was to be posted: the assertion consumer service


@dataclass(frozen=True)
class Answer:
    claims: dict[str, Any]            # attributes, each a text or a list; NAME_ID; `exp`
    assertion: str                    # its ID
    until: int                        # seconds UTC after which nobody takes that assertion any more
    known: Known                      # as a request for logout names it


def read(opened: Opened, asked: Asked, now: int) -> Answer:
    """Raises AuthenticationError."""
    response = parsed(samlp.response_from_string, opened.response)
    _check_response(response, opened.signed, asked, now)
    if opened.assertion is None:
        raise AuthenticationError("it holds no assertion")
    assertion = parsed(saml.assertion_from_string, opened.assertion)
    if assertion.version != "2.0" or not assertion.id:
        raise AuthenticationError("its assertion is none of SAML 2.0")
    check_issuer(assertion.issuer, asked.provider)
    check_instant(assertion.issue_instant, now)
    until = _check_subject(assertion.subject, asked, now)
    _check_conditions(assertion.conditions, asked.provider, now)
    claims = _attributes(assertion)
    claims[NAME_ID] = _name(assertion.subject, asked.provider)
    claims["exp"] = _expires(assertion, now)
    return Answer(claims, assertion.id, until + SKEW, _known(assertion))


def parsed(parse: Any, raw: bytes) -> Any:
    try:
        found = parse(raw)
    except (DefusedXmlException, SyntaxError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        found = None
    if found is None:
        raise AuthenticationError("it cannot be read as SAML 2.0")
    return found


def _check_response(response: Any, signed: bool, asked: Asked, now: int) -> None:
    """Core, 3.2.2; Bindings, 3.5.5.2: a signed one that came by POST says where it was to go."""
    if response.version != "2.0":
        raise AuthenticationError("it is no SAML 2.0 response")
    if response.in_response_to != asked.request:
        raise AuthenticationError("it is the answer to another login")
    if response.destination != asked.place and (signed or response.destination is not None):
        raise AuthenticationError("it is for another place (Destination)")
    if response.issuer is not None:
        check_issuer(response.issuer, asked.provider)
    check_instant(response.issue_instant, now)
    code = response.status.status_code if response.status else None
    if code is None or code.value != samlp.STATUS_SUCCESS:
        raise AuthenticationError(f"the provider says {_said(code)}")


def _said(code: Any) -> str:
    """The inner code says more, where there is one (Core, 3.2.2.2)."""
    codes = [one for one in (code, code.status_code if code else None) if one is not None]
    found = [match[1] for one in codes if (match := _STATUS.fullmatch(one.value or ""))]
    return found[-1] if found else "no"


def check_issuer(issuer: Any, provider: SamlProvider) -> None:
    if issuer is None or issuer.text != provider.issuer or issuer.extension_elements:
        raise AuthenticationError("it is of another issuer")
    if issuer.format not in (None, saml.NAMEID_FORMAT_ENTITY):
        raise AuthenticationError("it is of another issuer")


def check_instant(text: str | None, now: int) -> None:
    instant = parse_time(text, "IssueInstant")
    if instant is None or instant > now + SKEW:
        raise AuthenticationError("it was issued in the future, or does not say when")
    if instant + WINDOW + SKEW <= now:
        raise AuthenticationError("it was issued too long ago")


def _check_subject(subject: Any, asked: Asked, now: int) -> int:
    """One confirmation by bearer that is right in everything (Profiles, 4.1.4.2); when it ends."""
    reasons = ["nobody is confirmed by it as bearer"]
    for one in subject.subject_confirmation if subject else ():
        if one.method == saml.SCM_BEARER:
            found = _wrong(one.subject_confirmation_data, asked, now)
            if isinstance(found, int):
                return found
            reasons.append(found)
    raise AuthenticationError(reasons[-1])


def _wrong(data: Any, asked: Asked, now: int) -> int | str:
    if data is None or data.recipient != asked.place:
        return "its assertion is for another recipient"
    if data.in_response_to != asked.request:
        return "its assertion is the answer to another login"
    if data.not_before is not None:
        return "its confirmation holds only later"
    end = parse_time(data.not_on_or_after, "NotOnOrAfter")
    if end is None or end + SKEW <= now:
        return "its assertion has expired, or does not say when it does"
    return min(end, now + WINDOW)


def _check_conditions(conditions: Any, provider: SamlProvider, now: int) -> None:
    """Core, 2.5.1: each must hold, and one that is not known does not."""
    if conditions is None:
        raise AuthenticationError("its assertion names no audience")
    if conditions.condition or conditions.extension_elements:
        raise AuthenticationError("its assertion has a condition that is not known here")
    start = parse_time(conditions.not_before, "NotBefore")
    end = parse_time(conditions.not_on_or_after, "NotOnOrAfter")
    if start is not None and start > now + SKEW:
        raise AuthenticationError("its assertion holds only later")
    if end is not None and end + SKEW <= now:
        raise AuthenticationError("its assertion has expired")
    restrictions = [[one.text for one in restriction.audience] for restriction in conditions.audience_restriction]
    if not restrictions or not all(provider.entity_id in one for one in restrictions):
        raise AuthenticationError("its assertion is for another audience")


def _name(subject: Any, provider: SamlProvider) -> str | None:
    """None where it names nobody for longer than this login, or in another's name (Core, 8.3.7)."""
    name = subject.name_id
    if name is None or name.extension_elements or name.format == saml.NAMEID_FORMAT_TRANSIENT:
        return None
    if name.name_qualifier not in (None, "", provider.issuer):
        return None
    if name.sp_name_qualifier not in (None, "", provider.entity_id):
        return None
    text: str | None = name.text
    return text


def _known(assertion: Any) -> Known:
    """Core, 2.7.2: SessionIndex, by which the provider knows this session."""
    name = assertion.subject.name_id
    index = next((one.session_index for one in assertion.authn_statement if one.session_index), "")
    issued = parse_time(assertion.issue_instant, "IssueInstant") or 0
    if name is None or name.extension_elements or not name.text:
        return Known(issued=issued)
    return Known(name.text[:LONGEST_NAME], index[:LONGEST_NAME], issued, name.format or "")


def _expires(assertion: Any, now: int) -> int:
    if not assertion.authn_statement:
        raise AuthenticationError("its assertion does not say that somebody logged in")
    ends = [parse_time(one.session_not_on_or_after, "SessionNotOnOrAfter") for one in assertion.authn_statement]
    found = min((one for one in ends if one is not None), default=now + LONGEST)
    if found <= now:
        raise AuthenticationError("the provider's session has ended already")
    return min(found, now + LONGEST)


def _attributes(assertion: Any) -> dict[str, Any]:
    """By name; of several values, or of several attributes of a name, a list.  A value that holds elements is None,
    which is neither a subject nor a group."""
    found: dict[str, list[str | None]] = {}
    for name, value in _values(assertion):
        found.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _values(assertion: Any) -> Iterator[tuple[str, str | None]]:
    for statement in assertion.attribute_statement:
        for attribute in statement.attribute:
            for value in attribute.attribute_value:
                yield attribute.name or "", None if value.extension_elements else value.text or ""
