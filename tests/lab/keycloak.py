"""A real identity provider: Keycloak on a host of the lab, TLS from the lab's authority, all its data in memory.

./bootstrap installs it (about 180 MB, by Maven) and builds it once; a start then costs some 25 seconds of a
processor.  Realm `lab`: clients `weir` (public: device flow, and code flow with PKCE) and `weir-svc` (client
credentials), by SAML `urn:weir:lab` (its assertions are signed) and `urn:weir:sealed` (everything is signed, also
requests, and encrypted), groups data and dba, people ada (data) and grace.
"""
from __future__ import annotations

import json
import os
import re
import secrets
import ssl
import tempfile
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import httpx2

from lab import certificates
from lab.hosts import OTHER, PATIENCE, Here, Host, wait_until
from lab.servers import server

HOME = Path(os.environ.get("WEIR_PREFIX", "/opt/weir")) / "keycloak"
PORT = 8443
REALM = "lab"
LIFESPAN = 60                         # seconds of a token
PLAIN, SEALED = "urn:weir:lab", "urn:weir:sealed"
STARTED = 600.0                       # seconds, on a busy machine too
ANSWERED = 60.0 * PATIENCE            # seconds: a realm is a dozen keys and passwords
# For a start and a few logins: nothing is compiled twice, and no collector runs beside (kc.sh chooses G1).
_CHEAP = "-XX:TieredStopAtLevel=1 -XX:-UseG1GC -XX:+UseSerialGC"
_MAPPERS = {
    "groups": {"name": "groups", "protocol": "openid-connect", "protocolMapper": "oidc-group-membership-mapper",
               "config": {"claim.name": "groups", "full.path": "false", "id.token.claim": "true",
                          "access.token.claim": "true"}},
    "audience": {"name": "audience", "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper",
                 "config": {"included.custom.audience": "weir-api", "access.token.claim": "true"}},
    # It says of a token whether it holds to those alone that the token is for.
    "itself": {"name": "itself", "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper",
               "config": {"included.client.audience": "weir-svc", "access.token.claim": "true"}},
    "saml groups": {"name": "groups", "protocol": "saml", "protocolMapper": "saml-group-membership-mapper",
                    "config": {"attribute.name": "groups", "attribute.nameformat": "Basic", "full.path": "false",
                               "single": "true"}},
}


