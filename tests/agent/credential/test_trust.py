"""Authorities, leafs and the files that clients read, checked by OpenSSL's own verification."""
from __future__ import annotations

import ipaddress
import os
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.credential.trust import (
    KEPT,
    NO_TRUST,
    SYSTEM_BUNDLE,
    Leaf,
    Trust,
    TrustTarget,
    binds_for,
    covers,
    parse_names,
    prepare_trust,
    resolv_conf,
)
from agent.kubernetes.kubeconfig import parse_clusters
from agent.workload.view import Bind

SHOP = TrustTarget("shop", hosts=("db.shop.example", "192.0.2.7"), addresses=("192.0.2.8", "2001:db8::8"))


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    state, run = tmp_path / "state", tmp_path / "run"
    state.mkdir()
    run.mkdir()
    return state, run


def prepared(places: tuple[Path, Path], *targets: TrustTarget, running: bool = False) -> Trust:
    return prepare_trust(targets, *places, running=running)


def certificates(leaf: Leaf) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(leaf.certificate.encode())


def authority(places: tuple[Path, Path], name: str = "shop") -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    directory = places[0] / "ca" / name
    key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes()), key


def forged(places: tuple[Path, Path], *names: x509.GeneralName, ca: bool = False) -> tuple[x509.Certificate,
                                                                                          ec.EllipticCurvePrivateKey]:
    """What somebody who has the authority's key could sign."""
    issuer, signer = authority(places)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    builder = (
        x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(issuer.subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1)).add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=True))
    return builder.sign(signer, hashes.SHA256()), key


def verify(tmp_path: Path, roots: str, certificate: x509.Certificate, *more: str) -> str:
    """openssl verify's words; empty where it accepts."""
    file = tmp_path / "checked.pem"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    done = subprocess.run(
        ["openssl", "verify", "-no-CApath", "-no-CAstore", "-purpose", "sslserver", "-CAfile", roots, *more, file],
        capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def handshake(leaf: Leaf, roots: str, name: str, tmp_path: Path) -> None:
    """A whole TLS handshake in memory.  Raises ssl.SSLCertVerificationError as a client would."""
    pem = tmp_path / "leaf.pem"
    pem.write_text(leaf.certificate + leaf.key)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(pem)
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT        # as crews' Python 3.13 has it
    trusting.load_verify_locations(roots)
    one, two = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(one, two, server_hostname=name)
    server = serving.wrap_bio(two, one, server_side=True)
    done: set[ssl.SSLObject] = set()
    while len(done) < 2:
        for end in (client, server):
            try:
                end.do_handshake()
                done.add(end)
            except ssl.SSLWantReadError:
                pass


# leafs


def test_a_leaf_carries_every_name_and_address(places: tuple[Path, Path]) -> None:
    leaf = prepared(places, SHOP).leafs["shop"]
    certificate, issuer = certificates(leaf)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["db.shop.example"]
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address(text) for text in ("192.0.2.7", "192.0.2.8", "2001:db8::8")]
    assert leaf.left_out == ()
    assert issuer == authority(places)[0]
    # SCRAM channel binding fails with Ed25519 in libpq 15.
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    assert certificate.signature_hash_algorithm is not None
    assert certificate.signature_hash_algorithm.name == "sha256"


