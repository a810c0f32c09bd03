"""One name-constrained authority a target, a leaf for the enforcer, and the files that make clients accept it.

The authority can sign for its target's names and addresses and for nothing else (RFC 5280, 4.2.1.10), has no authority
below it (pathlen 0) and signs for servers only.  Its key stays in the state directory, mode 0600; a leaf's key goes to
the enforcer in Configure and is never written.  What lies in RUN/trust is public.

An authority lives as long as it covers what the configuration names: a workload that is running knows the ones that
were there when it started, so nothing is made anew for a reason that can wait.
"""
from __future__ import annotations

import ipaddress
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.kubernetes.clusters import KNOWN, NO_CLUSTERS, USER_FILE, ClusterTrust, kubeconfig_binds
from agent.kubernetes.kubeconfig import Cluster
from agent.ssh.known_hosts import merge
from agent.workload.view import CONTENT_LIMIT, Bind

SYSTEM_HOSTS, USER_HOSTS = "/etc/ssh/ssh_known_hosts", "~/.ssh/known_hosts"      # ssh(1), FILES
SYSTEM_BUNDLE: Final = "/etc/ssl/certs/ca-certificates.crt"
INSIDE: Final = "/run/trust/roots.pem"       # in the view, where the host has no system bundle
KEPT: Final = 4                       # former authorities of a target that stay in the bundles
AUTHORITY_LIFE: Final = timedelta(days=3650)
_LEAF_LIFE: Final = timedelta(days=365)
_RENEW: Final = timedelta(days=400)   # an authority that ends before this is replaced, so that no leaf outlives it
CLOCKS: Final = timedelta(hours=1)   # how far a client's clock may be behind
_LAST: Final = timedelta(days=30)    # and one that ends before this at once, whatever runs
STEM, NEXT = "ca", "next-"            # names of an authority's files, and what those of its successor begin with
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class TrustTarget:
    name: str
    hosts: tuple[str, ...]            # names and addresses as configured
    addresses: tuple[str, ...] = ()   # what the names resolve to now
    files: tuple[str, ...] = ()       # `trust = [...]`: files that its clients read, absolute or with ~
    cluster: int = 0                  # port of a cluster; 0: it is none


@dataclass(frozen=True)
class Leaf:
    certificate: str                  # PEM: leaf, then its authority
    key: str                          # PEM, PKCS #8
    left_out: tuple[str, ...] = ()    # addresses that the authority does not cover: not verifiable by address

    def __repr__(self) -> str:
        return f"Leaf(left_out={self.left_out!r}, ...)"


@dataclass(frozen=True)
class Waiting:
    """An authority that is trusted already, and signs once whatever was started before it has ended."""

    target: str
    made: int                         # nanoseconds UTC


@dataclass(frozen=True)
class HostTrust:
    """How crews know Weir in the place of SSH hosts."""

    lines: str = ""                   # of a known_hosts file; empty: there is no SSH target
    known: str = ""                   # file: these lines, and nothing else
    system: str = ""                  # file: the host's own SYSTEM_HOSTS, and these lines in place of theirs
    files: tuple[str, ...] = ()       # every `trust` entry of SSH targets
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)   # private ones by target


NO_HOSTS: Final = HostTrust()


@dataclass(frozen=True)
class Trust:
    bundle: str                       # file: system roots and every authority; empty where there is no target
    authorities: str                  # file: every authority of Weir's
    inside: str                       # where the bundle shows in a view
    files: tuple[str, ...]            # every `trust` entry
    leafs: dict[str, Leaf]            # by target
    authorities_pem: tuple[bytes, ...] = ()    # of Weir's that clients are to trust
    waiting: tuple[Waiting, ...] = ()
    hosts: HostTrust = NO_HOSTS
    clusters: ClusterTrust = NO_CLUSTERS


NO_TRUST: Final = Trust("", "", INSIDE, (), {})


@dataclass(frozen=True)
class Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def __repr__(self) -> str:
        return "Authority(...)"


