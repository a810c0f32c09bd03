"""Conformance of token verification: each way in which a token may be wrong, with tokens that are really signed."""
from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import signing
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import OctKey, RSAKey

from enforcer.identity import tokens
from enforcer.identity.tokens import ACCESS, PERSON, UnknownKey, parse_keys, verify
from enforcer.words.errors import AuthenticationError

NOW, PROVIDER = signing.NOW, signing.PROVIDER
claims, sign, by_hand = signing.claims, signing.sign, signing.by_hand
KEYS = parse_keys(signing.public(signing.RSA, signing.EC, signing.ED, signing.SHORT))


def check(token: str | bytes, kind: str = PERSON, nonce: str = "n", **changed: Any) -> dict[str, Any]:
    return verify(token, KEYS, msgspec.structs.replace(PROVIDER, **changed), NOW, kind=kind, nonce=nonce)


def refused(token: str | bytes, said: str, **more: Any) -> None:
    with pytest.raises(AuthenticationError) as wrong:
        check(token, **more)
    assert said in str(wrong.value)


@pytest.mark.parametrize(("key", "algorithm"), [
    (signing.RSA, "RS256"), (signing.RSA, "PS256"), (signing.EC, "ES256"), (signing.ED, "EdDSA")])
def test_what_is_right_is_taken(key: Any, algorithm: str) -> None:
    assert check(sign(claims(), key, algorithm))["sub"] == "7b1f"
    assert check(sign(claims(), key, algorithm).encode())["sub"] == "7b1f"


@pytest.mark.parametrize(("changed", "said"), [
    ({"iss": "https://evil.example"}, "another issuer"), ({"iss": signing.ISSUER + "/"}, "another issuer"),
    ({"iss": None}, "another issuer"), ({"iss": [signing.ISSUER]}, "another issuer"),
    ({"aud": "other"}, "another audience"), ({"aud": None}, "another audience"), ({"aud": []}, "another audience"),
    ({"aud": {"weir": 1}}, "another audience"), ({"aud": ["weir", 7]}, "another audience"),
    ({"aud": "weir-api"}, "another audience"), ({"aud": ["weir", "other"]}, "another client"),
    ({"azp": "other"}, "another client"), ({"azp": ["weir"]}, "another client"),
    ({"exp": None}, "does not say when it expires"), ({"exp": NOW - 60}, "has expired"), ({"exp": "never"}, "no time"),
    ({"exp": True}, "no time"), ({"exp": 1 << 60}, "no time"), ({"exp": -1}, "no time"),
    ({"exp": NOW + 400 * 86400}, "more than a year"), ({"nbf": NOW + 61}, "only later"), ({"nbf": "x"}, "no time"),
    ({"iat": NOW + 61}, "in the future"),
    ({"nonce": "m"}, "nonce"), ({"nonce": None}, "nonce"), ({"nonce": 7}, "nonce"),
])
def test_claims_that_are_wrong(changed: dict[str, Any], said: str) -> None:
    token = json.dumps({**claims(), **changed}) if None not in changed.values() else json.dumps(claims(**changed))
    refused(sign(token.encode()), said)


@pytest.mark.parametrize("changed", [
    {"exp": NOW - 59}, {"nbf": NOW + 60}, {"iat": NOW + 60}, {"aud": ["weir"]}, {"azp": "weir"},
    {"aud": ["weir", "other"], "azp": "weir"}, {"exp": NOW + 0.5}, {"iat": NOW - 10**6}])
def test_what_clocks_and_lists_may_differ_by(changed: dict[str, Any]) -> None:
    assert check(sign(claims(**changed)))


def test_an_access_token_is_for_its_audience() -> None:
    assert check(sign(claims(aud="weir-api", azp="whoever")), kind=ACCESS, nonce="")
    assert check(sign(claims(aud=["x", "weir-api"]), typ="at+jwt"), kind=ACCESS, nonce="")
    refused(sign(claims()), "another audience", kind=ACCESS, nonce="")


@pytest.mark.parametrize("kind", ["at+jwt", "logout+jwt", "secevent+jwt", "JOSE"])
def test_a_token_of_another_kind_is_no_login(kind: str) -> None:
    refused(sign(claims(), typ=kind), "of another kind")


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
def test_unsigned(algorithm: str) -> None:
    for signature in (b"", b"x"):
        refused(by_hand({"alg": algorithm}, claims(), signature), "algorithm")
        refused(by_hand({"alg": algorithm, "kid": "rsa"}, claims(), signature), "algorithm")


