"""What comes back to the loopback redirect."""
from __future__ import annotations

import msgspec
import pytest

from enforcer.identity.answers import Refused, parse_redirect
from enforcer.identity.metadata import Metadata
from enforcer.words.errors import AuthenticationError

ISSUER = "https://idp.lab.example"
PLAIN = Metadata(ISSUER, "https://x/k", "https://x/t")
STRICT = msgspec.structs.replace(PLAIN, authorization_response_iss_parameter_supported=True)


def test_the_code() -> None:
    assert parse_redirect("code=abc&state=st&session_state=x", "st", ISSUER, PLAIN) == "abc"
    assert parse_redirect(f"code=abc&state=st&iss={ISSUER}", "st", ISSUER, STRICT) == "abc"


@pytest.mark.parametrize(("query", "said"), [
    ("code=abc&state=other", "another login"), ("code=abc", "another login"), ("code=abc&state=", "another login"),
    ("code=abc&state=st&state=st", "malformed"), ("code=a&code=b&state=st", "malformed"), ("%%%", "malformed"),
    ("state=st", "holds no code"), ("code=&state=st", "holds no code"), ("x" * 9000, "too long"), ("", "another login"),
    ("code=a&state=st&iss=https://evil.example", "another provider"),
    ("&".join(f"a{n}=1" for n in range(40)), "malform"),
])
def test_what_is_not_this_logins_answer(query: str, said: str) -> None:
    with pytest.raises(AuthenticationError, match=said):
        parse_redirect(query, "st", ISSUER, PLAIN)


def test_an_issuer_is_needed_where_the_provider_says_so() -> None:
    """RFC 9207, 2.4."""
    with pytest.raises(AuthenticationError, match="another provider"):
        parse_redirect("code=a&state=st", "st", ISSUER, STRICT)


def test_a_refusal() -> None:
    with pytest.raises(Refused) as wrong:
        parse_redirect("error=access_denied&error_description=SECRET&state=st", "st", ISSUER, PLAIN)
    assert str(wrong.value) == "the provider says access_denied"
    with pytest.raises(AuthenticationError, match="another login"):
        parse_redirect("error=access_denied&state=other", "st", ISSUER, PLAIN)
