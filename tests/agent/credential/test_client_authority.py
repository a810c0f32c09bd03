"""Weir's own client certificates: their authority, and what it signs."""
from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from agent.credential import client_authority as module
from agent.credential.client_authority import AuthorityError, client_authority, issue
from agent.credential.credentials import Credentials
from agent.credential.trust import Authority
from agent.settings.credential_table import CredentialRow


def place(state: Path) -> Path:
    return state / "ca" / "orders"


def test_it_is_made_once_and_its_key_is_roots(tmp_path: Path) -> None:
    made: list[Authority] = []
    threads = [threading.Thread(target=lambda: made.append(client_authority(tmp_path, "orders"))) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len({one.certificate for one in made}) == 1
    assert (place(tmp_path) / "client-ca.key").stat().st_mode & 0o777 == 0o600
    assert (place(tmp_path) / "client-ca.pem").stat().st_mode & 0o777 == 0o644
    assert "PRIVATE" not in repr(made[0])
    assert client_authority(tmp_path, "other").certificate != made[0].certificate
    with pytest.raises(ValueError, match="target name"):
        client_authority(tmp_path, "../etc")


def test_what_it_signs_is_a_client_of_that_name_for_minutes(tmp_path: Path) -> None:
    authority = client_authority(tmp_path, "orders")
    pem, key, end = issue(authority, "crew_svc")
    certificate = x509.load_pem_x509_certificate(pem.encode())
    [name] = certificate.subject
    assert (name.oid, name.value) == (NameOID.COMMON_NAME, "crew_svc")
    assert end == certificate.not_valid_after_utc
    assert timedelta() < end - datetime.now(UTC) <= timedelta(minutes=10)
    assert certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value == x509.ExtendedKeyUsage(
        [ExtendedKeyUsageOID.CLIENT_AUTH])
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    certificate.verify_directly_issued_by(authority.certificate)
    assert key.startswith("-----BEGIN PRIVATE KEY-----")
    assert issue(authority, "crew_svc")[1] != key


def test_it_is_no_server(tmp_path: Path) -> None:
    authority = client_authority(tmp_path, "orders")
    leaf = x509.load_pem_x509_certificate(issue(authority, "db.lab.example")[0].encode())
    builder = PolicyBuilder().store(Store([authority.certificate]))
    verifier = builder.build_server_verifier(x509.DNSName("db.lab.example"))
    with pytest.raises(VerificationError):
        verifier.verify(leaf, [])


@pytest.mark.parametrize("spoil", ["mode", "other", "gone", "expired"])
def test_one_that_is_wrong_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: str) -> None:
    if spoil == "expired":
        monkeypatch.setattr(module, "AUTHORITY_LIFE", timedelta(seconds=-1))
    client_authority(tmp_path, "orders")
    key = place(tmp_path) / "client-ca.key"
    if spoil == "mode":
        key.chmod(0o640)
    elif spoil == "other":
        client_authority(tmp_path, "other")
        key.write_bytes((tmp_path / "ca" / "other" / "client-ca.key").read_bytes())
    elif spoil == "gone":
        key.unlink()
    before = (place(tmp_path) / "client-ca.pem").read_bytes()
    with pytest.raises(AuthorityError, match="has expired" if spoil == "expired" else "not the key of client-ca.pem"):
        client_authority(tmp_path, "orders")
    assert (place(tmp_path) / "client-ca.pem").read_bytes() == before
    (place(tmp_path) / "client-ca.pem").unlink()
    monkeypatch.undo()
    client_authority(tmp_path, "orders")


async def test_logins_share_one_for_a_while_and_a_new_authority_counts_at_once(tmp_path: Path) -> None:
    row = CredentialRow("*", "*", "*", "svc", None, None, None, certificate="issue")
    target: Any = SimpleNamespace(name="orders", credentials=(row,), protocol="postgresql")
    config: Any = SimpleNamespace(targets=(target,), state=tmp_path)
    client_authority(tmp_path, "orders")
    credentials = Credentials(tmp_path / "cgroup")

    async def ask() -> str:
        found = await credentials.find(config, target, "shop", "app", ())
        assert (found.user, found.password, bool(found.key)) == ("svc", "", True)
        assert found.expires > datetime.now(UTC).timestamp()
        return found.certificate

    first = await ask()
    assert await ask() == first
    for file in place(tmp_path).iterdir():
        file.unlink()
    client_authority(tmp_path, "orders")
    assert await ask() != first
