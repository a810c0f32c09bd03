"""The page as somebody has it who sits at the crew's host: a browser's requests, a provider of the tests' own."""
from __future__ import annotations

import re
import time
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import signing
from hostile import Hostile

from lab.hosts import CREW

PORT = 8443
URL = f"http://127.0.0.1:{PORT}"
PROVIDER = """
[[provider]]
name = "corp"
issuer = "{issuer}"
client_id = "weir"
ca = "{ca}"
groups_claim = "realm_access.roles"
[provider.groups]
dba = "dba"
ops = "ops"
"""
PAGE = """
[web]
url = "{url}"
listen = "{listen}"
operators = ["ops"]
{more}
"""


def settings(provider: Hostile, ca: Path) -> str:
    """Of the provider; its roots are written to `ca`."""
    ca.write_text(provider.ca)
    return PROVIDER.format(issuer=provider.issuer, ca=ca)


LOOKS = 5


class Page:
    """A browser's requests, on the crew's host."""

    def __init__(self, provider: Hostile, client: httpx2.Client) -> None:
        self.provider, self.client = provider, client
        self.cookies: dict[str, str] = {}

    def ask(self, method: str, path: str, **fields: str) -> httpx2.Response:
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        if method == "POST":
            headers |= {"Origin": URL, "Content-Type": "application/x-www-form-urlencoded"}
        self.client.cookies.clear()
        with CREW.entered():
            answer = self.client.request(method, path, headers=headers, content=urlencode(fields).encode())
        for line in answer.headers.get_list("set-cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value.strip('"')
        return answer

    def log_in(self, sub: str, *roles: str) -> Page:
        begun = self.ask("POST", "/login/corp", csrf=field("csrf", self.ask("GET", "/login").text))
        assert begun.status_code == 200, begun.text
        query = {name: value[0] for name, value in parse_qs(urlsplit(begun.headers["refresh"]).query).items()}
        now = int(time.time())
        self.provider.say("/token", {"access_token": "a", "token_type": "Bearer", "id_token": signing.sign(
            signing.claims(iss=self.provider.issuer, sub=sub, exp=now + 3000, iat=now, nonce=query["nonce"],
                           realm_access={"roles": list(roles)}))})
        back = self.ask("GET", f"/login/corp/back?code=c&state={query['state']}")
        assert back.status_code == 303, back.text
        return self

    def answer(self, ticket: str, verb: str, reason: str = "") -> httpx2.Response:
        page = self.ask("GET", f"/holds/{ticket}")
        for _ in range(LOOKS):
            page = self.ask("POST", f"/holds/{ticket}/{verb}", csrf=field("csrf", page.text),
                            seen=field("seen", page.text), reason=reason)
            if page.status_code != 409:           # the plan has come meanwhile: what is shown now is another
                break
        return page


def field(name: str, page: str) -> str:
    found = re.search(rf'name="?{name}"? value="?([0-9a-f]+)', page)
    assert found, page
    return found[1]
