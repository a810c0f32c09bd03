"""People of the lab: a Weir whose logins are a real provider's, commands as they type them, what is recorded of it."""
from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from clients.test_clients import environment

from lab.hosts import CREW, USER, wait_until
from lab.keycloak import SEALED, Browser, Keycloak, settings
from lab.lab import Lab
from lab.weir import Installed, configure, weir

PSQL = ("psql", "-X", "-A", "-t", "-w", "-v", "VERBOSITY=verbose")
WORKLOADS = """
[[workload]]
name = "personal"
users = ["{user}"]
directories = ["~"]
person = true

[[workload]]
name = "service"
users = ["{user}"]
directories = ["~"]
identity = {{provider = "svc"}}

[[workload]]
name = "filed"
users = ["{user}"]
directories = ["~"]
identity = {{provider = "svc", token_file = "{token}"}}

[[provider]]
name = "svc"
issuer = "{issuer}"
client_id = "weir-svc"
client_secret_file = "{secret}"
audience = "weir-api"
ca = "{ca}"
refresh = "2s"
groups_claim = "realm_access.roles"
[provider.groups]
offline_access = "data"

[[saml_provider]]
name = "adfs"
issuer = "{issuer}"
entity_id = "{entity}"
metadata = "{metadata}"
key_file = "{key}"
port = {port}
[saml_provider.groups]
data = "data"
"""
PORT = 15439


def write(file: Path, text: str) -> None:
    """As whoever rotates a token does: by rename."""
    fresh = file.with_name(f".{file.name}")
    fresh.touch(0o600)
    fresh.write_text(text)
    fresh.rename(file)


@contextmanager
def person(host: Installed, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command of Weir's, as a local user would type it; it ends with the block."""
    argv = CREW.argv(["setpriv", "--reuid", USER, "--regid", USER, "--init-groups", "--", *host.argv(*arguments)])
    with subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.PIPE, text=True, cwd=host.lab.home,
            env=host.lab.client_environment(environment(host.lab, "wrong"))) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def whoami(host: Installed) -> tuple[int, dict[str, Any]]:
    done = host.weir("whoami", "--json", user=USER)
    return done.returncode, json.loads(done.stdout)


@contextmanager
def logged_in(host: Installed, provider: Keycloak, name: str = "ada", *options: str) -> Iterator[str]:
    """By --device, or on the loopback redirect.  Gives the last page of the browser."""
    with person(host, "login", "--provider", "corp", *options) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("open https://"), line + process.communicate(timeout=60)[1]
        page = Browser(provider, CREW).go(line.split()[1], name).text
        code, out, err = ended(process)
    assert code == 0, out + err
    try:
        yield page
    finally:
        host.weir("logout", user=USER)


def query(
    host: Installed, workload: str = "personal", sql: str = "SELECT count(*) FROM orders",
) -> tuple[int, str, str]:
    with person(host, "run", "--workload", workload, "--", *PSQL, "-c", sql) as process:
        return ended(process)


def recorded(host: Installed, query: str, *values: str) -> list[tuple[Any, ...]]:
    """From all files of the recording, when it has everything; the oldest first."""
    host.settle()
    rows: list[tuple[Any, ...]] = []
    for file in sorted(host.recording.glob("recording-*.sqlite")):
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as recording:
            rows += recording.execute(query, values)
    return rows


def told(host: Installed, name: str, **wanted: str) -> dict[str, Any]:
    """The last event of that name with these details, once it is recorded."""
    def found() -> list[dict[str, Any]]:
        rows = recorded(host, "SELECT detail FROM host_event WHERE name = ? ORDER BY seq", name)
        return [one for detail, in rows if wanted.items() <= (one := json.loads(detail)).items()]

    wait_until(f"{name} with {wanted} in the recording", found, 30)
    return found()[-1]


def spoken_for(host: Installed, subject: str) -> list[list[str]]:
    """Groups of each session at the target that this subject had."""
    found = recorded(host, "SELECT groups FROM session_opened WHERE subject = ? ORDER BY seq", subject)
    return [json.loads(groups) for groups, in found]


@contextmanager
def speaking(the_lab: Lab, provider: Keycloak) -> Iterator[Installed]:
    """A Weir whose people and services are the provider's, by OIDC and by SAML."""
    secret, token = the_lab.scratch / "svc-secret", the_lab.scratch / "svc.jwt"
    key, metadata = the_lab.scratch / "saml.pem", the_lab.scratch / "idp.xml"
    token.unlink(missing_ok=True)
    write(secret, provider.service_secret)
    write(key, provider.key)
    with provider.host.entered():
        metadata.write_bytes(provider.client.get(provider.metadata).content)
    more = settings(provider) + WORKLOADS.format(
        user=USER, token=token, issuer=provider.issuer, secret=secret, ca=provider.ca, entity=SEALED,
        metadata=metadata, key=key, port=PORT)
    with weir(the_lab, configure(the_lab, more=more)) as made:
        yield made