def prepare_trust(
    targets: Iterable[TrustTarget], state: Path, run: Path, *, running: bool = False, also: Trust = NO_TRUST,
    oldest: int = 0, now: Collection[str] = (), hosts: HostTrust = NO_HOSTS,
) -> Trust:
    """Authorities, fresh leafs and files for these targets.  Called at start, at reload and when addresses change.

    `running`: workloads run that know the present authorities.  Then an authority is replaced only where it does not
    cover a configured name; a resolved address that it does not cover is left out of the leaf and said so.
    `hosts`: what belongs to SSH hosts.  `also`: what is in force until these are; the files have its authorities too.
    `oldest`: when the first of the workloads that run was started, nanoseconds UTC; `now`: targets whose next authority
    does not wait for their end.
    Raises ValueError where a target's name or host cannot be in a certificate, OSError where a file cannot be written.
    """
    wanted = tuple(targets)
    if not wanted:
        trust = replace(NO_TRUST, hosts=hosts)
        publish_trust(run, trust, running=running, also=also)
        return trust
    leafs, authorities, waiting, clusters = {}, list[bytes](), [], list[Cluster]()
    for target in wanted:
        directory = authority_directory(state, target.name)
        finish_promotion(directory, STEM)
        following = load_pair(directory, NEXT + STEM)
        if following and (not running or target.name in now or made_at(following.certificate) < oldest):
            promote(directory, STEM)
        authority = _authority(directory, target, running)
        leafs[target.name] = _leaf(authority, target)
        before = len(authorities)
        authorities += [render_certificate(authority.certificate), *_former(directory)]
        if following := load_pair(directory, NEXT + STEM):
            authorities.append(render_certificate(following.certificate))
            waiting.append(Waiting(target.name, made_at(following.certificate)))
        if target.cluster:
            clusters.append(Cluster(target.name, (*target.hosts, *target.addresses), target.cluster,
                                    b"".join(authorities[before:]).decode()))
    files, cluster_files = (tuple(dict.fromkeys(
        file for target in wanted if bool(target.cluster) is of for file in target.files)) for of in (False, True))
    directory = run / "trust"
    inside = SYSTEM_BUNDLE if Path(SYSTEM_BUNDLE).is_file() else INSIDE
    trust = Trust(str(directory / "roots.pem"), str(directory / "weir.pem"), inside, files, leafs, tuple(authorities),
                  tuple(waiting), hosts,
                  ClusterTrust(str(directory), tuple(clusters), cluster_files) if clusters else NO_CLUSTERS)
    publish_trust(run, trust, running=running, also=also)
    return trust


def binds_for(workload: str, home: str, trust: Trust) -> tuple[Bind, ...]:
    """Pure: what is bound over the trust files that clients read.  Every workload is given every authority: each is
    held to its own target's names."""
    own = (expand_home(one, home) for one in (USER_FILE, *trust.clusters.files))
    return (*_certificate_binds(home, trust), *_host_binds(home, trust.hosts), *kubeconfig_binds(own, trust.clusters))


def _host_binds(home: str, hosts: HostTrust) -> Iterator[Bind]:
    """~/.ssh/known_hosts is what OpenSSH, paramiko and asyncssh read; the system's OpenSSH alone, also as a user whose
    home is another's (uid 0 of a user namespace)."""
    if not hosts.lines:
        return
    yield Bind(hosts.system, SYSTEM_HOSTS, absent="make")
    for path in dict.fromkeys(expand_home(one, home) for one in (USER_HOSTS, *hosts.files)):
        yield Bind(hosts.known, path, append=True, absent="make", known_hosts=True)


def expand_home(path: str, home: str) -> str:
    return home.rstrip("/") + path[1:] if path.startswith("~/") else path