@pytest.mark.parametrize("name", ["db.shop.example", "DB.shop.example", "192.0.2.7", "192.0.2.8", "2001:db8::8"])
def test_clients_accept_each_of_them(places: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    trust = prepared(places, SHOP)
    for roots in (trust.bundle, trust.authorities):
        handshake(trust.leafs["shop"], roots, name, tmp_path)


@pytest.mark.parametrize("name", ["db.other.example", "shop.example", "x.db.shop.example", "192.0.2.9", "2001:db8::9"])
def test_clients_accept_no_other(places: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    trust = prepared(places, SHOP)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(trust.leafs["shop"], trust.bundle, name, tmp_path)


def test_every_start_has_a_leaf_of_its_own_and_the_same_authority(places: tuple[Path, Path]) -> None:
    one, two = prepared(places, SHOP).leafs["shop"], prepared(places, SHOP).leafs["shop"]
    assert one.key != two.key
    assert certificates(one)[1] == certificates(two)[1]


def test_a_leaf_ends_before_its_authority(places: tuple[Path, Path]) -> None:
    leaf, issuer = certificates(prepared(places, SHOP).leafs["shop"])
    assert leaf.not_valid_after_utc < issuer.not_valid_after_utc


# authorities


def test_an_authority_is_held_to_its_target(places: tuple[Path, Path]) -> None:
    prepared(places, SHOP)
    extensions = authority(places)[0].extensions
    constraints = extensions.get_extension_for_class(x509.NameConstraints)
    basic = extensions.get_extension_for_class(x509.BasicConstraints)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert (constraints.critical, basic.critical, usage.critical) == (True, True, True)
    assert basic.value == x509.BasicConstraints(True, 0)
    assert not usage.value.digital_signature
    assert list(constraints.value.permitted_subtrees or ()) == [
        x509.DNSName("db.shop.example"), *(x509.IPAddress(ipaddress.ip_network(text)) for text in (
            "192.0.2.7", "192.0.2.8", "2001:db8::8"))]


@pytest.mark.parametrize("name", [
    x509.DNSName("db.other.example"), x509.DNSName("shop.example"), x509.DNSName("xdb.shop.example"),
    x509.IPAddress(ipaddress.ip_address("192.0.2.9")), x509.IPAddress(ipaddress.ip_address("2001:db8::9"))])
def test_what_it_signs_for_others_is_refused(
    places: tuple[Path, Path], tmp_path: Path, name: x509.GeneralName,
) -> None:
    trust = prepared(places, SHOP)
    assert not covers(authority(places)[0], name)
    # Also next to a permitted one.
    for names in ((name,), (x509.DNSName("db.shop.example"), name)):
        assert "permitted subtree violation" in verify(tmp_path, trust.bundle, forged(places, *names)[0])
    # The same certificate for the target's own name is accepted: the refusal above is by the constraint.
    assert verify(tmp_path, trust.bundle, forged(places, x509.DNSName("db.shop.example"))[0]) == ""


@pytest.mark.parametrize(("target", "foreign"), [
    (TrustTarget("shop", ("db.shop.example",)), x509.IPAddress(ipaddress.ip_address("192.0.2.7"))),
    (TrustTarget("shop", ("db.shop.example",)), x509.IPAddress(ipaddress.ip_address("2001:db8::7"))),
    (TrustTarget("shop", ("192.0.2.7",)), x509.DNSName("db.shop.example")),
    (TrustTarget("shop", ("192.0.2.7",)), x509.IPAddress(ipaddress.ip_address("2001:db8::7"))),
])
def test_a_kind_of_name_that_the_target_lacks_is_not_free(
    places: tuple[Path, Path], tmp_path: Path, target: TrustTarget, foreign: x509.GeneralName,
) -> None:
    """RFC 5280, 4.2.1.10: without a subtree of its type a name would be unconstrained."""
    trust = prepared(places, target)
    assert "subtree violation" in verify(tmp_path, trust.authorities, forged(places, foreign)[0])
    handshake(trust.leafs["shop"], trust.authorities, target.hosts[0], tmp_path)


def test_no_authority_below_it(places: tuple[Path, Path], tmp_path: Path) -> None:
    trust = prepared(places, SHOP)
    between, key = forged(places, x509.DNSName("db.shop.example"), ca=True)
    now = datetime.now(UTC)
    below = (
        x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(between.subject)
        .public_key(key.public_key()).serial_number(7).not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("db.shop.example")]), critical=True)
        .sign(key, hashes.SHA256()))
    chain = tmp_path / "between.pem"
    chain.write_bytes(between.public_bytes(serialization.Encoding.PEM))
    assert verify(tmp_path, trust.authorities, below, "-untrusted", str(chain))


def test_each_target_has_its_own(places: tuple[Path, Path], tmp_path: Path) -> None:
    trust = prepared(places, SHOP, TrustTarget("stock", ("db.stock.example",)))
    handshake(trust.leafs["stock"], trust.authorities, "db.stock.example", tmp_path)
    assert authority(places, "shop")[0] != authority(places, "stock")[0]
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(trust.leafs["stock"], trust.authorities, "db.shop.example", tmp_path)


# keys