def test_a_public_key_is_no_secret() -> None:
    """HS/RS confusion, RFC 8725, 2.1: the RSA key's PEM or DER as HMAC's key."""
    pem, der = signing.RSA.as_pem(private=False), signing.RSA.as_der(private=False)
    for secret in (pem, der, json.dumps(signing.RSA.as_dict(private=False)).encode()):
        refused(signing.by_hmac({"alg": "HS256", "kid": "rsa"}, claims(), secret), "algorithm")
        # Even where somebody's list had it: no key here is a secret.
        refused(signing.by_hmac({"alg": "HS256", "kid": "rsa"}, claims(), secret), "no key", algorithms=("HS256",))


def test_a_secret_among_the_keys_is_left_out() -> None:
    shared = OctKey.import_key(b"s" * 32, {"kid": "oct"})
    keys = parse_keys({"keys": [shared.as_dict(private=True), {**shared.as_dict(private=True), "kty": "RSA"}]})
    assert keys.all == ()
    with pytest.raises(UnknownKey):
        verify(signing.by_hmac({"alg": "HS256", "kid": "oct"}, claims(), b"s" * 32), keys,
               msgspec.structs.replace(PROVIDER, algorithms=("HS256",)), NOW, kind=PERSON)


def test_a_key_in_the_token_is_not_looked_at() -> None:
    stranger = signing.STRANGE
    jwk = stranger.as_dict(private=False)
    refused(sign(claims(), stranger, jwk=jwk), "signature is wrong")
    refused(sign(claims(), stranger, kid="mine", jwk=jwk), "no key")
    refused(sign(claims(), stranger, jku="https://evil.example/keys"), "signature is wrong")
    refused(sign(claims(), stranger, x5u="https://evil.example/x.pem", x5c=["AAAA"]), "signature is wrong")
    assert check(sign(claims(), jwk=jwk, jku="https://evil.example/keys"))


def test_another_ones_key_of_the_same_name() -> None:
    refused(sign(claims(), signing.STRANGE), "signature is wrong")


def test_an_algorithm_that_the_key_does_not_have() -> None:
    refused(sign(claims(), signing.RSA, "RS512"), "algorithm")
    refused(sign(claims(), signing.EC, "ES256", kid="rsa"), "no key")
    only = parse_keys(signing.public(signing.RSA, alg="PS256"))
    with pytest.raises(UnknownKey):
        verify(sign(claims()), only, PROVIDER, NOW, kind=PERSON)
    assert verify(sign(claims(), algorithm="PS256"), only, PROVIDER, NOW, kind=PERSON)
    refused(sign(claims(), signing.EC, "ES256"), "algorithm", algorithms=("RS256",))


def test_a_short_key_does_not_count() -> None:
    refused(sign(claims(), signing.SHORT), "no key")


@pytest.mark.parametrize("header", [{"crit": ["exp"], "exp": NOW}, {"crit": []}, {"crit": ["b64"], "b64": True},
                                    {"b64": False}, {"crit": "x"}])
def test_critical_extensions_are_refused(header: dict[str, Any]) -> None:
    token = sign(claims())
    head = {"alg": "RS256", "kid": "rsa", **header}
    forged = by_hand(head, claims()).split(".")[0] + "." + token.split(".", 1)[1]
    with pytest.raises(AuthenticationError):
        check(forged)


def test_an_unknown_header_that_is_not_critical_is_ignored() -> None:
    assert check(sign(claims(), x_vendor="yes"))


def test_a_changed_token() -> None:
    head, body, signature = sign(claims()).split(".")
    other = sign(claims(sub="admin")).split(".")[1]
    refused(f"{head}.{other}.{signature}", "signature is wrong")
    refused(f"{head}.{body}.", "signature is wrong")
    refused(f"{head}.{body}", "no signed token")
    refused(f"{head}.{body}.{signature}.x.y", "no signed token")          # JWE
    refused("", "no signed token")