def _certificate_binds(home: str, trust: Trust) -> tuple[Bind, ...]:
    if not trust.bundle:
        return ()
    named = (expand_home(path, home) for path in trust.files)
    own = [Bind(trust.authorities, path, append=True) for path in named if path.startswith("/")]
    # libpq's default root file; made where ~/.postgresql exists without it, so that verify-full works (and `require`,
    # which then verifies, still does).
    own.append(Bind(trust.authorities, home.rstrip("/") + "/.postgresql/root.crt", append=True, absent="make"))
    return (Bind(trust.bundle, SYSTEM_BUNDLE), Bind(trust.bundle, INSIDE, absent="make"), *dict.fromkeys(own))


def resolv_conf(resolver: str) -> str:
    """Text of /etc/resolv.conf for an address without a port: resolv.conf(5) has no way to name one."""
    return f"nameserver {ipaddress.ip_address(resolver)}\noptions edns0\n"


def write_public(path: Path, content: bytes) -> None:
    """Replace a file that everybody may read, by rename."""
    write_file(path, content, 0o644)


# authorities


def authority_directory(state: Path, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise ValueError(f"target name {name!r}: letters, digits, '.', '_' and '-', 64 at most")
    parent = state / "ca"
    for path in (parent, parent / name):
        path.mkdir(mode=0o755, exist_ok=True)
    return parent / name


def _authority(directory: Path, target: TrustTarget, running: bool) -> Authority:
    present = load_pair(directory, STEM)
    hosts = parse_names(target.hosts)
    needed = hosts if running else hosts + parse_names(target.addresses)
    if present and all(covers(present.certificate, name) for name in needed):
        left = present.certificate.not_valid_after_utc - _now()
        if left > _RENEW:
            return present
        if running and left > _LAST:
            begin_rotation(directory, target)
            return present
    if present:
        _retire(directory, present.certificate)
    for stem in (NEXT + STEM, STEM):
        for end in ("pem", "key"):
            (directory / f"{stem}.{end}").unlink(missing_ok=True)
    return _write(directory, STEM, target.name, hosts + parse_names(target.addresses))


def begin_rotation(directory: Path, target: TrustTarget) -> Authority:
    """The target's next authority; made where there is none.  Raises ValueError, OSError."""
    found = load_pair(directory, NEXT + STEM)
    names = parse_names((*target.hosts, *target.addresses))
    if found and all(covers(found.certificate, name) for name in names):
        return found
    return _write(directory, NEXT + STEM, target.name, names)


def _write(directory: Path, stem: str, target: str, names: tuple[x509.GeneralName, ...]) -> Authority:
    made = _make(target, names)
    # The key first: a crash in between leaves a pair that does not match, and that is made anew.
    write_file(directory / f"{stem}.key", render_key(made.key), 0o600)
    write_file(directory / f"{stem}.pem", render_certificate(made.certificate), 0o644)
    return made


def promote(directory: Path, stem: str, ends: tuple[str, str] = ("key", "pem")) -> None:
    """The next pair takes the place of the present one, whose key is gone then.  Killed in between, it is finished by
    `finish_promotion`.  Raises OSError."""
    for end in ends:
        (directory / f"{NEXT}{stem}.{end}").rename(directory / f"{stem}.{end}")
    _sync(directory)


def finish_promotion(directory: Path, stem: str, ends: tuple[str, str] = ("key", "pem")) -> None:
    """The first was renamed, a key, and what belongs to it not yet.  Raises OSError."""
    following = directory / f"{NEXT}{stem}.{ends[1]}"
    if following.exists() and not (directory / f"{NEXT}{stem}.{ends[0]}").exists():
        following.rename(directory / f"{stem}.{ends[1]}")
        _sync(directory)


def made_at(certificate: x509.Certificate) -> int:
    """Nanoseconds UTC: the end of the second in which it was."""
    return (int((certificate.not_valid_before_utc + CLOCKS).timestamp()) + 1) * 1_000_000_000


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def load_pair(directory: Path, stem: str) -> Authority | None:
    """None where there is none, or somebody else could read or write its key, or the two do not belong together."""
    try:
        fd = os.open(directory / f"{stem}.key", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            key = serialization.load_pem_private_key(file.read(1 << 16), None)
        certificate = x509.load_pem_x509_certificate((directory / f"{stem}.pem").read_bytes())
    except (OSError, ValueError, TypeError):
        return None
    private = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077
    if not private or not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        return None
    return Authority(certificate, key)


def _retire(directory: Path, certificate: x509.Certificate) -> None:
    """Its key is overwritten next; the certificate stays in the bundles until KEPT newer ones were retired."""
    write_file(directory / f"old-{certificate.not_valid_before_utc:%Y%m%d%H%M%S}-{certificate.serial_number:x}.pem",
           render_certificate(certificate), 0o644)
    for path in sorted(directory.glob("old-*.pem"))[:-KEPT]:
        path.unlink()


def _former(directory: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(directory.glob("old-*.pem"))]


def _make(name: str, names: tuple[x509.GeneralName, ...]) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Weir"),
                         x509.NameAttribute(NameOID.COMMON_NAME, f"Weir authority for {name}"[:64])])
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)      # keyCertSign, cRLSign
    builder = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(_now() - CLOCKS)
        .not_valid_after(_now() + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(True, 0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_constraints(names), critical=True))
    return Authority(builder.sign(key, hashes.SHA256()), key)


