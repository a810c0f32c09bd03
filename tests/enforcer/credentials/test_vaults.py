"""Vault's API against a real OpenBao: each way of saying who Weir is, what is read, what is wrong without a secret."""
from __future__ import annotations

import asyncio
import time

import msgspec
import pytest
import signing
from cryptography.hazmat.primitives.asymmetric import ed25519
from lab import certificates
from lab.openbao import MISSING, OpenBao, binary
from vaulted import STORED, Asking

from agent.contract.credential import Credential
from agent.contract.vault import Fetch, Made, Material, Signed
from agent.ssh.keys import parse_certificate, render_private, render_public
from agent.ssh.login import checked

pytestmark = pytest.mark.skipif(not binary().exists(), reason=MISSING)


def entries(bao: OpenBao, path: str) -> int:
    """Answers at this path, in the server's own audit log."""
    lines = bao.audit.read_text().splitlines()
    return sum(f'"path":"{path}"' in line and '"type":"response"' in line for line in lines)


@pytest.fixture(scope="module", autouse=True)
def audited(bao: OpenBao) -> None:
    bao.ask("PUT", "sys/audit/file", {"type": "file", "options": {"file_path": str(bao.audit)}})


async def test_by_approle(asking: Asking) -> None:
    found = await asking.fetch()
    assert (found.error, found.user, found.password, found.lease) == ("", "crew_svc", "kv-hunter1", 0)
    assert "kv-hunter1" not in repr(found)


async def test_a_token_is_used_until_it_ends(asking: Asking, bao: OpenBao) -> None:
    before = entries(bao, "auth/approle/login")
    await asking.fetch()
    await asking.fetch()
    assert entries(bao, "auth/approle/login") == before + 1


async def test_a_new_version_counts_at_the_next_login(asking: Asking, bao: OpenBao) -> None:
    assert (await asking.fetch()).password == "kv-hunter1"
    bao.put("crews/orders", username="crew_svc", password="kv-hunter2")
    assert (await asking.fetch()).password == "kv-hunter2"
    bao.put("crews/orders", username="crew_svc", password="kv-hunter1")


async def test_a_bearer_token(asking: Asking, bao: OpenBao) -> None:
    """Of a cluster: neither a user nor a password."""
    bao.put("crews/cluster", token="kv-t0ken\n", password="kv-s3cret")
    source = msgspec.structs.replace(
        STORED, path="crews/cluster", user_field="", password_field="", token_field="token")
    found = await asking.fetch(source)
    assert (found.error, found.token, found.password, found.user) == ("", "kv-t0ken", "", "")
    assert "t0ken" not in repr(found)
    assert "has no field 'other'" in (await asking.fetch(msgspec.structs.replace(source, token_field="other"))).error


async def test_other_fields(asking: Asking, bao: OpenBao) -> None:
    bao.put("crews/other", login="who", secret="kv-s3cret", pem="CERT", key="KEY")
    source = msgspec.structs.replace(
        STORED, path="crews/other", user_field="login", password_field="secret", certificate_field="pem",
        key_field="key")
    found = await asking.fetch(source)
    assert (found.user, found.password, found.certificate, found.key) == ("who", "kv-s3cret", "CERT", "KEY")
    found = await asking.fetch(msgspec.structs.replace(source, user="named", password_field="none"))
    assert (found.user, found.password, found.certificate) == ("named", "", "CERT")
    for wrong, said in (({"user_field": "nobody"}, "'nobody'"), ({"key_field": "", "password_field": "no"},
                                                                  "'no'")):
        error = (await asking.fetch(msgspec.structs.replace(source, **wrong))).error
        assert f"Vault safe, secret/crews/other: it has no field {said}" in error


async def test_a_key_of_ssh_alone(asking: Asking, bao: OpenBao) -> None:
    """With its line ends, and without a user: the account is the crew's to ask for."""
    key = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"
    bao.put("crews/web", key=key)
    source = msgspec.structs.replace(STORED, path="crews/web", user="", user_field="", key_field="key")
    found = await asking.fetch(source)
    assert (found.error, found.user, found.password, found.certificate, found.key) == ("", "", "", "", key)
    assert "AAAA" not in repr(found)


