"""The page's own process and headers in a real browser: what a browser adds, keeps and refuses by itself."""
from __future__ import annotations

import os
from collections.abc import AsyncIterator

import msgspec
import pytest
from browser.conftest import CHROMIUM
from hostile import Hostile, hostile
from playwright.async_api import BrowserContext, Page, async_playwright, expect
from webstage import HOLD, Stage, staged

from agent.contract import messages

__all__ = ["hostile"]


@pytest.fixture
async def stage(hostile: Hostile) -> AsyncIterator[Stage]:  # type: ignore[override]
    async with staged(hostile) as made:
        yield made


@pytest.fixture
async def context() -> AsyncIterator[BrowserContext]:
    if not CHROMIUM.exists():
        pytest.skip("no Chromium: ./bootstrap test installs it")
    async with async_playwright() as playwright:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = await playwright.chromium.launch(executable_path=str(CHROMIUM), args=options)
        made = await browser.new_context(ignore_https_errors=True)
        made.set_default_timeout(10_000)
        yield made
        await browser.close()


async def opened(context: BrowserContext, stage: Stage, roles: tuple[str, ...] = ("dba",)) -> tuple[Page, list[str]]:
    """Logged in, by the cookie that a login gives; and what its console says is wrong."""
    person = await stage.browser().log_in(roles=roles)
    await context.add_cookies([
        {"name": name, "value": value, "url": stage.url, "httpOnly": True, "sameSite": "Lax"}
        for name, value in person.cookies.items()])
    wrong: list[str] = []
    page = await context.new_page()
    page.on("console", lambda one: wrong.append(one.text) if one.type in ("error", "warning") else None)
    page.on("pageerror", lambda one: wrong.append(str(one)))
    return page, wrong


async def test_an_approval_in_a_browser(context: BrowserContext, stage: Stage) -> None:
    page, wrong = await opened(context, stage)
    await page.goto(f"{stage.url}/")
    await page.get_by_role("link", name="abcdefgh").click()
    await expect(page.get_by_text("never on Fridays")).to_be_visible()
    button = page.get_by_role("button", name="Approve")
    await expect(button).to_have_attribute("aria-disabled", "false")
    await button.click()
    await expect(page.locator(".notice.done")).to_contain_text("approved")
    (decided,) = stage.enforcer.those(messages.DecideHold)
    assert (decided.ticket, decided.approve, decided.approver) == ("abcdefgh", True, "corp:ada")
    assert wrong == []


async def test_what_comes_appears_by_itself(context: BrowserContext, stage: Stage) -> None:
    page, wrong = await opened(context, stage)
    await page.goto(f"{stage.url}/")
    await expect(page.locator("[data-ticket=abcdefgh]")).to_be_visible()
    while not stage.enforcer.those(messages.WatchChanges):
        await page.wait_for_timeout(20)
    stage.enforcer.holds = (*stage.enforcer.holds, msgspec.structs.replace(HOLD, ticket="bbbbbbbb"))
    stage.enforcer.news(messages.Changed(holds=True))
    await expect(page.locator("[data-ticket=bbbbbbbb]")).to_be_visible()
    await expect(page).to_have_title("(2) Approvals - Weir")
    stage.identities.end_web(next(iter(stage.web.sessions)).login, "over")
    await expect(page.locator("#stream")).to_contain_text("is cut")
    assert [one for one in wrong if "401" not in one] == []


async def test_an_auditor_replays_and_an_operator_ends(context: BrowserContext, stage: Stage) -> None:
    said = stage.agent.recorder.pages
    said["lines"] = msgspec.structs.replace(said["lines"], session=said["sessions"].sessions[0])
    page, wrong = await opened(context, stage, ("audit", "ops"))
    for path, said in (("/recordings", "s0"), ("/recordings/s0", "SELECT 17"), ("/history", "never on Fridays"),
                       ("/sessions", "s1"), ("/sessions/s1", "SELECT 17")):
        await page.goto(f"{stage.url}{path}")
        await expect(page.locator("main")).to_contain_text(said)
    await page.get_by_text("End it").click()
    await page.get_by_label("Reason").fill("it runs wild")
    await page.get_by_role("button", name="End this session").click()
    await expect(page.locator(".notice.done")).to_be_visible()
    (ended,) = stage.enforcer.those(messages.EndSession)
    assert (ended.session, "it runs wild" in ended.reason) == ("s1", True)
    assert wrong == []
