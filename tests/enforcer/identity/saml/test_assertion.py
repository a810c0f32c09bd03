"""What a signed answer must say: for Weir, for this login, now.  Everything here is rightly signed."""
from __future__ import annotations

from typing import Any

import pytest
import saml_idp as idp

from enforcer.identity.claims import identify
from enforcer.identity.saml.assertion import LONGEST, WINDOW, Answer, read
from enforcer.identity.saml.envelope import Keys, open_response
from enforcer.identity.saml.times import render_time
from enforcer.words.errors import AuthenticationError

KEYS = Keys((idp.CERTIFICATE,), idp.WEIRS)
OTHER = "http://127.0.0.1:4445/acs"
AUDIENCE = "<a:AudienceRestriction><a:Audience>{}</a:Audience></a:AudienceRestriction>"


def at(seconds: int) -> str:
    return render_time(idp.NOW + seconds)


def answer(text: str, now: int = idp.NOW, **changed: Any) -> Answer:
    return read(open_response(text.encode(), KEYS, now), idp.asked(**changed), now)


def of(**changed: Any) -> Answer:
    return answer(idp.response(idp.sign(idp.assertion(**changed))))


def refused(said: str, text: str, now: int = idp.NOW) -> None:
    with pytest.raises(AuthenticationError) as wrong:
        answer(text, now)
    assert said in str(wrong.value)


def test_what_is_right() -> None:
    found = of(attributes=idp.attribute("groups", "dba", "other") + idp.attribute("mail", "ada@lab.example"))
    assert found.claims == {"groups": ["dba", "other"], "mail": "ada@lab.example", "NameID": "ada",
                            "exp": idp.NOW + 7200}
    assert found.assertion == "_assertion"
    assert found.until == idp.NOW + 300 + 60
    who = identify(idp.provider(), found.claims)
    assert (who.subject, who.groups, who.expires) == ("corp:ada", ("dba",), idp.NOW + 7200)


@pytest.mark.parametrize(("changed", "said"), [
    ({"audience": ""}, "for another audience"), ({"audience": AUDIENCE.format("urn:other")}, "for another audience"),
    ({"audience": AUDIENCE.format(idp.WEIR + ":more")}, "for another audience"),
    ({"audience": AUDIENCE.format(idp.WEIR) + AUDIENCE.format("urn:other")}, "for another audience"),
    ({"recipient": OTHER}, "another recipient"), ({"recipient": ""}, "another recipient"),
    ({"in_response_to": "_other"}, "answer to another login"), ({"in_response_to": ""}, "answer to another login"),
    ({"confirmed": at(-60)}, "has expired"), ({"confirmed": ""}, "has expired"), ({"confirmed": "never"}, "no time"),
    ({"confirmation": f'NotBefore="{at(0)}"'}, "holds only later"),
    ({"not_before": at(61)}, "holds only later"), ({"not_after": at(-60)}, "has expired"),
    ({"not_after": "2027-01-15T08:00:00+01:00"}, "no time in UTC"), ({"not_after": "2027-02-30T08:00:00Z"}, "no time"),
    ({"instant": at(61)}, "in the future"), ({"instant": ""}, "does not say when"),
    ({"instant": at(-WINDOW - 60)}, "too long ago"),
    ({"issuer": ""}, "another issuer"), ({"issuer": "<a:Issuer>https://evil.example</a:Issuer>"}, "another issuer"),
    ({"issuer": f'<a:Issuer Format="urn:x">{idp.ISSUER}</a:Issuer>'}, "another issuer"),
    ({"issuer": f"<a:Issuer>{idp.ISSUER}<a:x/>.evil</a:Issuer>"}, "another issuer"),
    ({"method": "urn:oasis:names:tc:SAML:2.0:cm:holder-of-key"}, "as bearer"),
    ({"statement": ""}, "does not say that somebody logged in"),
    ({"statement": f'<a:AuthnStatement AuthnInstant="{at(-9)}" SessionNotOnOrAfter="{at(0)}"/>'}, "has ended already"),
    ({"conditions": '<a:Condition xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="x"/>'}, "not known"),
    ({"conditions": '<x:Only xmlns:x="urn:x"/>'}, "not known"),
    ({"version": "1.1"}, "none of SAML 2.0"), ({"version": ""}, "none of SAML 2.0")],
    ids=lambda one: str(one)[:60])
def test_an_assertion_that_is_not_taken(changed: dict[str, Any], said: str) -> None:
    refused(said, idp.response(idp.sign(idp.assertion(**changed))))


@pytest.mark.parametrize(("changed", "said"), [
    ({"in_response_to": "_other"}, "answer to another login"), ({"in_response_to": ""}, "answer to another login"),
    ({"destination": OTHER}, "another place"), ({"issuer": "https://evil.example"}, "another issuer"),
    ({"instant": at(61)}, "in the future"), ({"instant": at(-WINDOW - 60)}, "too long ago"),
    ({"version": "1.1"}, "no SAML 2.0"),
    ({"status": '<p:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Responder"><p:StatusCode '
                'Value="urn:oasis:names:tc:SAML:2.0:status:AuthnFailed"/></p:StatusCode>'}, "says AuthnFailed"),
    ({"status": '<p:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Requester"/>'}, "says Requester"),
    ({"status": '<p:StatusCode Value="&#27;[2J"/>'}, ""), ({"status": '<p:StatusCode Value="evil words"/>'}, "says no"),
    ({"status": ""}, "says no")], ids=lambda one: str(one)[:60])
