"""What a person does to log in, in Chromium against Keycloak: flows, SAML, what goes wrong, the page that answers.

Chromium runs on the crew's host, where the loopback listener of `weir login` is.  Screenshots lie where pytest says.
"""
from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lab.hosts import CREW, USER, wait_until
from lab.keycloak import HOME, Keycloak, keycloak
from lab.lab import Lab
from lab.people import ended, person, speaking, told, whoami
from lab.weir import Installed
from playwright.sync_api import Page, expect, sync_playwright

pytestmark = [pytest.mark.lab, pytest.mark.slow]

CHROMIUM = "/usr/bin/chromium"
AXE = Path(os.environ.get("WEIR_PREFIX", "/opt/weir")) / "browser/node_modules/axe-core/axe.min.js"
AGAIN = 1.1                           # seconds: a login a second
expect.set_options(timeout=60_000)    # of a busy machine


@pytest.fixture(scope="module")
def provider(the_lab: Lab) -> Iterator[Keycloak]:
    assert (HOME / "bin" / "kc.sh").exists(), "no Keycloak: sudo ./bootstrap test-all installs it"
    with keycloak(the_lab.scratch, the_lab.database.authority) as made:
        yield made


@pytest.fixture(scope="module")
def host(the_lab: Lab, provider: Keycloak) -> Iterator[Installed]:
    with speaking(the_lab, provider) as made:
        yield made


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """A browser that nobody has used before, on the crew's host."""
    assert Path(CHROMIUM).exists() and AXE.exists(), "no browser: sudo ./bootstrap test-all installs it"      # noqa: PT018
    with CREW.entered(), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        # That Keycloak's certificate is the lab's is for Weir to check, not for this browser.
        context = browser.new_context(ignore_https_errors=True, locale="en-US")
        context.set_default_timeout(60_000)
        yield context.new_page()
        browser.close()


