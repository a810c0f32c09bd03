"""How Weir logs in at a cluster, each way against the real API server: it works, what is wrong is said, what ends is
renewed while a client's connection goes on, and a crew and the recording hold nothing of it."""
from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from lab.certificates import make_authority, make_client, write
from lab.hosts import KUBE, RUNTIME, wait_until
from lab.issuer import CLIENT, Issuer, issuer
from lab.kube import ALL, TARGET, KubeLab, kube_weir, kubectl
from lab.openbao import MISSING, OpenBao, binary, openbao
from lab.weir import Installed
from recorded import unpacked

from enforcer.recording.read import open_recording
from enforcer.words import events

pytestmark = pytest.mark.lab

PODS = "/api/v1/namespaces/shop/pods"
VAULT = """
[[vault]]
name = "safe"
address = "{address}"
ca = "{ca}"
role_id = "{role_id}"
secret_id_file = "{secret_id_file}"
"""
# What kubectl has as a plugin: it prints what it finds in a file, and counts how often.
PLUGIN = """#!/bin/sh
echo "$KUBERNETES_EXEC_INFO" | grep -q '"kind":"ExecCredential"' || exit 3
echo secret-on-stderr >&2
cat {said}
"""
# A path a line; each answer with the port of its connection: one connection for all of them, as long as it lasts.
ASKING = """
import http.client, json, ssl, sys
trust = ssl.create_default_context(cafile=sys.argv[2])
one = http.client.HTTPSConnection(sys.argv[1], 6443, context=trust, timeout=60)
for line in sys.stdin:
    one.request("GET", line.strip())
    port = one.sock.getsockname()[1]
    answer = one.getresponse()
    said = json.loads(answer.read())
    print(json.dumps([answer.status, said.get("reason", ""), said.get("message", ""), port]), flush=True)
"""


@dataclass(frozen=True)
class Answer:
    status: int
    reason: str
    message: str
    port: int


@dataclass
class Logins:
    """`secrets`: whatever opened the cluster, of which nothing may be found anywhere."""

    installed: Installed
    kube: KubeLab
    place: Path                       # root's alone to write, for programs
    text: str                         # of weir.toml, with ROW in place of the credential
    secrets: list[str] = field(default_factory=list)

    def use(self, row: str) -> None:
        self.installed.config.write_text(self.text.replace("ROW", row))
        done = self.installed.weir("reload")
        assert done.returncode == 0, done.stdout + done.stderr

    def secret(self, name: str, text: str) -> Path:
        """A file of root's; its content is looked for later."""
        self.secrets.append(text)
        return write(self.kube.lab.scratch / f"login-{name}", text, 0o600)

    def token(self, user: str) -> str:
        return self.kube.cluster.tokens[user]

    def who(self) -> str:
        """As whom a new session of the crew's is known to the API server; what kubectl prints where it is not."""
        done = kubectl(self.installed, "auth", "whoami", "-o", "json", timeout=60)
        return json.loads(done.stdout)["status"]["userInfo"]["username"] if done.returncode == 0 else done.stderr

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A crew's program with one connection."""
        ca = str(self.kube.lab.home / ".kube/ca.pem")
        with subprocess.Popen(
                self.installed.crew_argv("python3", "-c", ASKING, "kube.lab.example", ca), stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, text=True, cwd=self.kube.lab.home,
                env=self.kube.lab.client_environment()) as process:
            try:
                yield Client(self, process)
            finally:
                process.kill()

    def refusals(self) -> list[str]:
        self.installed.settle(over=False)
        with open_recording(self.installed.recording) as reader:
            return [one.event.reason for one in reader.entries() if one.kind == events.REFUSED]

    def says(self, *words: str) -> None:
        """kubectl's user, the API's Status and the recording are told the same."""
        before = len(self.refusals())
        done = kubectl(self.installed, "get", "pods", timeout=60)
        with self.client() as one:
            told = one.ask()
        assert (done.returncode, told.status, told.reason) == (1, 503, "ServiceUnavailable"), done.stderr
        since = self.refusals()[before:]
        assert len(since) >= 2
        for word in words:
            for said in (done.stderr, told.message, *since):
                assert word in said, said

    def unauthorized(self) -> None:
        """The server's own words, and the recording has that it was asked."""
        done = kubectl(self.installed, "get", "pods", timeout=60)
        assert "You must be logged in to the server" in done.stderr, done.stderr
        self.installed.settle(over=False)
        with open_recording(self.installed.recording) as reader:
            last = [one.event for one in reader.entries() if one.kind == events.RESULT][-1]
        assert (last.status, last.tag) == ("error", "401")