def _constraints(names: tuple[x509.GeneralName, ...]) -> x509.NameConstraints:
    """A type of name that is not mentioned would be unconstrained (RFC 5280, 4.2.1.10): what has no permitted subtree
    is excluded as a whole."""
    permitted: list[x509.GeneralName] = []
    for name in names:
        if isinstance(name, x509.IPAddress):
            permitted.append(x509.IPAddress(ipaddress.ip_network(name.value)))
        else:
            permitted.append(name)
    excluded: list[x509.GeneralName] = []
    if not any(isinstance(name, x509.IPAddress) for name in names):
        excluded = [x509.IPAddress(ipaddress.ip_network(every)) for every in ("0.0.0.0/0", "::/0")]
    if not any(isinstance(name, x509.DNSName) for name in names):
        permitted.append(x509.DNSName("invalid"))       # RFC 2606: no host has it, and every client understands it
    return x509.NameConstraints(list(dict.fromkeys(permitted)), excluded or None)


def covers(authority: x509.Certificate, name: x509.GeneralName) -> bool:
    """Whether a leaf of this authority may carry the name."""
    constraints = authority.extensions.get_extension_for_class(x509.NameConstraints).value
    for permitted in constraints.permitted_subtrees or ():
        if isinstance(name, x509.DNSName) and isinstance(permitted, x509.DNSName):
            if name.value == permitted.value or name.value.endswith("." + permitted.value):
                return True
        elif isinstance(name, x509.IPAddress) and isinstance(permitted, x509.IPAddress) and name.value in _network(
                permitted):
            return True
    return False


def _network(name: x509.IPAddress) -> Network:
    value = name.value
    return value if isinstance(value, Network) else ipaddress.ip_network(value)


def parse_names(hosts: Iterable[str]) -> tuple[x509.GeneralName, ...]:
    """Names in lower case as A-labels, without a final dot; addresses without a zone."""
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host.strip("[]").partition("%")[0])))
        except ValueError:
            names.append(x509.DNSName(_label(host)))
    return tuple(dict.fromkeys(names))