def test_a_response_that_is_not_taken(changed: dict[str, Any], said: str) -> None:
    """Also where it is not signed itself; and where it is."""
    text = idp.response(idp.sign(idp.assertion()), **changed)
    refused(said, text)
    if "27" not in str(changed):
        refused(said, idp.sign(text, "Response"))


def test_a_signed_response_says_where_it_goes() -> None:
    text = idp.response(idp.sign(idp.assertion()), destination="")
    assert answer(text).claims["NameID"] == "ada"
    refused("another place", idp.sign(text, "Response"))


def test_a_response_without_an_assertion_only_refuses() -> None:
    status = '<p:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:RequestDenied"/>'
    refused("says RequestDenied", idp.response("", status=status))
    refused("holds no assertion", idp.response(""))
    refused("holds no assertion", idp.sign(idp.response(""), "Response"))


@pytest.mark.parametrize("seconds", [-60, 359])
def test_clocks_may_differ_by_a_minute(seconds: int) -> None:
    text = idp.response(idp.sign(idp.assertion()))
    assert answer(text, idp.NOW + seconds).claims["NameID"] == "ada"
    refused("", text, idp.NOW + seconds + (-1 if seconds < 0 else 1))


def test_one_right_confirmation_is_enough() -> None:
    wrong = ('</a:SubjectConfirmation><a:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer">'
             '<a:SubjectConfirmationData Recipient="x"/></a:SubjectConfirmation></a:Subject>')
    text = idp.assertion().replace("</a:SubjectConfirmation></a:Subject>", wrong)
    assert answer(idp.response(idp.sign(text))).claims["NameID"] == "ada"


def test_nothing_is_used_for_longer_than_an_hour() -> None:
    far = {"confirmed": at(86400 * 365), "not_after": at(86400 * 365)}
    assert of(**far).until == idp.NOW + WINDOW + 60


@pytest.mark.parametrize("name_id", [
    "", "<a:NameID/>", '<a:NameID Format="urn:oasis:names:tc:SAML:2.0:nameid-format:transient">ada</a:NameID>',
    '<a:NameID NameQualifier="https://evil.example">ada</a:NameID>', "<a:NameID>ada<a:x/>.evil</a:NameID>",
    '<a:NameID SPNameQualifier="urn:other">ada</a:NameID>', "<a:NameID> ada</a:NameID>",
    "<a:NameID>a&#10;da</a:NameID>", f"<a:NameID>{'a' * 256}</a:NameID>"])
def test_names_that_are_none(name_id: str) -> None:
    with pytest.raises(AuthenticationError, match="NameID, the subject, is missing or no text"):
        identify(idp.provider(), of(name_id=name_id, attributes=idp.attribute("NameID", "root")).claims)


def test_names_in_the_providers_and_weirs_own_name() -> None:
    name = f'<a:NameID NameQualifier="{idp.ISSUER}" SPNameQualifier="{idp.WEIR}">ada</a:NameID>'
    assert of(name_id=name).claims["NameID"] == "ada"


def test_a_subject_and_groups_by_attributes() -> None:
    provider = idp.provider(subject_claim="uid", required={"mail": "ada@lab.example"})
    rows = (idp.attribute("uid", "u1") + idp.attribute("groups", "dba") + idp.attribute("groups", "/staff")
            + idp.attribute("mail", "ada@lab.example") + idp.attribute("exp", "9999999999"))
    who = identify(provider, of(attributes=rows, name_id="").claims)
    assert (who.subject, who.groups, who.expires) == ("corp:u1", ("data", "dba"), idp.NOW + 7200)
    for wrong in (rows.replace("u1", ""), rows + idp.attribute("uid", "u2"), rows.replace("lab.ex", "evil.ex"),
                  rows + idp.attribute("mail", "x"), rows.replace(">u1<", "><a:NameID>u1</a:NameID><")):
        with pytest.raises(AuthenticationError, match=r"claim (uid|mail)"):
            identify(provider, of(attributes=wrong).claims)


def test_groups_that_are_no_texts() -> None:
    rows = idp.attribute("groups", "<a:NameID>dba</a:NameID>")
    with pytest.raises(AuthenticationError, match="claim groups is no list of texts"):
        identify(idp.provider(), of(attributes=rows).claims)
    assert identify(idp.provider(), of(attributes="").claims).groups == ()


def test_how_long_it_lasts() -> None:
    two = (f'<a:AuthnStatement AuthnInstant="{at(0)}" SessionNotOnOrAfter="{at(900)}"/>'
           f'<a:AuthnStatement AuthnInstant="{at(0)}" SessionNotOnOrAfter="{at(600)}"/>')
    assert of(statement=two).claims["exp"] == idp.NOW + 600
    forever = f'<a:AuthnStatement AuthnInstant="{at(0)}"/>'
    assert of(statement=forever).claims["exp"] == idp.NOW + LONGEST
    late = f'<a:AuthnStatement AuthnInstant="{at(0)}" SessionNotOnOrAfter="9999-01-01T00:00:00Z"/>'
    assert of(statement=late).claims["exp"] == idp.NOW + LONGEST
