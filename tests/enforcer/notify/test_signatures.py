"""Against the publishers' own code: slack_sdk signs what is verified here, standardwebhooks verifies what is signed."""
from __future__ import annotations

import time

import pytest
from receivers import SECRET, WEBHOOK_SECRET
from slack_sdk.signature import SignatureVerifier
from standardwebhooks import Webhook

from agent.credential.secrets import SecretError
from agent.notify.files import parse_secret
from enforcer.notify.signatures import SPAN, Seen, sign_webhook, wrong_request

BODY = b"payload=%7B%22type%22%3A%22block_actions%22%7D"


def signed(now: int, body: bytes = BODY, secret: str = SECRET) -> str:
    made = SignatureVerifier(secret).generate_signature(timestamp=str(now), body=body)
    assert made is not None
    return made


def test_what_slack_signs_is_taken_and_nothing_else() -> None:
    now = int(time.time())
    assert wrong_request(SECRET, str(now), signed(now), BODY, now) == ""
    assert wrong_request(SECRET, str(now), signed(now), BODY + b" ", now)
    assert wrong_request(SECRET, str(now), signed(now, secret="another"), BODY, now)
    assert wrong_request(SECRET, str(now + 1), signed(now), BODY, now)
    for late in (-SPAN - 1, SPAN + 1):
        assert "too old" in wrong_request(SECRET, str(now), signed(now), BODY, now + late)


@pytest.mark.parametrize("timestamp", ["", "x", "-1", "1e9", "1700000000 ", "١٧٠٠٠٠٠٠٠٠", "9" * 40])
def test_a_timestamp_is_a_number(timestamp: str) -> None:
    assert wrong_request(SECRET, timestamp, "v0=" + "0" * 64, BODY, time.time()) == "is not signed"


@pytest.mark.parametrize("signature", [
    "", "v0=", "v1=" + "0" * 64, "v0=" + "0" * 63, "v0=" + "g" * 64, "v0=\u0660" * 9])
def test_a_signature_has_its_form(signature: str) -> None:
    assert wrong_request(SECRET, str(int(time.time())), signature, BODY, time.time()) == "is not signed"


def test_the_same_comes_once() -> None:
    seen = Seen(600, most=3)
    assert seen.is_new("a", 0)
    assert not seen.is_new("a", 599)
    assert seen.is_new("a", 601)
    assert seen.is_new("b", 602)
    assert seen.is_new("c", 602)
    assert not seen.is_new("d", 602)  # full: nothing more is taken


def test_webhooks_are_signed_as_the_standard_has_it() -> None:
    headers = sign_webhook(parse_secret(WEBHOOK_SECRET), "msg_1", int(time.time()), b'{"a": 1}')
    Webhook(WEBHOOK_SECRET).verify(b'{"a": 1}', headers)
    for other in (b'{"a": 2}', b""):
        with pytest.raises(Exception, match="signature"):
            Webhook(WEBHOOK_SECRET).verify(other, headers)


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_!!!", "c2hvcnQ=", "whsec_c2hvcnQ=", "whsec_" + "A" * 200])
def test_a_secret_has_its_form_and_is_not_said(text: str) -> None:
    with pytest.raises(SecretError) as wrong:
        parse_secret(text)
    assert "A" * 20 not in str(wrong.value)
