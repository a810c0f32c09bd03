"""Answers that Keycloak 26.7.3 has given (tests/lab/keycloak.py), kept with what was asked: signed by other code than
that which makes the other tests' answers."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import saml_idp as idp

from enforcer.identity.saml.assertion import Asked, read
from enforcer.identity.saml.envelope import Keys, open_response
from enforcer.identity.saml.keys import parse_key
from enforcer.identity.saml.metadata import parse_metadata
from enforcer.words.errors import AuthenticationError

KEPT = Path(__file__).parent / "keycloak"
FACTS: dict[str, Any] = json.loads((KEPT / "facts.json").read_text())


def opened(name: str, later: int = 0, old: bytes = b"", new: bytes = b"") -> Any:
    facts, now = FACTS[name], FACTS[name]["now"] + later
    found = parse_metadata((KEPT / "metadata.xml").read_bytes(), FACTS["issuer"])
    asked = Asked(idp.provider(issuer=FACTS["issuer"], entity_id=facts["entity"]), facts["request"], facts["place"])
    raw = (KEPT / f"{name}.xml").read_bytes()
    assert old in raw
    keys = Keys(found.certificates, parse_key((KEPT / "key.pem").read_text()))
    return read(open_response(raw.replace(old, new), keys, now), asked, now).claims


@pytest.mark.parametrize("name", ["plain", "sealed"])
def test_an_answer(name: str) -> None:
    claims = opened(name)
    assert (claims["NameID"], claims["groups"]) == ("ada", "data")
    assert claims["exp"] > FACTS[name]["now"] + 3600


@pytest.mark.parametrize("name", ["plain", "sealed"])
def test_the_answer_is_of_its_time(name: str) -> None:
    with pytest.raises(AuthenticationError, match="has expired"):
        opened(name, 1000)


@pytest.mark.parametrize(("old", "new", "said"), [
    (b">ada<", b">root<", "signature is wrong"), (b">data<", b">dba<", "signature is wrong"),
    (b"urn:weir:lab", b"urn:weir:all", "signature is wrong")])
def test_an_answer_that_was_changed(old: bytes, new: bytes, said: str) -> None:
    with pytest.raises(AuthenticationError, match=said):
        opened("plain", 0, old, new)


def test_a_sealed_answer_that_was_changed() -> None:
    """Of the response, which is signed around what is encrypted."""
    with pytest.raises(AuthenticationError, match="signature is wrong"):
        opened("sealed", 0, b"http://127.0.0.1:", b"http://127.0.0.2:")