async def test_a_key_that_the_ssh_engine_signs(asking: Asking, bao: OpenBao) -> None:
    bao.ask("POST", "sys/mounts/ssh", {"type": "ssh"})
    bao.ask("POST", "ssh/config/ca", {"generate_signing_key": True})
    bao.ask("POST", "ssh/roles/crews", {
        "key_type": "ca", "allow_user_certificates": True, "allowed_users": "deploy", "ttl": "5m",
        "default_extensions": {"permit-pty": ""}})
    key = ed25519.Ed25519PrivateKey.generate()
    source = Signed("ssh", "crews", render_public(key.public_key()), "deploy")
    found = await asking.fetch(source)
    assert (found.error, found.user) == ("", "deploy")
    made = checked(Credential("deploy", "", found.certificate, render_private(key)), time.time())
    assert 0 < made.expires - time.time() <= 300
    assert parse_certificate(found.certificate).valid_principals == [b"deploy"]
    for changed, said in (({"user": "root"}, "(400) at ssh/sign/crews"), ({"role": "a/b"}, "(403) at ssh/sign/a/b")):
        assert said in (await asking.fetch(msgspec.structs.replace(source, **changed))).error


async def test_by_token(asking: Asking, bao: OpenBao) -> None:
    made = [bao.ask("POST", "auth/token/create", {"policies": ["weir"], "ttl": "10m"})["auth"]["client_token"]
            for _ in range(2)]
    asking.configure(auth="token")
    assert (await asking.fetch(material=Material(made[0].encode() + b"\n"))).user == "crew_svc"
    bao.ask("POST", "auth/token/revoke", {"token": made[0]})
    refused = await asking.fetch(material=Material(made[0].encode()))
    assert "permits it not" in refused.error
    assert "token_file" in refused.error
    assert made[0] not in refused.error
    assert (await asking.fetch(material=Material(made[1].encode()))).user == "crew_svc"      # the file has changed
    await asking.vaults.close()
    assert bao.ask("GET", "auth/token/lookup-self", token=made[1])         # the operator's is not Weir's to end


async def test_by_jwt(asking: Asking, bao: OpenBao) -> None:
    pem = signing.EC.as_pem(private=False).decode()
    bao.ask("POST", "auth/jwt/config", {"jwt_validation_pubkeys": [pem], "bound_issuer": "https://spire.lab.example"})
    bao.ask("POST", "auth/jwt/role/weir", {
        "role_type": "jwt", "bound_audiences": ["vault"], "user_claim": "sub", "token_policies": ["weir"]})
    now = int(time.time())
    claims = {"iss": "https://spire.lab.example", "aud": "vault", "sub": "weir", "iat": now, "exp": now + 60}
    asking.configure(auth="jwt", mount="jwt", role="weir")
    wrong = Material(signing.sign(claims | {"aud": "other"}, signing.EC, "ES256").encode())
    refused = await asking.fetch(material=wrong)
    assert "(400) at auth/jwt/login: role, or what jwt_file holds, is not right there" in refused.error
    right = Material(signing.sign(claims, signing.EC, "ES256").encode())
    assert (await asking.fetch(material=right)).user == "crew_svc"         # a file that was written anew


async def test_by_certificate(asking: Asking, bao: OpenBao) -> None:
    authority = certificates.make_authority("Clients")
    pem, key = certificates.make_leaf(authority, ("weir",), ())
    bao.ask("POST", "auth/cert/certs/weir", {"certificate": authority.pem, "token_policies": "weir"})
    asking.configure(auth="cert", mount="cert", role="weir")
    shown = Material(certificate=pem, key=key)
    assert (await asking.fetch(material=shown)).user == "crew_svc"
    strange, strange_key = certificates.make_leaf(certificates.make_authority("Clients"), ("weir",), ())
    refused = await asking.fetch(material=Material(certificate=strange, key=strange_key))
    assert "certificate_file" in refused.error
    assert "cannot be used" in (await asking.fetch(material=Material(certificate="x", key=strange_key))).error
    assert "PRIVATE" not in refused.error