def test_keys_are_private_and_certificates_are_not(places: tuple[Path, Path]) -> None:
    before = os.umask(0)
    try:
        trust = prepared(places, SHOP)
    finally:
        os.umask(before)
    directory = places[0] / "ca" / "shop"
    assert (directory / "ca.key").stat().st_mode & 0o7777 == 0o600
    assert (directory / "ca.pem").stat().st_mode & 0o7777 == 0o644
    for file in (places[1] / "trust").iterdir():
        assert file.stat().st_mode & 0o7777 == 0o644
        assert b"PRIVATE KEY" not in file.read_bytes()
    assert sorted(path.name for path in directory.iterdir()) == ["ca.key", "ca.pem"]
    # A leaf's key is nowhere.
    key = trust.leafs["shop"].key.encode()
    assert not [path for path in places[0].parent.rglob("*") if path.is_file() and key in path.read_bytes()]


def test_keys_are_in_no_representation(places: tuple[Path, Path]) -> None:
    trust = prepared(places, SHOP)
    assert "PRIVATE" not in repr(trust) + repr(trust.leafs["shop"]) + str(trust)


def _loosen(directory: Path) -> None:
    (directory / "ca.key").chmod(0o640)


def _link(directory: Path) -> None:
    (directory / "ca.key").rename(directory / "elsewhere")
    (directory / "ca.key").symlink_to("elsewhere")


def _cut(directory: Path) -> None:
    (directory / "ca.key").write_bytes((directory / "ca.key").read_bytes()[:100])


def _lose(directory: Path) -> None:
    (directory / "ca.pem").unlink()


def _swap(directory: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    (directory / "ca.key").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


@pytest.mark.parametrize("harm", [_loosen, _link, _cut, _lose, _swap])
def test_what_may_not_be_trusted_is_made_anew(places: tuple[Path, Path], tmp_path: Path, harm: object) -> None:
    prepared(places, SHOP)
    before = authority(places)[0]
    assert callable(harm)
    harm(places[0] / "ca" / "shop")
    trust = prepared(places, SHOP)
    after, key = authority(places)
    assert after != before
    assert key.public_key() == after.public_key()
    file = places[0] / "ca" / "shop" / "ca.key"
    assert (file.is_symlink(), file.stat().st_mode & 0o7777) == (False, 0o600)
    handshake(trust.leafs["shop"], trust.authorities, "db.shop.example", tmp_path)


# change


def test_a_new_name_makes_a_new_authority_beside_the_old(places: tuple[Path, Path], tmp_path: Path) -> None:
    old = prepared(places, SHOP).leafs["shop"]
    trust = prepared(places, TrustTarget("shop", ("db2.shop.example",)))
    handshake(trust.leafs["shop"], trust.bundle, "db2.shop.example", tmp_path)
    handshake(old, trust.bundle, "db.shop.example", tmp_path)


def test_a_few_former_ones_stay(places: tuple[Path, Path]) -> None:
    for number in range(KEPT + 3):
        trust = prepared(places, TrustTarget("shop", (f"db{number}.shop.example",)))
    assert Path(trust.authorities).read_bytes().count(b"-----BEGIN CERTIFICATE-----") == KEPT + 1


def test_fewer_names_keep_the_authority(places: tuple[Path, Path]) -> None:
    one = certificates(prepared(places, SHOP).leafs["shop"])[1]
    two = certificates(prepared(places, TrustTarget("shop", ("db.shop.example",))).leafs["shop"])[1]
    assert one == two


def test_while_workloads_run_a_new_address_is_left_out_and_said(places: tuple[Path, Path]) -> None:
    before = certificates(prepared(places, SHOP).leafs["shop"])[1]
    moved = TrustTarget("shop", SHOP.hosts, ("192.0.2.99",))
    leaf = prepared(places, moved, running=True).leafs["shop"]
    assert leaf.left_out == ("192.0.2.99",)
    assert certificates(leaf)[1] == before
    # At the next start it is covered.
    assert prepared(places, moved).leafs["shop"].left_out == ()


def test_while_workloads_run_files_are_appended_to_in_place(places: tuple[Path, Path], tmp_path: Path) -> None:
    """They are bound in views, which a renamed file would not reach."""
    first = prepared(places, SHOP)
    before = [(Path(file).stat().st_ino, Path(file).read_bytes()) for file in (first.bundle, first.authorities)]
    second = prepared(places, SHOP, TrustTarget("stock", ("db.stock.example",)), running=True)
    for (inode, content), file in zip(before, (second.bundle, second.authorities), strict=True):
        assert Path(file).stat().st_ino == inode
        assert Path(file).read_bytes().startswith(content)
        handshake(second.leafs["stock"], file, "db.stock.example", tmp_path)
    third = prepared(places, SHOP, running=True)
    assert Path(third.bundle).read_bytes() == Path(second.bundle).read_bytes()


def test_the_bundle_holds_the_systems_roots(places: tuple[Path, Path]) -> None:
    trust = prepared(places, SHOP)
    roots = Path(SYSTEM_BUNDLE).read_bytes() if Path(SYSTEM_BUNDLE).is_file() else b""
    own = Path(trust.authorities).read_bytes()
    assert Path(trust.bundle).read_bytes() == roots + own
    assert own.count(b"BEGIN") == 1


def test_nothing_is_made_without_targets(places: tuple[Path, Path]) -> None:
    assert prepared(places) == NO_TRUST
    assert not list(places[0].iterdir()) + list(places[1].iterdir())
    assert binds_for("crew", "/home/ann", NO_TRUST) == ()


# names


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "-x", "a" * 65, "a\0", "a\n", "ä"])
def test_a_targets_name_is_no_way_out_of_its_directory(places: tuple[Path, Path], name: str) -> None:
    with pytest.raises(ValueError):
        prepared(places, TrustTarget(name, ("db.shop.example",)))
    assert not [path for path in places[0].rglob("*") if path.is_file()]


