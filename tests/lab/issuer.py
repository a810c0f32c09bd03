"""A small OpenID Connect provider: discovery, keys, and ID tokens for refresh tokens, each of which is taken once.

It does what the lab needs of one in a tenth of a second: RFC 6749, 6, with rotation (RFC 9700, 4.14.2), OpenID Connect
Core 1.0, 12, Discovery 1.0.  What people do at a provider is Keycloak's part (lab/keycloak.py).
"""
from __future__ import annotations

import base64
import json
import secrets
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import signing

from lab.certificates import make_authority, make_leaf, write
from lab.hosts import Host

CLIENT = "weir"
DISCOVERY = "/.well-known/openid-configuration"


@dataclass
class Issuer:
    """`subject`, `seconds`: of the ID tokens that it gives from now on."""

    url: str
    ca: Path
    secret: str                       # of CLIENT
    token: str                        # the refresh token that counts
    subject: str = "somebody"
    seconds: int = 300
    given: list[str] = field(default_factory=list, repr=False)     # every token that it has given

    def refreshed(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        pair = base64.b64encode(f"{CLIENT}:{self.secret}".encode()).decode()
        if authorization != f"Basic {pair}":
            return 401, {"error": "invalid_client"}
        if form.get("grant_type") != "refresh_token" or form.get("refresh_token") != self.token:
            return 400, {"error": "invalid_grant"}
        now, self.token = int(time.time()), "r-" + secrets.token_urlsafe(24)
        found = signing.sign({"iss": self.url, "aud": CLIENT, "sub": self.subject, "iat": now,
                              "exp": now + self.seconds})
        self.given += [found, self.token]
        return 200, {"access_token": "opaque", "token_type": "Bearer", "id_token": found, "refresh_token": self.token}

    def discovery(self) -> dict[str, Any]:
        return {"issuer": self.url, "jwks_uri": f"{self.url}/keys", "token_endpoint": f"{self.url}/token",
                "authorization_endpoint": f"{self.url}/authorize", "response_types_supported": ["code"],
                "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["RS256"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic"]}


class _Answering(BaseHTTPRequestHandler):
    issuer: Issuer

    def do_GET(self) -> None:
        known = {DISCOVERY: self.issuer.discovery(), "/keys": signing.public(signing.RSA)}
        self._say(200 if self.path in known else 404, known.get(self.path, {}))

    def do_POST(self) -> None:
        said = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = {name: one[0] for name, one in parse_qs(said).items()}
        self._say(*self.issuer.refreshed(form, self.headers.get("Authorization", "")))

    def _say(self, status: int, document: dict[str, Any]) -> None:
        raw = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        pass                          # a handshake that its client broke off


@contextmanager
def issuer(host: Host, place: Path) -> Iterator[Issuer]:
    """On that host, while the block runs; `place`: a directory for its files."""
    place.mkdir(mode=0o700)
    authority = make_authority("Lab provider CA")
    leaf, key = make_leaf(authority, (f"{host.name}.lab.example",), (host.ipv4,))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(write(place / "provider.pem", leaf + key, 0o600))
    with host.entered():
        server = _Server((host.ipv4, 0), type("Answering", (_Answering,), {}))
    with server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        made = Issuer(f"https://{host.ipv4}:{server.server_address[1]}", write(place / "ca.pem", authority.pem),
                      secrets.token_urlsafe(18), "r-" + secrets.token_urlsafe(24))
        server.RequestHandlerClass.issuer = made     # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()


__all__ = ["CLIENT", "Issuer", "issuer"]