@dataclass
class Keycloak:
    base: str                         # https://ADDRESS:PORT
    ca: Path
    client: httpx2.Client
    passwords: dict[str, str]
    service_secret: str
    host: Host = OTHER                # that its administration is reached from
    key: str = ""                     # PEM, Weir's own for SAML

    @property
    def issuer(self) -> str:
        return f"{self.base}/realms/{REALM}"

    @property
    def metadata(self) -> str:
        """Where its SAML metadata is."""
        return f"{self.issuer}/protocol/saml/descriptor"

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        """A call of its administration."""
        with self.host.entered():
            token = self.client.post(f"{self.base}/realms/master/protocol/openid-connect/token", data={
                "grant_type": "password", "client_id": "admin-cli", "username": "admin",
                "password": self.passwords["admin"]}).json()["access_token"]
            answer = self.client.request(method, f"{self.base}/admin/realms{path}", json=body,
                                         headers={"Authorization": f"Bearer {token}"})
        if answer.status_code >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        return answer.json() if answer.content else None

    def user(self, name: str) -> str:
        found: str = self.admin("GET", f"/{REALM}/users?exact=true&username={name}")[0]["id"]
        return found

    def join(self, name: str, group: str, *, leave: bool = False) -> None:
        groups = {one["name"]: one["id"] for one in self.admin("GET", f"/{REALM}/groups")}
        self.admin("DELETE" if leave else "PUT", f"/{REALM}/users/{self.user(name)}/groups/{groups[group]}")

    def revoke(self, name: str) -> None:
        """End all sessions of a person at the provider."""
        self.admin("POST", f"/{REALM}/users/{self.user(name)}/logout")

    def change_client(self, name: str, attributes: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
        """What it was."""
        found: dict[str, Any] = self.admin("GET", f"/{REALM}/clients?clientId={urllib.parse.quote(name)}")[0]
        changed = found | fields | {"attributes": found["attributes"] | (attributes or {})}
        self.admin("PUT", f"/{REALM}/clients/{found['id']}", changed)
        return found

    @contextmanager
    def changed(self, name: str, attributes: dict[str, str] | None = None, **fields: Any) -> Iterator[None]:
        """A client that is another one while the block runs."""
        before = self.change_client(name, attributes, **fields)
        try:
            yield
        finally:
            self.admin("PUT", f"/{REALM}/clients/{before['id']}", before | {
                "attributes": dict.fromkeys(attributes or {}, "") | before["attributes"]})

    def service_token(self, client: str = "weir-svc") -> str:
        """An access token by client credentials, as something else on the host would put it into a file."""
        with self.host.entered():
            answer = self.client.post(f"{self.issuer}/protocol/openid-connect/token", data={
                "grant_type": "client_credentials"}, auth=(client, self.service_secret))
        found: str = answer.json()["access_token"]
        return found


class Browser:
    """A person with a browser on the crew's host, as far as forms need one."""

    def __init__(self, keycloak: Keycloak, host: Host) -> None:
        self._keycloak, self._host = keycloak, host

    def go(self, url: str, name: str) -> httpx2.Response:
        """Open it, log in where that is asked, agree where that is asked, to the last page."""
        trust = ssl.create_default_context(cafile=self._keycloak.ca)
        with self._host.entered(), httpx2.Client(verify=trust, trust_env=False, timeout=ANSWERED) as client:
            answer = client.get(url)
            for _ in range(20):
                if answer.is_redirect:
                    answer = client.get(urllib.parse.urljoin(str(answer.url), answer.headers["location"]))
                elif form := self._form(answer, name):
                    answer = client.post(urllib.parse.urljoin(str(answer.url), form[0]), data=form[1])
                else:
                    return answer
        raise RuntimeError(f"no end of forms at {answer.url}")

    def _form(self, answer: httpx2.Response, name: str) -> tuple[str, dict[str, str]] | None:
        found = re.search(r'<form[^>]*?action="([^"]+)"', answer.text)
        if found is None or answer.url.path.startswith(("/callback", "/acs")):
            return None
        fields = {unescape(name): unescape(value) for name, value in re.findall(
            r'<input[^>]*type="hidden"[^>]*name="([^"]+)"[^>]*value="([^"]*)"', answer.text)}
        if 'name="username"' in answer.text:
            fields |= {"username": name, "password": self._keycloak.passwords[name]}
        elif 'name="accept"' in answer.text:
            fields |= {"accept": "Yes"}
        elif "SAMLResponse" in fields:
            pass                      # which its page posts by itself
        else:
            return None
        return unescape(found[1]), fields


HERE = Here("here", 0)               # for tests that need no hosts


@contextmanager
def keycloak(scratch: Path, authority: certificates.Authority, host: Host = OTHER) -> Iterator[Keycloak]:
    """One with its realm while the block runs; `host`: of the lab, or HERE."""
    directory = Path(tempfile.mkdtemp(prefix="keycloak-", dir=scratch))
    directory.chmod(0o755)
    leaf, key = certificates.make_leaf(authority, ("idp.lab.example",), (host.ipv4,))
    pem = certificates.write(directory / "server.pem", leaf)
    private = certificates.write(directory / "server.key", key, 0o600)
    ca = certificates.write(directory / "ca.pem", authority.pem)
    passwords = {name: secrets.token_urlsafe(12) for name in ("admin", "ada", "grace")}
    base, log = f"https://{host.ipv4}:{PORT}", directory / "log"
    command = [str(HOME / "bin" / "kc.sh"), "start", "--optimized", f"--hostname={base}", f"--https-port={PORT}",
               f"--https-certificate-file={pem}", f"--https-certificate-key-file={private}", "--cache=local"]
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(directory), "KC_BOOTSTRAP_ADMIN_USERNAME": "admin",
        "KC_BOOTSTRAP_ADMIN_PASSWORD": passwords["admin"], "JAVA_OPTS_KC_HEAP": "-Xms64m -Xmx512m",
        "JAVA_OPTS_APPEND": f"{_CHEAP} -Djava.io.tmpdir={directory}"}
    with server(host, command, log, environment=environment) as process, httpx2.Client(
            verify=ssl.create_default_context(cafile=ca), trust_env=False, timeout=ANSWERED) as client:
        mine, own = certificates.make_leaf(authority, ("weir.lab.example",), (), by_rsa=True)
        made = Keycloak(base, ca, client, passwords, secrets.token_urlsafe(18), host, own)

        def answers() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"keycloak ended with {process.returncode}:\n{log.read_text()[-3000:]}")
            try:
                with host.entered():
                    return client.get(f"{base}/realms/master").status_code == 200
            except httpx2.TransportError:
                return False

        wait_until("keycloak", answers, STARTED)
        _fill(made, "".join(mine.splitlines()[1:-1]))
        yield made