@dataclass
class Client:
    logins: Logins
    process: subprocess.Popen[str]
    port: int = 0

    def ask(self, path: str = PODS) -> Answer:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(path + "\n")
        self.process.stdin.flush()
        answer = Answer(*json.loads(self.process.stdout.readline()))
        assert self.port in (0, answer.port), "the client had to connect again"
        self.port = answer.port
        return answer

    def who(self) -> str:
        """As whom the API server took the next request on the client's connection."""
        since = self.logins.kube.cluster.mark()
        answer = self.ask()
        assert answer.status == 200, answer
        [event] = [one for one in self.logins.kube.cluster.audited(since=since) if one.uri == PODS]
        return event.user

    def becomes(self, user: str, seconds: float = 40) -> None:
        wait_until(f"{user} in place of the one before", lambda: self.who() == user, seconds)


@pytest.fixture(scope="module")
def bao(the_kube: KubeLab) -> Iterator[OpenBao | None]:
    if not binary().exists():
        yield None
        return
    with openbao(the_kube.lab.scratch, make_authority("Lab Vault CA"), KUBE) as server:
        yield server


@pytest.fixture(scope="module")
def logins(the_kube: KubeLab, bao: OpenBao | None) -> Iterator[Logins]:
    place = Path(f"/usr/local/libexec/weir-test-{os.getpid()}")
    place.mkdir(mode=0o755, parents=True)
    the_kube.cluster.ask("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", {
        "metadata": {"name": "all-may-look"}, "subjects": [{"kind": "Group", "name": "system:authenticated"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}})
    vault = ""
    if bao is not None:
        secret_id = write(the_kube.lab.scratch / "kube-secret-id", bao.secret_id(), 0o600)
        vault = VAULT.format(address=bao.base, ca=bao.ca, role_id=bao.role_ids["weir"], secret_id_file=secret_id)
    row = f'token_file = "{write(the_kube.lab.scratch / "first-token", "none", 0o600)}"'
    try:
        with kube_weir(the_kube, ALL, credential=row, more_tables=vault) as installed:
            text = installed.config.read_text()
            assert text.count(row) == 1
            yield Logins(installed, the_kube, place, text.replace(row, "ROW"))
    finally:
        shutil.rmtree(place)
        the_kube.cluster.ask("DELETE", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/all-may-look")


def certificate(logins: Logins, user: str, seconds: float) -> tuple[str, str]:
    """With its key; it expires then."""
    return make_client(logins.kube.cluster.clients, user, life=datetime.timedelta(seconds=seconds))


# Bearer tokens in a file


def test_a_token_file(logins: Logins) -> None:
    file = logins.secret("token", logins.token("crewbot"))
    logins.use(f'token_file = "{file}"')
    assert logins.who() == "crewbot"
    with logins.client() as one:
        assert one.who() == "crewbot"
        logins.secret("token", logins.token("viewer"))
        assert logins.who() == "viewer"
        assert one.who() == "crewbot"          # a token that says no end goes on until the server takes it no more


def test_a_token_that_the_server_does_not_take_any_more(logins: Logins) -> None:
    """The file has another one by then: the next request goes, on the same connection."""
    file = logins.secret("token", "not-a-token-of-the-server")
    logins.use(f'token_file = "{file}"')
    with logins.client() as one:
        refused = one.ask()
        assert (refused.status, refused.reason, refused.message) == (401, "Unauthorized", "Unauthorized")
        logins.unauthorized()
        logins.secret("token", logins.token("crewbot"))
        assert one.who() == "crewbot"


def test_a_token_file_that_is_none(logins: Logins) -> None:
    file = logins.secret("token", logins.token("crewbot"))
    logins.use(f'token_file = "{file}"')
    logins.secret("token", "two words in one file")
    logins.says("credential[1] of target prod", "its token is none")
    file.unlink()
    logins.says("credential[1] of target prod", "No such file or directory")


# Client certificates


def test_a_certificate_that_is_given(logins: Logins) -> None:
    """It expires, and there is another one in the files: it takes another connection, of which the client sees
    nothing."""
    clients = logins.kube.cluster.clients
    first = certificate(logins, "crewbot", 9)
    files = [logins.secret(name, text) for name, text in zip(("pem", "key"), first, strict=True)]
    logins.use(f'certificate_file = "{files[0]}"\nkey_file = "{files[1]}"')
    with logins.client() as one:
        assert one.who() == "crewbot"
        for name, text in zip(("pem", "key"), make_client(clients, "viewer"), strict=True):
            logins.secret(name, text)
        assert logins.who() == "viewer"
        one.becomes("viewer")
    logins.installed.settle()
    with open_recording(logins.installed.recording) as reader:
        notes = [one.event.value for one in reader.entries()
                 if one.kind == events.SESSION_NOTED and one.event.name == "reconnected"]
    assert notes[-1].startswith("viewer@10.77.0.7:6443 TLS")


def test_a_certificate_that_is_wrong(logins: Logins) -> None:
    names = ("pem", "key")
    for text, name in zip(make_client(make_authority("Another"), "crewbot"), names, strict=True):
        logins.secret(name, text)
    scratch = logins.kube.lab.scratch
    row = f'certificate_file = "{scratch}/login-pem"\nkey_file = "{scratch}/login-key"'
    logins.use(row)
    logins.unauthorized()
    for text, name in zip(certificate(logins, "crewbot", -1), names, strict=True):
        logins.secret(name, text)
    logins.says("its certificate has expired")
    logins.secret("key", make_client(logins.kube.cluster.clients, "viewer")[1])
    logins.secret("pem", make_client(logins.kube.cluster.clients, "viewer")[0])
    logins.says("its certificate is of another key")


def test_a_certificate_that_weir_issues(logins: Logins) -> None:
    trusted = logins.kube.cluster.place / "clients.pem"
    before = trusted.read_text()
    logins.use('user = "crewbot"\ncertificate = "issue"')
    logins.unauthorized()
    try:
        trusted.write_text(before + logins.installed.weir("ca", TARGET).stdout)
        wait_until("the server's new authorities", lambda: logins.who() == "crewbot", 60)
        with logins.client() as one:
            assert one.who() == "crewbot"
    finally:
        trusted.write_text(before)


# A plugin of kubectl's


def plugin(logins: Logins) -> str:
    program = logins.place / "plugin"
    if not program.exists():
        program.write_text(PLUGIN.format(said=logins.place / "said"))
        program.chmod(0o755)
    return f'exec = ["{program}"]\nexec_user = "games"'


def says(logins: Logins, seconds: float = 0, kind: str = "ExecCredential", **status: str) -> None:
    """What it prints from now on; `seconds`: until that expires."""
    logins.secrets += status.values()
    if seconds:
        end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
        status["expirationTimestamp"] = end.strftime("%Y-%m-%dT%H:%M:%SZ")
    new = logins.place / "said.new"
    new.write_text(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": kind, "status": status}))
    shutil.chown(new, "games")
    new.chmod(0o400)
    new.replace(logins.place / "said")


def test_a_plugin(logins: Logins) -> None:
    """A token, then a certificate, and a token again: whenever one expires, on the client's one connection."""
    says(logins, 5, token=logins.token("crewbot"))
    logins.use(plugin(logins))
    with logins.client() as one:
        assert one.who() == "crewbot"
        leaf, key = make_client(logins.kube.cluster.clients, "by-certificate")
        says(logins, 5, clientCertificateData=leaf, clientKeyData=key)
        one.becomes("by-certificate")
        says(logins, token=logins.token("viewer"))
        one.becomes("viewer")


def test_a_plugin_that_is_wrong(logins: Logins) -> None:
    says(logins, token="not-one-of-the-server")
    logins.use(plugin(logins))
    logins.unauthorized()
    says(logins, -5, token=logins.token("crewbot"))
    logins.says("its helper", "plugin printed a credential that has expired")
    says(logins, kind="Other", token=logins.token("crewbot"))
    logins.says("printed something else than an ExecCredential of client.authentication.k8s.io/v1")
    (logins.place / "said").unlink()
    logins.says("plugin ended with exit code 1", "bytes that it wrote to standard error are not shown")


# OpenID Connect


@pytest.fixture(scope="module")
def provider(logins: Logins) -> Iterator[Issuer]:
    cluster = logins.kube.cluster
    with issuer(KUBE, logins.kube.lab.scratch / "issuer") as made:
        cluster.trust_issuers((made.url, made.ca.read_text(), CLIENT))
        yield made
        cluster.trust_issuers()


def oidc(logins: Logins, provider: Issuer, refresh: str, name: str) -> str:
    file, secret = logins.secret(name, refresh), logins.secret("client", provider.secret)
    return (f'issuer = "{provider.url}"\nissuer_ca = "{provider.ca}"\nclient_id = "{CLIENT}"\n'
            f'client_secret_file = "{secret}"\nrefresh_token_file = "{file}"')


def test_a_refresh_token_of_a_provider(logins: Logins, provider: Issuer) -> None:
    """The ID token expires while a connection is open; each refresh token counts once, and the next one is kept."""
    provider.subject, provider.seconds = "oidc-crewbot", 6
    logins.use(oidc(logins, provider, provider.token, "refresh"))
    wait_until("the server trusts it", lambda: logins.who() == "oidc-crewbot", 60)
    with logins.client() as one:
        assert one.who() == "oidc-crewbot"
        provider.subject = "oidc-viewer"
        one.becomes("oidc-viewer")
    assert (logins.kube.lab.scratch / "login-refresh").read_text() == provider.token + "\n"
    logins.secrets += provider.given


def test_a_refresh_token_that_has_ended(logins: Logins, provider: Issuer) -> None:
    right = provider.token
    logins.use(oidc(logins, provider, "r-of-yesterday", "old"))
    logins.says("no ID token", "invalid_grant: its refresh token has ended")
    provider.seconds = -5
    logins.secret("old", right)
    logins.says("no ID token", "its token has expired")
    provider.seconds = 300
    logins.secrets += provider.given
    assert logins.who() == provider.subject


# Vault


@pytest.mark.skipif(not binary().exists(), reason=MISSING)
def test_a_token_of_vaults(logins: Logins, bao: OpenBao) -> None:
    logins.secrets.append(logins.token("crewbot"))
    bao.put("crews/cluster", token=logins.token("crewbot"))
    logins.use('vault = "safe"\npath = "crews/cluster"')
    with logins.client() as one:
        assert (one.who(), logins.who()) == ("crewbot", "crewbot")
        bao.put("crews/cluster", token="not-one-of-the-server")
        logins.unauthorized()
        assert one.who() == "crewbot"
        bao.put("crews/cluster", other="x")
        logins.says("Vault safe, secret/crews/cluster")
        leaf, key = make_client(logins.kube.cluster.clients, "vaulted")
        bao.put("crews/cluster", certificate=leaf, key=key)
        logins.use('vault = "safe"\npath = "crews/cluster"\ncertificate_field = "certificate"\nkey_field = "key"')
        logins.secrets.append(key)
        assert logins.who() == "vaulted"


# And after all of it


def test_nobody_holds_any_of_it(logins: Logins) -> None:
    installed = logins.installed
    seen = installed.crew("sh", "-c", "env; cat ~/.kube/config; cat /usr/local/libexec/weir-test-*/said; "
                                      f"cat {logins.kube.lab.scratch}/login-*")
    installed.settle()
    state = Path("/var/lib") / RUNTIME
    files = [path for part in ("recording", "journal") for path in (state / part).rglob("*")
             if path.is_file() and path.name != "signing.key"]
    places = [installed.log.read_bytes(), json.dumps(installed.status()).encode(), seen.stdout.encode(),
              seen.stderr.encode(), *(path.read_bytes() for path in files),
              *(text for path in files for text in unpacked(path)), *_processes()]
    for known in (b"weir-has-the-credential", b"/namespaces/shop/pods", b"crewbot@"):
        assert [one for one in places if known in one], known              # it is looked where such things are
    assert len(set(logins.secrets)) > 10
    for secret in {part for one in logins.secrets for part in _parts(one)}:
        assert not [one for one in places if secret.encode() in one], secret[:8]


def _parts(secret: str) -> list[str]:
    """Of a PEM a line of its middle; certificates are no secrets."""
    if "CERTIFICATE" in secret or len(secret) < 12:
        return []
    return [secret.splitlines()[1]] if "PRIVATE KEY" in secret else [secret]


def _processes() -> Iterator[bytes]:
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            yield Path(f"/proc/{process.pid}/cmdline").read_bytes()
            yield Path(f"/proc/{process.pid}/environ").read_bytes()
        except (psutil.Error, OSError):
            continue

