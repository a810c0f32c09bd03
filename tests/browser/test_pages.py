"""Every page in a real browser: who cannot see, who has a phone, who has a keyboard, and what crews write."""
from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from browser import samples
from browser.conftest import AXE
from browser.stage import Stage
from msgspec import structs
from playwright.sync_api import Browser, Page, Route, expect

from enforcer.web.shown import BEAT, Answering, seen_of

DESKTOP, PHONE, NARROW = (1280, 800), (390, 844), (360, 640)
LOOKS = [("light", DESKTOP), ("dark", DESKTOP), ("light", PHONE), ("dark", PHONE), ("light", NARROW)]
PATHS = ["/", "/holds/k3v9x2qa", "/holds/m2c7hq4z", "/holds/p5n8tw3c", "/holds/z7j4rb6y", "/holds/q6w6e6r6", "/login",
         "/error", "/answer", "/sessions", "/sessions/s-20261128-1", "/recordings", "/recordings/s-20261128-0",
         "/history"]
SOME = ["/", "/holds/m2c7hq4z", "/holds/q6w6e6r6", "/login", "/answer", "/sessions", "/recordings/s-20261128-0"]
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
RUN_AXE = "(tags) => axe.run(document, {runOnly: {type: 'tag', values: tags}})"
WIDER = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
SMALL = """() => [...document.querySelectorAll('button, .row, nav a, select, input[type=text], summary, .more')]
    .filter((one) => one.offsetParent && one.getBoundingClientRect().height < 43.9)
    .map((one) => one.outerHTML.slice(0, 120))"""


def fill(stage: Stage) -> None:
    stage.holds = [*samples.holds(), samples.hostile()]
    stage.sessions, stage.lines = samples.sessions(), samples.lines()
    stage.recordings, stage.history = samples.recordings(), samples.history()
    stage.asked = Answering(samples.hold(), "approve", "keycloak:bob", "/answer", (("token", "t"),))


