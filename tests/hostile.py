"""A provider's endpoints on loopback, with TLS, that answer as a test wants: what a hostile provider would say.  How a
right one speaks is Keycloak's part (tests/enforcer/identity/test_provider.py)."""
from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import signing
from lab import certificates

from agent.contract.identity import Provider

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Hostile:
    issuer: str
    ca: str
    answers: dict[str, Callable[[], Answer]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def say(self, path: str, document: Any, status: int = 200) -> None:
        raw = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.answers[path] = lambda: (status, {"Content-Type": "application/json"}, raw)

    def metadata(self, **changed: Any) -> dict[str, Any]:
        whole = {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys", "token_endpoint": f"{self.issuer}/token",
                 "authorization_endpoint": f"{self.issuer}/authorize",
                 "device_authorization_endpoint": f"{self.issuer}/device",
                 "code_challenge_methods_supported": ["S256"]} | changed
        return {name: value for name, value in whole.items() if value is not None}

    @property
    def host(self) -> str:
        return self.issuer.removeprefix("https://")

    def provider(self, **changed: Any) -> Provider:
        base = {"name": "corp", "issuer": self.issuer, "client_id": "weir", "client_secret": "", "audience": "weir-api",
                "algorithms": ("RS256", "ES256"), "ca": self.ca, "scopes": (), "subject_claim": "sub",
                "groups_claim": ("realm_access", "roles"), "groups": {"dba": "dba"}, "required": {}, "refresh": 1}
        return Provider(**(base | changed))


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[Hostile]:
    with serving(tmp_path) as made:
        yield made


@contextmanager
def serving(tmp_path: Path) -> Iterator[Hostile]:
    """In the network namespace of who calls it."""
    authority = certificates.make_authority()
    leaf, key = certificates.make_leaf(authority, ("localhost",), ("127.0.0.1",))
    pem = certificates.write(tmp_path / "server.pem", leaf + key, 0o600)
    made: Hostile

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            made.asked.append(self.path)
            known = made.answers.get(self.path) or made.answers.get(self.path.partition("?")[0])
            status, headers, body = known() if known else (404, {}, b"")
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            try:
                self.wfile.write(body)
            except OSError:
                pass                  # cut off, as it should be

        do_GET = do_POST = answer

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass                      # a handshake that the client broke off

    with Quiet(("127.0.0.1", 0), Handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        made = Hostile(f"https://127.0.0.1:{server.server_address[1]}", authority.pem)
        made.say("/.well-known/openid-configuration", made.metadata())
        made.say("/keys", signing.public(signing.RSA))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield made
        server.shutdown()
        thread.join()