def test_rotated_keys() -> None:
    """An unknown name asks for the keys again; then the new one counts, and the old one does not."""
    new = RSAKey.generate_key(2048, {"kid": "new"})
    with pytest.raises(UnknownKey):
        check(sign(claims(), new))
    keys = parse_keys(signing.public(new))
    assert verify(sign(claims(), new), keys, PROVIDER, NOW, kind=PERSON)
    with pytest.raises(UnknownKey):
        verify(sign(claims()), keys, PROVIDER, NOW, kind=PERSON)


def test_a_token_without_a_name_of_its_key() -> None:
    """OpenID Connect Core 1.0, 10.1: only where there is one."""
    one = parse_keys(signing.public(signing.RSA))
    assert verify(sign(claims(), kid=None), one, PROVIDER, NOW, kind=PERSON)
    several = parse_keys(signing.public(signing.RSA, signing.STRANGE))
    with pytest.raises(UnknownKey):
        verify(sign(claims(), kid=None), several, PROVIDER, NOW, kind=PERSON)


def test_two_keys_of_one_name() -> None:
    keys = parse_keys(signing.public(signing.STRANGE, signing.RSA))
    assert verify(sign(claims()), keys, PROVIDER, NOW, kind=PERSON)


@pytest.mark.parametrize("document", [None, [], {}, {"keys": {}}, {"keys": [{}] * 101}, "x"])
def test_keys_that_are_none(document: Any) -> None:
    with pytest.raises(AuthenticationError):
        parse_keys(document)


def test_keys_that_cannot_be_used_are_left_out() -> None:
    right = signing.RSA.as_dict(private=False)
    rows = [None, 7, {}, {"kty": "RSA"}, {"kty": "EC", "crv": "P-256", "x": "!", "y": "!"}, {**right, "use": "enc"},
            {**right, "key_ops": ["encrypt"]}, {**right, "kid": 7}, {"kty": "RSA", "n": 5, "e": []},
            {"kty": "OKP", "crv": "Ed25519", "x": "AA"}]
    assert parse_keys({"keys": rows}).all == ()
    assert len(parse_keys({"keys": [*rows, right]}).all) == 1


def test_sizes() -> None:
    refused(sign(claims(x="y" * tokens.TOKEN)), "too long")
    refused(by_hand({"alg": "RS256", "kid": "k" * 9000}, claims(), b"x"), "no signed token")
    refused(b"." * tokens.TOKEN, "no signed token")


def test_claims_that_are_no_object() -> None:
    for payload in (b"[]", b"7", b'"x"', b"null", b"\xff", b"{", b"[" * 30000, b'{"sub": "a", "sub": "b"}'):
        refused(sign(payload), "its claims are no")


@pytest.mark.parametrize(("head", "right"), [
    (b'{"alg":"RS256","kid":"rsa"}', True), (b'{"alg":"none","alg":"RS256","kid":"rsa"}', False),
    (b'{"alg":"RS256","kid":"other","kid":"rsa"}', False), (b'{"alg":"RS256","kid":"rsa","x":{"y":1,"y":2}}', False)])
def test_a_header_that_says_something_twice(head: bytes, right: bool) -> None:
    """RFC 7515, 4: another reader could see another header."""
    token = signing.by_bytes(head, claims())
    if right:
        assert check(token)["sub"] == "7b1f"
    else:
        refused(token, "no signed token")


@given(st.binary(max_size=300))
def test_garbage_is_refused(raw: bytes) -> None:
    with pytest.raises(AuthenticationError):
        check(raw)


@given(st.data())
def test_no_single_character_may_change(data: st.DataObject) -> None:
    token = SIGNED
    at = data.draw(st.integers(0, len(token) - 2))           # the last one's low bits are of no byte
    other = data.draw(st.sampled_from("ABCxyz019-_.").filter(lambda one: one != token[at]))
    with pytest.raises(AuthenticationError):
        check(token[:at] + other + token[at + 1:])


SIGNED = sign(claims(), signing.EC, "ES256")


def test_errors_hold_nothing_of_a_token() -> None:
    secret = "very-secret-subject"
    for changed in ({"iss": secret}, {"aud": secret}, {"azp": secret}, {"exp": secret}, {"nonce": secret}):
        with pytest.raises(AuthenticationError) as wrong:
            check(sign(claims(sub=secret, **changed)))
        assert secret not in str(wrong.value)
        assert wrong.value.__cause__ is None