def _label(host: str) -> str:
    name = host.rstrip(".").lower()
    if not name.isascii():
        name = name.encode("idna").decode()             # UnicodeError is a ValueError
    if not name or len(name) > 253 or not re.fullmatch(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?", name):
        raise ValueError(f"{host!r} is no host name that a certificate can carry")
    return name


# leafs


def _leaf(authority: Authority, target: TrustTarget) -> Leaf:
    key = ec.generate_private_key(ec.SECP256R1())       # SCRAM channel binding fails with Ed25519 in libpq 15
    names = parse_names((*target.hosts, *target.addresses))
    carried = [name for name in names if covers(authority.certificate, name)]
    issuer = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        x509.CertificateBuilder()
        # The spaces keep verifiers from taking it for a host name where no DNS name is carried.
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Weir for {target.name}"[:64])]))
        .issuer_name(authority.certificate.subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(_now() - CLOCKS)
        .not_valid_after(min(_now() + _LEAF_LIFE, authority.certificate.not_valid_after_utc))
        .add_extension(x509.SubjectAlternativeName(carried), critical=False)
        .add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(x509.KeyUsage(True, False, False, False, False, False, False, False, False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False))
    certificate = builder.sign(authority.key, hashes.SHA256())
    left_out = tuple(str(name.value) for name in names if name not in carried)
    chain = render_certificate(certificate) + render_certificate(authority.certificate)
    return Leaf(chain.decode(), render_key(key).decode(), left_out)


# files


def publish_trust(run: Path, trust: Trust, *, running: bool = False, also: Trust = NO_TRUST) -> None:
    """The files, with the authorities of both.  Raises OSError."""
    directory = run / "trust"
    if trust.bundle or trust.hosts.lines:
        directory.mkdir(mode=0o755, exist_ok=True)
        directory.chmod(0o755)
    _publish_hosts(trust.hosts, also.hosts)
    _publish_clusters(directory, trust.clusters)
    if not trust.bundle:
        return
    system = Path(SYSTEM_BUNDLE)
    roots = system.read_bytes() if system.is_file() else b""
    authorities = [*trust.authorities_pem, *also.authorities_pem]
    _bring(Path(trust.authorities), b"", authorities, running)
    _bring(Path(trust.bundle), roots + (b"" if roots.endswith(b"\n") or not roots else b"\n"), authorities, running)


def _publish_clusters(directory: Path, trust: ClusterTrust) -> None:
    """By rename: they are read when a workload starts.  A cluster that is gone is known no more."""
    if not trust.clusters:
        (directory / KNOWN).unlink(missing_ok=True)
        return
    for name, content in trust.contents().items():
        write_public(directory / name, content)


def _publish_hosts(hosts: HostTrust, also: HostTrust) -> None:
    """In place: they are bound in the views of what runs, which then reads what is right now."""
    if not hosts.lines:
        return
    lines = "".join(dict.fromkeys((hosts.lines + also.lines).splitlines(keepends=True))).encode()
    system = Path(SYSTEM_HOSTS)
    # What is written here everybody may read.
    shown = system.is_file() and system.stat().st_mode & 0o004 and system.stat().st_size <= CONTENT_LIMIT
    own = system.read_bytes() if shown else b""
    for path, content in ((hosts.known, lines), (hosts.system, merge(own, lines))):
        write_into(Path(path), content)


def write_into(path: Path, content: bytes) -> None:
    """The very file that has the name, where there is one: a bind shows that.  Raises OSError."""
    if not path.is_file():
        write_public(path, content)
    elif (there := path.read_bytes()) != content:
        with path.open("r+b") as file:
            # What only grows is whole for readers at every moment.
            file.seek(len(there) if content.startswith(there) else 0)
            file.write(content[file.tell():])
            file.truncate(len(content))


def _bring(path: Path, roots: bytes, authorities: list[bytes], running: bool) -> None:
    """While workloads run the file is only appended to: it is bound in their views, which a new one would not be."""
    if running and path.is_file():
        there = path.read_bytes()
        missing = b"".join(pem for pem in dict.fromkeys(authorities) if pem not in there)
        if missing:
            with path.open("ab") as file:
                file.write(missing)
        return
    write_file(path, roots + b"".join(dict.fromkeys(authorities)), 0o644)


def write_file(path: Path, content: bytes, mode: int) -> None:
    """By rename, so that a reader sees the old file or the new one; on disk before it counts."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(fd, "wb") as file:
        os.fchmod(fd, mode)
        file.write(content)
        file.flush()
        os.fsync(fd)
    fresh.rename(path)


def _now() -> datetime:
    return datetime.now(UTC)


def render_certificate(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def render_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