def _fill(made: Keycloak, certificate: str) -> None:
    people = [
        {"username": name, "enabled": True, "emailVerified": True, "firstName": name.title(), "lastName": "Lab",
         "email": f"{name}@lab.example", "groups": groups,
         "credentials": [{"type": "password", "value": made.passwords[name], "temporary": False}]}
        for name, groups in (("ada", ["/data"]), ("grace", []))]
    clients = [
        {"clientId": "weir", "publicClient": True, "standardFlowEnabled": True,
         "redirectUris": ["http://127.0.0.1/callback/corp", "http://127.0.0.1/login/corp/back"],
         "protocolMappers": [_MAPPERS["groups"]],
         "attributes": {"oauth2.device.authorization.grant.enabled": "true", "pkce.code.challenge.method": "S256",
                        "oauth2.device.polling.interval": "1"}},
        {"clientId": "weir-svc", "secret": made.service_secret, "publicClient": False, "serviceAccountsEnabled": True,
         "standardFlowEnabled": False, "protocolMappers": [_MAPPERS["audience"], _MAPPERS["itself"]]},
        {"clientId": "elsewhere", "secret": made.service_secret, "publicClient": False, "serviceAccountsEnabled": True,
         "standardFlowEnabled": False},
        _by_saml(PLAIN, {"saml.client.signature": "false", "saml.server.signature": "false"}),
        _by_saml(SEALED, {
            "saml.client.signature": "true", "saml.signing.certificate": certificate, "saml.encrypt": "true",
            "saml.encryption.certificate": certificate, "saml.server.signature": "true"})]
    made.admin("POST", "", {
        "realm": REALM, "enabled": True, "sslRequired": "all", "accessTokenLifespan": LIFESPAN,
        "groups": [{"name": "data"}, {"name": "dba"}], "users": people, "clients": clients})


def _by_saml(entity: str, more: dict[str, str]) -> dict[str, Any]:
    places = [f"http://127.0.0.1/{one}" for one in ("acs/corp", "acs/adfs", "saml/adfs/acs")]
    return {"clientId": entity, "protocol": "saml", "redirectUris": places,
            "protocolMappers": [_MAPPERS["saml groups"]], "defaultClientScopes": [], "attributes": {
                "saml.assertion.signature": "true", "saml.force.post.binding": "true", "saml.authnstatement": "true",
                "saml_name_id_format": "username", "saml_force_name_id_format": "true",
                "saml.signature.algorithm": "RSA_SHA256",
                "saml_single_logout_service_url_redirect": "http://127.0.0.1/loggedout", **more}}


def settings(made: Keycloak, *, refresh: str = "1s", name: str = "corp") -> str:
    """The [[provider]] that an operator would write."""
    return f"""
[[provider]]
name = "{name}"
issuer = "{made.issuer}"
client_id = "weir"
ca = {json.dumps(str(made.ca))}
refresh = "{refresh}"
[provider.groups]
data = "data"
dba = "dba"
"""