@contextmanager
def login(host: Installed, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`weir login`, and the address that it shows; whatever comes of it, nobody is logged in afterwards."""
    time.sleep(AGAIN)
    with person(host, "login", *options) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("open https://"), line + process.communicate(timeout=60)[1]
        yield process, line.split()[1]
    host.weir("logout", user=USER)


def sign_in(page: Page, provider: Keycloak, name: str = "ada", password: str = "") -> None:
    page.get_by_label("Username or email").fill(name)
    page.locator("#password").fill(password or provider.passwords[name])
    page.get_by_role("button", name="Sign In").click()


def answered(page: Page, shots: Path, name: str) -> None:
    """The page that the loopback listener answers with, as it is on a desk and on a phone; and for everybody."""
    expect(page.get_by_role("heading", name="Your provider has answered")).to_be_visible()
    expect(page.get_by_text("You may close this window and go back to the terminal")).to_be_visible()
    for width, height in ((1280, 720), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        page.screenshot(path=shots / f"{name}-{width}.png")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate(AXE.read_text())
    found: Any = page.evaluate("axe.run()")
    assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []
    assert found["passes"]


def test_a_code_flow(host: Installed, provider: Keycloak, page: Page, tmp_path: Path) -> None:
    """A wrong password first: the provider says so, and the login waits."""
    with login(host, "--provider", "corp") as (process, url):
        page.goto(url)
        sign_in(page, provider, password="not it")
        expect(page.get_by_text("Invalid username or password")).to_be_visible()
        assert process.poll() is None
        assert whoami(host)[0] == 1
        sign_in(page, provider)
        answered(page, tmp_path, "code")
        assert page.url.startswith("http://127.0.0.1:")
        code, out, err = ended(process)
        assert (code, "corp:" in out) == (0, True), err
        assert whoami(host)[1]["groups"] == ["data"]


def test_who_goes_back_finds_nobody(host: Installed, provider: Keycloak, page: Page) -> None:
    """The answer is used up, and the listener gone."""
    with login(host, "--provider", "corp") as (process, url):
        page.goto(url)
        sign_in(page, provider)
        expect(page.get_by_text("You may close this window")).to_be_visible()
        assert ended(process)[0] == 0
        with pytest.raises(Exception, match="ERR_CONNECTION_REFUSED"):
            page.reload()


def test_consent_that_is_denied(host: Installed, provider: Keycloak, page: Page) -> None:
    with provider.changed("weir", consentRequired=True), login(host, "--provider", "corp") as (process, url):
        page.goto(url)
        sign_in(page, provider)
        page.get_by_role("button", name="No", exact=True).click()
        expect(page.get_by_text("which says whether you are logged in")).to_be_visible()
        code, _, err = ended(process)
        assert (code, "the provider says access_denied" in err) == (1, True), err
        assert whoami(host)[0] == 1
    told(host, "login.refused", provider="corp", reason="the provider says access_denied")


def test_the_device_flow(host: Installed, provider: Keycloak, page: Page) -> None:
    """The code is typed, as by somebody at another machine."""
    with login(host, "--provider", "corp", "--device") as (process, _):
        code, place = device(process)
        page.goto(place)
        page.get_by_role("textbox").fill("WRNG-CODE")
        page.get_by_role("button", name="Submit").click()
        expect(page.get_by_text("Invalid code")).to_be_visible()
        page.get_by_role("textbox").fill(code)
        page.get_by_role("button", name="Submit").click()
        sign_in(page, provider)
        page.get_by_role("button", name="Yes", exact=True).click()
        expect(page.get_by_text("Device Login Successful")).to_be_visible()
        left, out, err = ended(process)
        assert (left, "corp:" in out) == (0, True), err


def test_a_device_that_is_denied(host: Installed, provider: Keycloak, page: Page) -> None:
    with login(host, "--provider", "corp", "--device") as (process, complete):
        page.goto(complete)           # the code is in it
        sign_in(page, provider)
        page.get_by_role("button", name="No", exact=True).click()
        left, _, err = ended(process)
        assert (left, "the provider says access_denied" in err) == (1, True), err
        assert whoami(host)[0] == 1


def device(process: subprocess.Popen[str]) -> tuple[str, str]:
    """The code, and where it is typed."""
    assert process.stdout is not None
    words = process.stdout.readline().split()
    return words[words.index("is") + 1], words[words.index("at") + 1].rstrip(")")


def test_saml(host: Installed, provider: Keycloak, page: Page, tmp_path: Path) -> None:
    """Signed and encrypted; the provider's page posts the answer by itself, over to the loopback listener."""
    with login(host, "--provider", "adfs") as (process, url):
        page.goto(url)
        sign_in(page, provider, password="not it")
        expect(page.get_by_text("Invalid username or password")).to_be_visible()
        sign_in(page, provider)
        answered(page, tmp_path, "saml")
        code, out, err = ended(process)
        assert (code, "adfs:ada" in out) == (0, True), err


def test_saml_s_single_logout(host: Installed, provider: Keycloak, page: Page) -> None:
    """`weir logout` shows an address; who opens it is asked for a password at the next login, and was not before."""
    with login(host, "--provider", "adfs") as (process, url):
        page.goto(url)
        sign_in(page, provider)
        expect(page.get_by_text("You may close this window")).to_be_visible()
        assert ended(process)[0] == 0
    with login(host, "--provider", "adfs") as (process, url):
        page.goto(url)                # the provider knows the browser
        expect(page.get_by_text("You may close this window")).to_be_visible()
        assert ended(process)[0] == 0
        left = host.weir("logout", user=USER)
        assert left.stdout.startswith("logged out\nto log out at the provider, too, open https://")
        assert whoami(host)[0] == 1
        # It is led on to where the lab's Weir has no page.
        with pytest.raises(Exception, match="ERR_CONNECTION_REFUSED"):
            page.goto(left.stdout.split(" open ")[1].split()[0])
    with login(host, "--provider", "adfs") as (process, url):
        page.goto(url)
        expect(page.get_by_label("Username or email")).to_be_visible()


def test_another_page_s_answer_is_nobody_s(host: Installed, provider: Keycloak, page: Page) -> None:
    """Whoever is led to the listener with a guess is told so, and the login goes on."""
    with login(host, "--provider", "corp") as (process, url):
        port = url.split("127.0.0.1%3A")[1].split("%2F")[0]
        page.goto(f"http://127.0.0.1:{port}/callback/corp?code=x&state=guess")
        expect(page.get_by_role("heading", name="Nobody waits for this")).to_be_visible()
        page.goto(url)
        sign_in(page, provider)
        expect(page.get_by_text("You may close this window")).to_be_visible()
        assert ended(process)[0] == 0


def test_a_logout_there_ends_the_login_here(host: Installed, provider: Keycloak, page: Page) -> None:
    """As the person does it, in the browser that is logged in."""
    with login(host, "--provider", "corp") as (process, url):
        page.goto(url)
        sign_in(page, provider)
        expect(page.get_by_text("You may close this window")).to_be_visible()
        assert ended(process)[0] == 0
        page.goto(f"{provider.issuer}/protocol/openid-connect/logout")
        page.get_by_role("button", name="Logout").click()
        expect(page.get_by_role("heading", name="You are logged out")).to_be_visible()
        wait_until("the login's end", lambda: whoami(host)[0] == 1, 60)
