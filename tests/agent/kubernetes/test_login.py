"""What is shown to an API server: tokens and their end, certificates and theirs; what a helper prints."""
from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.contract import vault as told
from agent.contract.credential import Credential
from agent.contract.vault import Stored
from agent.credential.client_authority import client_authority, issue
from agent.credential.secrets import SecretError, read_row
from agent.credential.vaults import render_source
from agent.kubernetes.exec_credential import parse_exec
from agent.kubernetes.login import TokenWrong, checked, parse_claims
from agent.settings.credential_table import CredentialRow
from enforcer.credentials.answers import parse_stored
from enforcer.words.errors import AuthenticationError

NOW = 1767225600.0
V1 = "client.authentication.k8s.io/v1"


def jwt(claims: Any) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"eyJhbGciOiJSUzI1NiJ9.{body}.c2ln"


def printed(status: dict[str, Any], version: str = V1, **more: Any) -> bytes:
    return json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status, **more}).encode()


# tokens


def test_a_token_says_its_end_and_whose_it_is() -> None:
    token = jwt({"exp": NOW + 60, "sub": "system:serviceaccount:crews:weir"})
    found = checked(Credential("", token=token + "\n"), NOW)
    assert found == Credential("system:serviceaccount:crews:weir", token=token, expires=int(NOW) + 60)
    assert checked(Credential("who", token=token, expires=int(NOW) + 5), NOW) == Credential(
        "who", token=token, expires=int(NOW) + 5)
    assert checked(Credential("", token="opaque"), NOW) == Credential("", token="opaque")


@pytest.mark.parametrize("token", [
    "a.b.c", "a.!!.c", "a..c", "a.eyJ4IjoxfQ.c", jwt([1]), jwt({"exp": "soon"}), jwt({"exp": -1}), jwt({"exp": 1e300}),
    jwt({"sub": 4}), jwt({"sub": "x\n"}), jwt({"sub": "x" * 300}), "a." + "W" * 40_000 + ".c", "é.é.é",
])
def test_of_others_nothing_is_known(token: str) -> None:
    assert parse_claims(token) == (0, "")


@pytest.mark.parametrize(("token", "wanted"), [
    (jwt({"exp": NOW}), "has expired"), ("hunter 2", "is none"), ("hunter2\nhunter3", "is none"), ("\n", "is none"),
    ("hunter\x00", "is none"), ("hünter", "is none"), ("h" * (1 << 17), "is none"),
])
def test_tokens_that_are_none(token: str, wanted: str) -> None:
    with pytest.raises(TokenWrong, match=wanted) as caught:
        checked(Credential("", token=token), NOW)
    assert "nter" not in str(caught.value)


def test_a_certificate_says_the_same(tmp_path: Path) -> None:
    certificate, key, end = issue(client_authority(tmp_path, "cluster"), "weir-crews")
    now = end.timestamp() - 60
    found = checked(Credential("", certificate=certificate, key=key), now)
    assert (found.user, found.expires) == ("weir-crews", int(end.timestamp()))
    _, other, _ = issue(client_authority(tmp_path, "cluster"), "weir-crews")
    for wrong, wanted in (({"key": other}, "of another key"), ({"key": "hunter2"}, "not PEM"), ({"key": ""}, "neither"),
                          ({"certificate": "hunter2"}, "not PEM")):
        with pytest.raises(TokenWrong, match=wanted):
            checked(msgspec.structs.replace(found, **wrong), now)
    with pytest.raises(TokenWrong, match="has expired"):
        checked(found, end.timestamp() + 1)


def test_a_token_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("abc\n")
    file.chmod(0o600)
    assert checked(read_row(CredentialRow(token_file=str(file))), NOW).token == "abc"
    file.chmod(0o644)
    with pytest.raises(SecretError, match="others than root can read it"):
        read_row(CredentialRow(token_file=str(file)))


# helpers


def test_what_a_plugin_of_kubectls_prints() -> None:
    found, expires = parse_exec(printed({"token": "t", "expirationTimestamp": "2026-01-01T00:00:10Z"}), "", NOW)
    assert (found, expires) == (Credential("", token="t", expires=1767225610), 1767225610.0)
    assert parse_exec(printed({"token": "t", "expirationTimestamp": None}, spec={"interactive": False}), "u", NOW) == (
        Credential("u", token="t"), 0.0)
    assert parse_exec(printed({"clientCertificateData": "C", "clientKeyData": "K"}, V1 + "beta1"), "", NOW)[0] == (
        Credential("", certificate="C", key="K"))


def test_what_weirs_own_print() -> None:
    said = {"user": "u", "token": "t", "expires": "2026-01-01T00:00:10+00:00"}
    assert parse_exec(json.dumps(said).encode(), "", NOW)[0] == Credential("u", token="t", expires=1767225610)


@pytest.mark.parametrize(("output", "wanted"), [
    (b"", "something else"), (b"hunter2", "something else"), (b"[" * 100_000, "something else"),
    (b"[]", "something else"),
    (printed({}), "neither a token"), (printed({"clientCertificateData": "hunter2"}), "neither a token"),
    (printed({"token": "hunter2"}, "client.authentication.k8s.io/v1alpha1"), "something else"),
    (printed({"token": "hunter2"}, "v1"), "something else"), (printed({"token": 2}), "something else"),
    (b'{"kind": "ExecCredential"}', "something else"), (b'{"password": "hunter2"}', "something else"),
    (b'{"token": "hunter2", "more": 1}', "something else"), (b'{"token": "hunter2\xff"}', "something else"),
    (b'{"token": "%s"}' % (b"x" * (1 << 17)), "something else"),
    (printed({"token": "hunter2", "expirationTimestamp": "1999-01-01T00:00:00Z"}), "has expired"),
    (printed({"token": "hunter2", "expirationTimestamp": "soon"}), "something else"),
    (b'{"user": "root", "token": "hunter2"}', "another user"),
])
def test_what_is_none(output: bytes, wanted: str) -> None:
    with pytest.raises(SecretError, match=wanted) as caught:
        parse_exec(output, "svc", NOW)
    assert "hunter" not in str(caught.value)


# Vault


def stored(data: dict[str, str], row: CredentialRow) -> object:
    source = render_source(row, bearer=True)
    assert isinstance(source, Stored)
    return parse_stored(json.dumps({"data": {"data": data}}).encode(), source)


def test_a_token_of_vaults() -> None:
    row = CredentialRow(vault="safe", path="crews/cluster", user_field="")
    found: Any = stored({"token": "t\n", "password": "p"}, row)
    assert (found.token, found.password, found.user) == ("t", "", "")
    with pytest.raises(AuthenticationError, match="no field 'token'"):
        stored({"password": "p"}, row)
    with pytest.raises(AuthenticationError, match="'token' is empty"):
        stored({"token": "\n"}, row)
    pair: Any = stored({"c": "C", "k": "K"}, CredentialRow(
        vault="safe", path="x", user_field="", certificate_field="c", key_field="k"))
    assert (pair.certificate, pair.key, pair.token) == ("C", "K", "")
    assert told.parse_from_vault(told.render_frame(told.Fetched(1, token="t"))[4:]) == told.Fetched(1, token="t")


def test_other_protocols_know_no_token() -> None:
    source = render_source(CredentialRow(vault="safe", path="x"))
    assert isinstance(source, Stored)
    assert (source.token_field, source.password_field) == ("", "password")