@pytest.mark.parametrize("host", ["", ".", "a b", "*.shop.example", "a" * 254, "x\0y", "a/b", "-", "a@b", "ä" * 70])
def test_what_no_certificate_can_carry_is_refused(host: str) -> None:
    with pytest.raises(ValueError):
        parse_names([host])


def test_names_as_clients_compare_them() -> None:
    names = parse_names(["DB.Shop.Example.", "db.shop.example", "bücher.example", "[2001:DB8::1]", "fe80::1%eth0"])
    assert names == (
        x509.DNSName("db.shop.example"), x509.DNSName("xn--bcher-kva.example"),
        x509.IPAddress(ipaddress.ip_address("2001:db8::1")), x509.IPAddress(ipaddress.ip_address("fe80::1")))


# what is bound


def test_binds() -> None:
    trust = Trust("/run/weir/trust/roots.pem", "/run/weir/trust/weir.pem", SYSTEM_BUNDLE,
                  ("~/own.pem", "/etc/own.pem", "~/own.pem", "relative.pem"), {})
    own = "/run/weir/trust/weir.pem"
    assert binds_for("crew", "/home/ann/", trust) == (
        Bind("/run/weir/trust/roots.pem", SYSTEM_BUNDLE),
        Bind("/run/weir/trust/roots.pem", "/run/trust/roots.pem", absent="make"),
        Bind(own, "/home/ann/own.pem", append=True), Bind(own, "/etc/own.pem", append=True),
        Bind(own, "/home/ann/.postgresql/root.crt", append=True, absent="make"))


def test_clusters_are_known_by_their_own_authorities(places: tuple[Path, Path]) -> None:
    cluster = TrustTarget("cluster", ("k.example", "10.96.0.1"), ("10.0.0.7",), ("~/own.yaml",), 6443)
    trust = prepared(places, cluster, TrustTarget("orders", ("db.shop.example",), (), ("~/db.pem",)))
    [known] = trust.clusters.clusters
    assert (known.name, known.hosts, known.port) == ("cluster", ("k.example", "10.96.0.1", "10.0.0.7"), 6443)
    assert known.authorities.encode() == trust.authorities_pem[0]
    assert (trust.files, trust.clusters.files) == (("~/db.pem",), ("~/own.yaml",))
    published = places[1] / "trust" / "clusters.json"
    assert parse_clusters(published.read_bytes()) == (known,)
    assert published.stat().st_mode & 0o777 == 0o644
    binds = binds_for("crew", "/home/ann", trust)
    assert [one.target for one in binds if one.kubeconfig] == ["/home/ann/.kube/config", "/home/ann/own.yaml"]
    leaf = x509.load_pem_x509_certificate(trust.leafs["cluster"].certificate.encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["k.example"]
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["10.96.0.1", "10.0.0.7"]
    prepared(places, TrustTarget("orders", ("db.shop.example",)))
    assert not published.exists()


def test_resolv_conf() -> None:
    assert resolv_conf("2001:DB8::53") == "nameserver 2001:db8::53\noptions edns0\n"
    for text in ("192.0.2.53:5353", "x", "192.0.2.53\nnameserver 192.0.2.1"):
        with pytest.raises(ValueError):
            resolv_conf(text)
