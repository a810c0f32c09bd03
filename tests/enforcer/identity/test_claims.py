"""Claims -> subject and groups."""
from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agent.contract.identity import Provider
from enforcer.identity.claims import identify
from enforcer.words.errors import AuthenticationError

PROVIDER = Provider(
    name="corp", issuer="https://idp.lab.example", client_id="weir", client_secret="s3cret", audience="weir",
    algorithms=("RS256",), ca="", scopes=(), subject_claim="sub", groups_claim=("realm_access", "roles"),
    groups={"dba": "dba", "admin": "dba", "/staff": "data"}, required={}, refresh=60)


def found(claims: dict[str, Any], **changed: Any) -> tuple[str, tuple[str, ...]]:
    one = identify(msgspec.structs.replace(PROVIDER, **changed), {"sub": "ada", "exp": 9, **claims})
    return one.subject, one.groups


def test_subject_and_groups() -> None:
    roles = {"realm_access": {"roles": ["admin", "dba", "/staff", "unknown"]}}
    assert found(roles) == ("corp:ada", ("data", "dba"))
    assert found({}) == ("corp:ada", ())
    assert found({"realm_access": {}}) == ("corp:ada", ())
    assert found({"groups": "dba"}, groups_claim=("groups",)) == ("corp:ada", ("dba",))
    assert found({"name": "x"}, subject_claim="name") == ("corp:x", ())


def test_a_group_of_weirs_name_is_none_where_it_is_not_mapped() -> None:
    assert found({"groups": ["data"]}, groups_claim=("groups",)) == ("corp:ada", ())


@pytest.mark.parametrize("subject", [None, "", 7, ["ada"], "x" * 256, "a\nb", " ada", "ada\u200b"])
def test_subjects_that_are_none(subject: Any) -> None:
    with pytest.raises(AuthenticationError, match="the subject"):
        found({"sub": subject})


def test_a_subject_stays_the_providers() -> None:
    assert found({"sub": "local:root"})[0] == "corp:local:root"


@pytest.mark.parametrize("value", [7, {"a": 1}, ["dba", 7], [["dba"]], None, ["x"] * 10_001])
def test_groups_of_another_form_are_refused(value: Any) -> None:
    with pytest.raises(AuthenticationError, match="no list of texts"):
        found({"realm_access": {"roles": value}})


def test_a_path_that_leads_through_no_object() -> None:
    with pytest.raises(AuthenticationError, match="no list of texts"):
        found({"realm_access": ["roles"]})


@pytest.mark.parametrize(("claims", "right"), [
    ({"email_verified": True}, True), ({"email_verified": "true"}, False), ({"email_verified": 1}, False), ({}, False),
    ({"email_verified": False}, False), ({"email_verified": [True]}, False)])
def test_required_claims(claims: dict[str, Any], right: bool) -> None:
    if right:
        assert found(claims, required={"email_verified": True})[0] == "corp:ada"
    else:
        with pytest.raises(AuthenticationError, match="email_verified"):
            found(claims, required={"email_verified": True})


def test_a_providers_secret_is_in_no_text() -> None:
    assert "s3cret" not in f"{PROVIDER!r} {PROVIDER!s}"