@contextmanager
def opened(
    browser: Browser, scheme: str = "light", size: tuple[int, int] = DESKTOP, script: bool = True,
) -> Iterator[Page]:
    """A page whose console stays empty: errors, and what the policy refused, fail the test."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme,  # type: ignore[arg-type]
        java_script_enabled=script, reduced_motion="reduce")
    wrong: list[str] = []
    page = context.new_page()
    page.set_default_timeout(5000)
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(f"dialog {dialog.message}"), dialog.dismiss()))
    try:
        yield page
        assert not [one for one in wrong if not one.startswith("Failed to load resource")], wrong
    finally:
        context.close()


def look_at_all(browser: Browser, stage: Stage, scheme: str, size: tuple[int, int], paths: list[str]) -> None:
    fill(stage)
    with opened(browser, scheme, size) as page:
        for path in paths:
            page.goto(stage.at(path))
            page.evaluate(AXE.read_text())
            found = page.evaluate(RUN_AXE, WCAG)["violations"]
            said = [(one["id"], one["nodes"][0]["html"], one["nodes"][0]["failureSummary"]) for one in found]
            assert not said, f"{path}: {said}"
            assert page.evaluate(WIDER) <= 0, f"{path} is wider than its window"
            assert not page.evaluate(SMALL), f"{path}: too small for a finger"


def test_nobody_is_kept_out(browser: Browser, stage: Stage) -> None:
    look_at_all(browser, stage, "dark", PHONE, SOME)


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "size"), LOOKS)
def test_nobody_is_kept_out_of_any_page(browser: Browser, stage: Stage, scheme: str, size: tuple[int, int]) -> None:
    look_at_all(browser, stage, scheme, size, PATHS)


def test_what_keeps_people_out_is_found(browser: Browser, stage: Stage) -> None:
    """The check itself."""
    with opened(browser) as page:
        page.goto(stage.at("/"))
        page.evaluate(AXE.read_text())
        page.evaluate("document.querySelector('main').innerHTML = '<input type=text><button></button>'")
        assert {"label", "button-name"} <= {one["id"] for one in page.evaluate(RUN_AXE, WCAG)["violations"]}


def test_the_policy_stops_what_is_written_into_a_page(browser: Browser, stage: Stage) -> None:
    """The headers of the stage hold, and a page of Weir needs nothing that they refuse."""
    def smuggled(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=answer.text().replace("</main>", "<script>window.got = 1</script></main>"))

    page = browser.new_page()
    page.route(stage.at("/"), smuggled)
    page.goto(stage.at("/"))
    assert page.evaluate("document.documentElement.className") == "script"
    assert page.evaluate("window.got") is None
    page.close()


def test_hostile_words_are_words(browser: Browser, stage: Stage) -> None:
    one = samples.hostile()
    stage.holds = [one]
    with opened(browser) as page:
        page.goto(stage.at(f"/holds/{one.ticket}"))
        text = page.locator("#hold pre.sql").inner_text()
        assert samples.HOSTILE in text
        assert "\\u202eevil\\u2066\\x00\\x1b[2J" in text
        assert not [letter for letter in page.locator("body").inner_text() if letter in "\u202e\u2066\u200b\x00\x1b"]
        assert page.locator("img, #hold script").count() == 0
        assert "U+043E CYRILLIC SMALL LETTER O" in page.locator(".letters").inner_text()
        assert "yyyyyyyyyy" in text[-20:]


def test_an_answer_without_scripts(browser: Browser, stage: Stage) -> None:
    fill(stage)
    seen = seen_of(stage.holds[0])
    with opened(browser, script=False) as page:
        page.goto(stage.at("/"))
        page.get_by_role("link", name="k3v9x2qa").click()
        page.get_by_role("button", name="Approve").click()
        expect(page.locator(".notice.done")).to_have_text("k3v9x2qa: approve")
    assert stage.posted == [("/holds/k3v9x2qa/approve", {"csrf": "csrf-token", "seen": seen})]


def test_a_denial_without_scripts_asks_for_the_reason(browser: Browser, stage: Stage) -> None:
    stage.holds = [samples.hold()]
    with opened(browser, script=False) as page:
        page.goto(stage.at("/holds/k3v9x2qa"))
        page.get_by_role("button", name="Deny").click()
        assert stage.posted == []
        page.get_by_label("Why not").fill("not on a Saturday")
        page.keyboard.press("Enter")      # in its field: denies, and nothing else
        expect(page.locator(".notice.done")).to_have_text("k3v9x2qa: deny")
    assert [(path, form["reason"]) for path, form in stage.posted] == [("/holds/k3v9x2qa/deny", "not on a Saturday")]


def test_by_keys_alone(browser: Browser, stage: Stage) -> None:
    stage.holds = [samples.hold("aaaaaaaa", plan=""), samples.hold("bbbbbbbb", since=time.time_ns(), plan="")]
    with opened(browser) as page:
        page.goto(stage.at("/"))
        expect(page).to_have_title("(2) Approvals - Weir")
        page.keyboard.press("j")
        page.keyboard.press("ArrowDown")
        expect(page.locator("[data-ticket=bbbbbbbb] .row")).to_be_focused()
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.keyboard.press("k")
        page.keyboard.press("j")
        page.keyboard.press("a")          # nobody has seen all of it: it is opened
        page.wait_for_url("**/holds/bbbbbbbb")
        expect(page.get_by_role("button", name="Approve")).to_have_attribute("aria-disabled", "false")
        page.keyboard.press("a")
        expect(page.locator(".notice.done")).to_have_text("bbbbbbbb: approve")
        expect(page).to_have_title("(1) Approvals - Weir")
        page.wait_for_load_state()
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        page.wait_for_url("**/holds/aaaaaaaa")
        expect(page.get_by_role("button", name="Approve")).to_have_attribute("aria-disabled", "false")
        page.keyboard.press("d")
        expect(page.get_by_label("Why not")).to_be_focused()
        page.keyboard.type("a dad's jar?")      # letters, not keys
        page.keyboard.press("Enter")
        expect(page.locator(".notice.done")).to_have_text("aaaaaaaa: deny")
    assert [path for path, _ in stage.posted] == ["/holds/bbbbbbbb/approve", "/holds/aaaaaaaa/deny"]


def test_keys_can_be_switched_off_and_are_explained(browser: Browser, stage: Stage) -> None:
    stage.holds = [samples.hold(plan="")]
    with opened(browser) as page:
        page.goto(stage.at("/holds/k3v9x2qa"))
        page.keyboard.press("?")
        page.get_by_label("Single keys answer").uncheck()
        page.keyboard.press("Escape")
        expect(page.get_by_role("button", name="Approve")).to_have_attribute("aria-disabled", "false")
        page.keyboard.press("a")
        page.reload()
        expect(page.get_by_role("button", name="Approve")).to_have_attribute("aria-disabled", "false")
        page.keyboard.press("a")
        page.keyboard.press("?")
        expect(page.locator("#keys")).to_be_hidden()
    assert stage.posted == []


def test_a_key_answers_what_is_open_and_not_what_the_list_is_at(browser: Browser, stage: Stage) -> None:
    stage.holds = [samples.hold("aaaaaaaa", plan=""), samples.hold("bbbbbbbb", since=time.time_ns())]
    with opened(browser) as page:
        page.goto(stage.at("/holds/aaaaaaaa"))
        expect(page.get_by_role("button", name="Approve")).to_have_attribute("aria-disabled", "false")
        page.keyboard.press("j")
        page.keyboard.press("a")
        page.wait_for_url("**/holds/bbbbbbbb")
    assert stage.posted == []


def test_nothing_is_approved_that_was_not_shown_to_its_end(browser: Browser, stage: Stage) -> None:
    text = "\n".join(f"SELECT {number};" for number in range(300))
    stage.holds = [samples.hold(text=text, plan="", parameters=())]
    with opened(browser) as page:
        page.goto(stage.at("/holds/k3v9x2qa"))
        button = page.get_by_role("button", name="Approve")
        page.wait_for_timeout(700)
        expect(button).to_have_attribute("aria-disabled", "true")
        expect(page.locator("#not-yet")).to_have_text("There is more of the statement: read on to the end.")
        button.click(force=True)
        page.locator("form.approve").evaluate("(form) => form.requestSubmit()")
        page.keyboard.press("a")
        assert stage.posted == []
        for _ in range(40):
            page.keyboard.press("Escape") if page.locator("input:focus").count() else page.keyboard.press(" ")
            page.evaluate("document.activeElement.blur()")
        expect(button).to_have_attribute("aria-disabled", "false")
        expect(page.locator("#not-yet")).to_have_text("")
        button.click()
        expect(page.locator(".notice.done")).to_be_visible()
    assert [path for path, _ in stage.posted] == ["/holds/k3v9x2qa/approve"]


def test_what_has_only_just_been_shown_takes_no_answer(browser: Browser, stage: Stage) -> None:
    stage.holds = [samples.hold(plan="", parameters=())]
    with opened(browser) as page:
        page.goto(stage.at("/holds/k3v9x2qa"))
        page.wait_for_function("document.documentElement.className === 'script'")
        # As one who presses it while the page comes up: in the same turn, whatever the machine's mood is.
        page.evaluate("""() => {
            dispatchEvent(new Event('focus'));
            document.querySelector('form.approve').requestSubmit();
        }""")
        expect(page.locator("#not-yet")).to_have_text("It has only just been shown: look first.")
        assert stage.posted == []


def test_a_new_hold_moves_nothing(browser: Browser, stage: Stage) -> None:
    """Not even one that was asked before what is listed."""
    stage.holds = [samples.hold("mmmmmmmm"), samples.hold("nnnnnnnn", since=time.time_ns())]
    with opened(browser) as page:
        page.goto(stage.at("/"))
        row = page.locator("[data-ticket=nnnnnnnn] .row")
        row.focus()
        before = row.bounding_box()
        stage.holds.insert(0, samples.hold("aaaaaaaa", since=1))
        stage.push()
        expect(page).to_have_title("(3) Approvals - Weir")
        expect(page.locator("[data-count=waiting]")).to_have_text("3")
        assert row.bounding_box() == before
        expect(row).to_be_focused()
        expect(page.locator("#news")).to_have_text("3 wait for an answer")
        stage.holds = [one for one in stage.holds if one.ticket != "mmmmmmmm"]
        stage.push()
        expect(page.locator("[data-ticket=mmmmmmmm]")).to_have_text("mmmmmmmm is over")
        assert row.bounding_box() == before
        page.keyboard.press("j")          # moving on is tidying up
        expect(page.locator("[data-ticket=mmmmmmmm]")).to_have_count(0)


def test_an_open_one_that_goes_by_itself_cannot_be_answered(browser: Browser, stage: Stage) -> None:
    stage.holds = [samples.hold("aaaaaaaa", plan=""), samples.hold("bbbbbbbb")]
    with opened(browser) as page:
        page.goto(stage.at("/holds/aaaaaaaa"))
        expect(page.get_by_role("button", name="Approve")).to_have_attribute("aria-disabled", "false")
        stage.holds = stage.holds[1:]
        stage.push()
        expect(page.locator("#over")).to_contain_text("aaaaaaaa is over")
        expect(page.locator("#answers")).to_be_hidden()
        page.keyboard.press("a")
        page.wait_for_timeout(100)
    assert stage.posted == []


def test_a_plan_that_comes_is_shown_and_has_to_be_seen(browser: Browser, stage: Stage) -> None:
    stage.holds = [samples.hold(plan="being asked for", reason_required=True)]
    with opened(browser) as page:
        page.goto(stage.at("/holds/k3v9x2qa"))
        page.get_by_label("Reason, as the rule").fill("the ticket says so")
        stage.holds = [structs.replace(stage.holds[0], plan="Seq Scan\n" * 200, rows=99)]
        seen = seen_of(stage.holds[0])
        stage.push()
        expect(page.locator("#hold .rows")).to_have_text("about 99")
        expect(page.get_by_label("Reason, as the rule")).to_have_value("the ticket says so")
        page.wait_for_timeout(600)
        button = page.get_by_role("button", name="Approve")
        expect(button).to_have_attribute("aria-disabled", "true")
        page.locator("[data-end=plan]").scroll_into_view_if_needed()
        expect(button).to_have_attribute("aria-disabled", "false")
        button.click()
        expect(page.locator(".notice.done")).to_be_visible()
    assert [(form["seen"], form["reason"]) for _, form in stage.posted] == [(seen, "the ticket says so")]


def test_a_stream_that_is_cut_is_said(browser: Browser, stage: Stage) -> None:
    with opened(browser) as page:
        page.goto(stage.at("/"))
        expect(page.locator("#stream")).to_be_hidden()
        stage.refusing = True
        stage.cut()
        expect(page.locator("#stream")).to_have_text("The connection to Weir is cut: what you see may be old.")
        assert page.locator("#stream").get_attribute("role") == "alert"


def test_a_stream_that_says_nothing_any_more_is_said(browser: Browser, stage: Stage) -> None:
    with opened(browser) as page:
        page.clock.install()
        page.goto(stage.at("/"))
        expect(page.locator("#stream")).to_be_hidden()
        page.clock.run_for((3 * BEAT + 2) * 1000)
        expect(page.locator("#stream")).to_contain_text("is cut")


def test_time_that_is_left_goes_down(browser: Browser, stage: Stage) -> None:
    stage.holds = [samples.hold(until=time.time_ns() + 110 * samples.SECOND)]
    with opened(browser) as page:
        page.clock.install()
        page.goto(stage.at("/"))
        left = page.locator("time.left")
        assert 60 < int(left.inner_text().removesuffix(" s left")) <= 110
        page.clock.run_for(60_000)
        assert int(left.inner_text().removesuffix(" s left")) <= 50
        expect(left).to_have_class("left soon")
        page.clock.run_for(60_000)
        expect(left).to_have_text("time is over")


def test_a_session_goes_on_by_itself(browser: Browser, stage: Stage) -> None:
    fill(stage)
    stage.came = samples.lines()
    with opened(browser) as page:
        page.goto(stage.at("/sessions/s-20261128-1"))
        assert page.locator("#lines > li").count() == 9
        stage.came = structs.replace(stage.lines, lines=(structs.replace(
            stage.lines.lines[1], seq=500, text="SELECT 'what came'"),))
        stage.push()
        expect(page.locator("#lines > li")).to_have_count(10)
        expect(page.locator("#lines > li").last).to_contain_text("SELECT 'what came'")


def test_a_recorded_session_is_replayed(browser: Browser, stage: Stage) -> None:
    fill(stage)
    with opened(browser) as page:
        page.clock.install()
        page.goto(stage.at("/recordings/s-20261128-0"))
        page.clock.pause_at(time.time() + 60)
        shown = page.locator("#lines > li:visible")
        assert shown.count() == 9         # all of it, for who only reads
        page.get_by_label("Speed").select_option("1")
        page.get_by_role("button", name="Play").click()
        assert shown.count() == 1
        page.clock.run_for(1000)
        expect(page.locator("#at")).to_have_text("5 of 9 events")      # 0, 0.2, 0.26, 0.9, 0.95 s
        page.get_by_role("button", name="Pause").click()
        page.clock.run_for(60_000)
        assert shown.count() == 5
        page.get_by_role("button", name="Play").click()
        page.clock.run_for(20_000)        # no pause is longer than three seconds
        assert shown.count() == 9
        page.get_by_role("button", name="Show all").click()
        assert shown.count() == 9
