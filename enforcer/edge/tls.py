"""TLS contexts of both sides, cached a target; keys never touch a file that has a name."""
from __future__ import annotations

import os
import ssl
from hashlib import blake2b
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from agent.contract.credential import Credential
from agent.contract.target import Target
from enforcer.pem import unnamed
from enforcer.words.errors import UpstreamError

MOST: Final = 256                     # contexts kept of each side
HANDSHAKE: Final = 30.0               # seconds
_UNKNOWN: Final = frozenset((2, 18, 19, 20, 21))       # X509_V_ERR_: there is no root that leads to the certificate
SHUTDOWN: Final = 5.0                 # seconds that a peer has to answer close_notify


class Named(ssl.SSLContext):
    """A client's context that verifies one name, whatever address was dialled."""

    name: str

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        return super().wrap_socket(*args, **{**options, "server_hostname": self.name})


class Contexts:
    """SSL contexts, made once for each distinct configuration."""

    def __init__(self) -> None:
        self._made: dict[bytes, ssl.SSLContext] = {}

    def towards_client(self, target: Target, alpn: str = "postgresql") -> ssl.SSLContext:
        """As server, with the target's leaf.  UpstreamError where the target has none or it cannot be loaded."""
        if not target.leaf_certificate or not target.leaf_key:
            raise UpstreamError(f"target {target.name} has no certificate to show")
        parts = ("client", target.leaf_certificate, target.leaf_key, alpn)
        return self._get(parts) or self._keep(parts, _server_side(target, alpn))

    def towards_server(self, target: Target, credential: Credential | None, alpn: str = "") -> ssl.SSLContext:
        """As client, verifying as the target says, with the credential's certificate where it has one."""
        certificate, key = (credential.certificate, credential.key) if credential else ("", "")
        parts = ("server", target.name, target.tls, target.tls_ca, certificate, key, alpn)
        return self._get(parts) or self._keep(parts, _client_side(target, certificate, key, alpn))

    def _get(self, parts: tuple[str, ...]) -> ssl.SSLContext | None:
        return self._made.get(_digest(parts))

    def _keep(self, parts: tuple[str, ...], context: ssl.SSLContext) -> ssl.SSLContext:
        while len(self._made) >= MOST:
            del self._made[next(iter(self._made))]
        self._made[_digest(parts)] = context
        return context


def describe(channel: ssl.SSLObject) -> str:
    """"TLSv1.3 TLS_AES_256_GCM_SHA384"."""
    cipher = channel.cipher()
    return f"{channel.version()} {cipher[0] if cipher else '?'}"


def signature_hash(certificate: bytes) -> str:
    """Hash of the certificate's signature algorithm ("sha256"), "" where it has none (Ed25519): RFC 5929 4.1."""
    try:
        algorithm = x509.load_der_x509_certificate(certificate).signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        return ""
    return algorithm.name if algorithm else ""


def explain(error: Exception) -> str:
    """One line without anything secret."""
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = "; `tls_ca` of the target names the file with its roots" if error.verify_code in _UNKNOWN else ""
        return f"certificate verification failed: {error.verify_message}{hint}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or 'unknown reason').lower().replace('_', ' ')}"
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "connection reset"
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__


def _server_side(target: Target, alpn: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _common(context, alpn)
    _load(context, target.leaf_certificate, target.leaf_key, f"certificate of target {target.name}")
    return context


def _client_side(target: Target, certificate: str, key: str, alpn: str) -> ssl.SSLContext:
    if target.tls not in ("verify-full", "verify-ca"):
        raise UpstreamError(f"target {target.name} is configured without TLS")
    context = Named(ssl.PROTOCOL_TLS_CLIENT)               # CERT_REQUIRED and check_hostname are its defaults
    context.name = target.hosts[0]
    context.check_hostname = target.tls == "verify-full"
    _common(context, alpn)
    try:
        if target.tls_ca:
            context.load_verify_locations(cadata=target.tls_ca)
        else:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    except ssl.SSLError:
        raise UpstreamError(f"tls_ca of target {target.name} holds no usable certificate") from None
    if certificate:
        _load(context, certificate, key, f"client certificate for target {target.name}")
    return context


def _common(context: ssl.SSLContext, alpn: str) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if alpn:
        context.set_alpn_protocols([alpn])


def _load(context: ssl.SSLContext, certificate: str, key: str, what: str) -> None:
    try:
        with unnamed(f"{certificate}\n{key}") as path:
            context.load_cert_chain(path)
    except (ssl.SSLError, OSError):
        raise UpstreamError(f"the {what} or its key cannot be used") from None


def _digest(parts: tuple[str, ...]) -> bytes:
    whole = blake2b(digest_size=32)
    for part in parts:
        raw = part.encode()
        whole.update(len(raw).to_bytes(8, "big") + raw)
    return whole.digest()