@pytest.mark.parametrize(("changed", "said"), [
    ({"role_id": "no-such-role"}, "(400) at auth/approle/login: role_id, or what secret_id_file holds"),
    ({"mount": "nowhere"}, "(403) at auth/nowhere/login"), ({"ca": certificates.make_authority().pem}, "certificate:"),
    ({"address": "https://127.0.0.1:1"}, "cannot be reached"), ({"ca": "no roots"}, "roots of vault safe"),
    ({"namespace": "teams/none"}, "in namespace teams/none"),
])
async def test_what_is_wrong_with_a_server(asking: Asking, changed: dict[str, str], said: str) -> None:
    asking.configure(**changed)
    error = (await asking.fetch()).error
    assert said in error
    assert asking.material.secret.decode() not in error


@pytest.mark.parametrize(("path", "said"), [
    ("crews/none", "has nothing there (404) at secret/data/crews/none"), ("forbidden", "permits it not"),
])
async def test_what_is_wrong_with_a_path(asking: Asking, path: str, said: str) -> None:
    assert said in (await asking.fetch(msgspec.structs.replace(STORED, path=path))).error


async def test_a_policy_that_says_no_is_no_reason_to_log_in_again(asking: Asking, bao: OpenBao) -> None:
    await asking.fetch()
    before = entries(bao, "auth/approle/login")
    for _ in range(3):
        await asking.fetch(msgspec.structs.replace(STORED, path="forbidden"))
    assert entries(bao, "auth/approle/login") == before


async def test_a_token_that_was_revoked_there(asking: Asking, bao: OpenBao) -> None:
    """Weir logs in again, within the same login of a crew."""
    await asking.fetch()
    for accessor in bao.ask("LIST", "auth/token/accessors")["data"]["keys"]:
        found = bao.ask("POST", "auth/token/lookup-accessor", {"accessor": accessor})["data"]
        if found["path"] == "auth/approle/login":
            bao.ask("POST", "auth/token/revoke-accessor", {"accessor": accessor})
    assert (await asking.fetch()).user == "crew_svc"


@pytest.mark.slow
async def test_a_token_is_renewed_and_after_its_longest_there_is_another(asking: Asking, bao: OpenBao) -> None:
    bao.approle("short", ttl="2s", most="5s")
    asking.configure(role_id=bao.role_ids["short"])
    material = Material(bao.secret_id("short").encode())
    logins, renewals = entries(bao, "auth/approle/login"), entries(bao, "auth/token/renew-self")
    until = time.monotonic() + 7
    while time.monotonic() < until:
        found = await asking.fetch(material=material)
        assert found.user == "crew_svc", found.error
        await asyncio.sleep(0.2)
    assert entries(bao, "auth/token/renew-self") >= renewals + 2
    assert logins + 2 <= entries(bao, "auth/approle/login") <= logins + 4


async def test_sealed(asking: Asking, bao: OpenBao) -> None:
    await asking.fetch()
    bao.seal()
    try:
        error = (await asking.fetch()).error
        assert error == "Vault safe is sealed, or down for maintenance (503) at secret/data/crews/orders"
    finally:
        bao.open()

    async def again() -> bool:
        return (await asking.fetch()).user == "crew_svc"

    async with asyncio.timeout(20):
        while not await again():
            await asyncio.sleep(0.1)


async def test_its_tokens_end_with_it(asking: Asking, bao: OpenBao) -> None:
    await asking.fetch()
    before = entries(bao, "auth/token/revoke-self")
    await asking.vaults.close()
    assert entries(bao, "auth/token/revoke-self") == before + 1


async def test_one_that_is_not_configured(asking: Asking) -> None:
    assert asking.vaults.configure([]) == ""
    assert (await asking.fetch()).error == "there is no vault safe"
    asked = Fetch(1, "other", asking.material, Made("database", "orders"))
    assert (await asking.vaults.fetch(asked)).error == "there is no vault other"
