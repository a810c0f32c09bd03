"""Logins at the page by a real identity provider: Keycloak, OpenID Connect and SAML, from a browser's requests.

A start of Keycloak costs some 25 seconds of a processor: slow.
"""
from __future__ import annotations

import ssl
import urllib.parse
from collections.abc import Iterator

import httpx2
import pytest
from lab.hosts import CREW, wait_until
from lab.keycloak import HOME, SEALED, Browser, Keycloak, keycloak, settings
from lab.lab import Lab
from lab.page import PAGE, PORT, URL, Page, field
from lab.weir import Installed, configure, weir

pytestmark = [pytest.mark.lab, pytest.mark.slow]

SAML = """
[[saml_provider]]
name = "adfs"
issuer = "{issuer}"
entity_id = "{entity}"
metadata = "{metadata}"
key_file = "{key}"
[saml_provider.groups]
data = "data"
"""


@pytest.fixture(scope="module")
def provider(the_lab: Lab) -> Iterator[Keycloak]:
    assert (HOME / "bin" / "kc.sh").exists(), "no Keycloak: sudo ./bootstrap test-all installs it"
    with keycloak(the_lab.scratch, the_lab.database.authority) as made:
        yield made


@pytest.fixture(scope="module")
def host(the_lab: Lab, provider: Keycloak) -> Iterator[Installed]:
    key, metadata = the_lab.scratch / "page-saml.pem", the_lab.scratch / "page-idp.xml"
    key.touch(0o600)
    key.write_text(provider.key)
    with provider.host.entered():
        metadata.write_bytes(provider.client.get(provider.metadata).content)
    saml = SAML.format(issuer=provider.issuer, entity=SEALED, metadata=metadata, key=key)
    page = PAGE.format(url=URL, listen=f"127.0.0.1:{PORT}", more="")
    with weir(the_lab, configure(the_lab, more=settings(provider) + saml + page)) as made:
        wait_until("the page", lambda: (made.status().get("web") or {}).get("error") == "", 30)  # type: ignore[attr-defined]
        yield made


class Person(Browser):
    """To where the provider sends the browser back."""

    def back(self, url: str, name: str) -> tuple[str, dict[str, str]]:
        """Path, and the fields that are posted there."""
        trust = ssl.create_default_context(cafile=self._keycloak.ca)
        with CREW.entered(), httpx2.Client(verify=trust, trust_env=False, timeout=60) as client:
            answer = client.get(url)
            for _ in range(20):
                if answer.is_redirect:
                    where = urllib.parse.urljoin(str(answer.url), answer.headers["location"])
                    if where.startswith(URL):
                        return where.removeprefix(URL), {}
                    answer = client.get(where)
                elif form := self._form(answer, name):
                    where = urllib.parse.urljoin(str(answer.url), form[0])
                    if where.startswith(URL):
                        return where.removeprefix(URL), form[1]
                    answer = client.post(where, data=form[1])
        raise RuntimeError(f"no way back from {answer.url}")


@pytest.mark.parametrize("way", ["corp", "adfs"])
def test_a_person_logs_in_at_the_page(host: Installed, provider: Keycloak, way: str) -> None:
    with CREW.entered(), httpx2.Client(base_url=URL, timeout=60) as client:
        page = Page(None, client)  # type: ignore[arg-type]
        begun = page.ask("POST", f"/login/{way}", csrf=field("csrf", page.ask("GET", "/login").text))
        assert begun.status_code == 200, begun.text
        path, fields = Person(provider, CREW).back(begun.headers["refresh"].partition("url=")[2], "ada")
        if fields:
            kept, page.cookies = page.cookies, {}
            posted = page.ask("POST", path, **fields)
            page.cookies = kept
            assert posted.status_code == 303, posted.text
            path = posted.headers["location"]
        done = page.ask("GET", path)
        assert (done.status_code, done.headers.get("location")) == (303, "/"), done.text
        shown = page.ask("GET", "/").text
        assert f"{way}:" in shown
        page.ask("POST", "/logout", csrf=field("csrf", shown))
        assert page.ask("GET", "/").status_code == 303
