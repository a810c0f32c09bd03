"""Login against a real PostgreSQL 15, in every way that it can ask."""
from __future__ import annotations

import os
import socket
import ssl
import struct
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from lab import certificates
from lab.hosts import wait_until

from agent.contract.credential import Credential
from agent.credential import client_authority as client_authority_module
from agent.credential.client_authority import client_authority, issue
from agent.credential.trust import Authority
from enforcer.protocols.postgresql import SSL_REQUEST
from enforcer.protocols.postgresql.login import Login
from enforcer.words.errors import AuthenticationError

PASSWORD = "correct horse battery staple"
PREPARED = "pass­word Ⅸ"
RAW = "raw بx"


def exactly(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = link.recv(size - len(data))
        assert more, "the server closed"
        data += more
    return data


def message(link: socket.socket) -> tuple[bytes, bytes]:
    head = exactly(link, 5)
    return head[:1], exactly(link, struct.unpack("!I", head[1:])[0] - 4)


def dial(cluster, tls: bool, certificate: tuple[str, str] | None = None, tmp: Path | None = None):
    link = socket.create_connection(("127.0.0.1", cluster.port), timeout=10)
    if not tls:
        return link, b"", ""
    link.sendall(SSL_REQUEST)
    assert exactly(link, 1) == b"S"
    context = ssl.create_default_context(cadata=cluster.authority.pem)
    if certificate and tmp:
        certificates.write(tmp / "c.pem", certificate[0])
        certificates.write(tmp / "c.key", certificate[1], 0o600)
        context.load_cert_chain(tmp / "c.pem", tmp / "c.key")
    secure = context.wrap_socket(link, server_hostname="127.0.0.1")
    der = secure.getpeercert(True)
    assert der
    algorithm = x509.load_der_x509_certificate(der).signature_hash_algorithm
    return secure, der, algorithm.name if algorithm else ""


def log_in(link: socket.socket, login: Login) -> str:
    """Give what the server says at the end: "ready", or its error."""
    link.sendall(login.startup_message())
    while True:
        kind, body = message(link)
        if kind == b"R":
            answer = login.authentication(body)
            if answer:
                link.sendall(answer)
        elif kind == b"E":
            return body.decode()
        elif kind == b"Z":
            assert login.done
            return "ready"


def attempt(cluster, user: str, password: str, tls: bool, der: bytes | None = None) -> str:
    link, found, algorithm = dial(cluster, tls)
    with link:
        login = Login(
            Credential(user, password), {"user": "crew", "database": "postgres", "application_name": "naïve"},
            found if der is None else der, algorithm, os.urandom, tls,
        )
        return log_in(link, login)


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
@pytest.mark.parametrize(
    ("user", "password"),
    [("scram", PASSWORD), ("prepared", PREPARED), ("raw", RAW), ("md5", PASSWORD), ("trusted", "")],
)
def test_permitted(cluster, user: str, password: str, tls: bool) -> None:
    assert attempt(cluster, user, password, tls) == "ready"


@pytest.mark.parametrize("user", ["scram", "md5"])
def test_a_wrong_password_is_the_servers_refusal(cluster, user: str) -> None:
    assert "28P01" in attempt(cluster, user, "wrong", True)


def test_cleartext_goes_over_tls_only(cluster) -> None:
    assert attempt(cluster, "plain", PASSWORD, True) == "ready"
    with pytest.raises(AuthenticationError, match="without TLS"):
        attempt(cluster, "plain", PASSWORD, False)


def test_the_server_refuses_a_binding_to_another_certificate(cluster) -> None:
    other, _ = certificates.make_leaf(cluster.authority, ("elsewhere.example",), ())
    der = ssl.PEM_cert_to_DER_cert(other)
    assert "channel binding" in attempt(cluster, "scram", PASSWORD, True, der)


def test_client_certificate(cluster, tmp_path: Path) -> None:
    pair = certificates.make_leaf(cluster.authority, ("cert",), ())
    link, der, algorithm = dial(cluster, True, pair, tmp_path)
    with link:
        login = Login(Credential("cert"), {"database": "postgres"}, der, algorithm, os.urandom, True)
        assert log_in(link, login) == "ready"


@pytest.fixture
def weirs(cluster, tmp_path: Path) -> Iterator[Authority]:
    """Weir's authority for this server, which trusts it meanwhile as `weir ca` has an operator do it."""
    made, file = client_authority(tmp_path, "orders"), cluster.directory / "ca.pem"
    before = file.read_text()
    file.write_text(before + (tmp_path / "ca/orders/client-ca.pem").read_text())
    reload(cluster)
    yield made
    file.write_text(before)
    reload(cluster)


def reload(cluster) -> None:
    """Until the postmaster has: pg_reload_conf() only asks it."""
    before = cluster.admin("select pg_conf_load_time()")
    cluster.admin("select pg_reload_conf()")
    assert any(cluster.admin("select pg_conf_load_time()") != before for _ in range(500))


def with_certificate(cluster, pair: tuple[str, str], tmp_path: Path) -> str:
    """As user cert."""
    try:
        link, der, algorithm = dial(cluster, True, pair, tmp_path)
        with link:
            return log_in(link, Login(Credential("cert"), {"database": "postgres"}, der, algorithm, os.urandom, True))
    except (ssl.SSLError, ConnectionError) as refused:
        return str(refused)


def test_a_certificate_that_weir_issues(cluster, weirs: Authority, tmp_path: Path) -> None:
    certificate, key, _ = issue(weirs, "cert")
    assert with_certificate(cluster, (certificate, key), tmp_path) == "ready"


@pytest.mark.parametrize(("wrong", "wanted"), [
    ("user", 'certificate authentication failed for user "cert"'),
    ("authority", "certificate verify failed"), ("expired", "certificate verify failed"),
])
def test_a_certificate_of_weirs_that_is_not_for_this(
    cluster, weirs: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str, wanted: str,
) -> None:
    """The server's own log says why: its alert may be lost with the connection."""
    if wrong == "expired":
        monkeypatch.setattr(client_authority_module, "LIFE", timedelta(seconds=-1))
    authority = client_authority(tmp_path, "other") if wrong == "authority" else weirs
    certificate, key, _ = issue(authority, "scram" if wrong == "user" else "cert")
    log = cluster.directory / "server.log"
    before = log.stat().st_size
    assert with_certificate(cluster, (certificate, key), tmp_path) != "ready"
    wait_until("the server's word", lambda: wanted in log.read_bytes()[before:].decode(), 10)


def test_no_password_where_one_is_asked(cluster) -> None:
    with pytest.raises(AuthenticationError, match="has none"):
        attempt(cluster, "scram", "", True)
