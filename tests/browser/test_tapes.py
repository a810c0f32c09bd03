"""Terminals and streams on the page, of a recording that the recorder wrote, in a real browser."""
from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyte
import pytest
import tapes
from browser.conftest import AXE
from browser.samples import sessions
from browser.stage import PATHS, Stage
from browser.test_pages import DESKTOP, PHONE, RUN_AXE, SMALL, WCAG, WIDER, opened
from conftests import conftest_of
from msgspec import structs
from playwright.sync_api import Browser, Page, expect

from agent.contract.ledger import LINES, TAPE, AskRecording
from enforcer.recording.paging import make_page


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Any]:
    made = conftest_of("enforcer/recording").Scene(tmp_path)
    yield made
    made.close()


def show(scene: Any, stage: Stage, name: str = "S1") -> None:
    def ask(what: str, session: str, at: int = 0, operation: int = 0) -> Any:
        return make_page(scene.recording, AskRecording(1, what, "local:eve", session, at, operation),
                         time.monotonic() + 30)

    stage.lines = ask(LINES, name)
    stage.tape = lambda session, operation, after: ask(TAPE, session, after, operation)


def record(scene: Any, *pieces: tuple[int, str, bytes], end: bool = True) -> Any:
    writer = scene.writer()
    writer.append(scene.opened(protocol="ssh", target="db-1", database="", role="agent"))
    writer.append(*scene.intent(1, text=b"shell", verb="shell", requests=(), masks=()))
    for one in tapes.flow(*pieces, at=scene.at, end=end):
        writer.append(*one)
    if end:
        writer.append(*scene.result(1, tag="exit 0", rows=0))
        writer.append(scene.closed())
    writer.flush()
    scene.start()
    scene.turn(2)
    return writer


def text_of(page: Page) -> list[str]:
    page.wait_for_timeout(60)         # a frame
    return [line.rstrip() for line in page.locator(".screen").inner_text().split("\n") if line.strip()]


@pytest.mark.parametrize(("scheme", "size"), [("light", DESKTOP), ("dark", PHONE)])
def test_a_terminal_is_played_and_nobody_is_kept_out(
    browser: Browser, stage: Stage, scene: Any, scheme: str, size: tuple[int, int],
) -> None:
    tapes.write_session(scene, scene.writer())
    scene.start()
    scene.turn(2)
    show(scene, stage)
    with opened(browser, scheme, size) as page:
        page.goto(stage.at("/recordings/S1"))
        terminal = page.get_by_role("group", name="Terminal of operation 1")
        terminal.get_by_role("button", name="To the end").click()
        expect(terminal.get_by_role("status")).to_have_text("The end")
        assert text_of(page)[:2] == ["agent@db-1:~$ ls", "notes  pass.txt  grüße"]
        expect(terminal.locator(".typed")).to_have_text("typed: lx⌫s⏎exit⏎")
        expect(terminal.locator("[data-say=time]")).to_have_text("1:01 of 1:01")
        streams = page.get_by_role("group", name="Streams of operation 2")
        streams.get_by_role("button", name="Show").click()
        expect(streams.get_by_role("region", name="Errors")).to_have_text("warning: \\u{1b}[31mdisk full\\u{1b}[0m")
        expect(streams.get_by_role("status")).to_have_text("That is all")
        page.evaluate(AXE.read_text())
        found = page.evaluate(RUN_AXE, WCAG)["violations"]
        assert not [(one["id"], one["nodes"][0]["html"], one["nodes"][0]["failureSummary"]) for one in found]
        assert page.evaluate(WIDER) <= 0
        assert not page.evaluate(SMALL)


def test_keys_speed_and_pauses(browser: Browser, stage: Stage, scene: Any) -> None:
    record(scene, (0, "size", b"40x10"), (10, "out", b"one"), (30_010, "out", b"\r\ntwo"),
           (40_000, "out", b"\r\nthree"))
    show(scene, stage)
    with opened(browser) as page:
        page.clock.install()
        page.goto(stage.at("/recordings/S1"))
        page.locator(".tape").get_by_role("button", name="Play").click()
        screen = page.locator(".screen")
        expect(screen).to_contain_text("one")
        assert "two" not in screen.inner_text()
        page.clock.run_for(2100)      # a pause of half a minute is two seconds
        expect(screen).to_contain_text("two")
        screen.focus()
        page.keyboard.press("Space")
        expect(page.locator(".tape [role=status]")).to_have_text("Paused")
        page.clock.run_for(60_000)
        assert "three" not in screen.inner_text()
        page.keyboard.press("ArrowLeft")
        page.clock.run_for(100)
        expect(screen).not_to_contain_text("two")
        expect(page.locator("[data-say=time]")).to_have_text("0:25 of 0:40")
        page.keyboard.press("End")
        page.clock.run_for(100)
        expect(screen).to_contain_text("three")
        page.keyboard.press("Home")
        page.clock.run_for(100)
        expect(screen).not_to_contain_text("one")


def test_a_long_one_comes_in_pages_and_is_gone_back_in(browser: Browser, stage: Stage, scene: Any) -> None:
    """Two megabytes: letters and sequences are cut where pieces and pages end."""
    lines = (f"\x1b[3{number % 8}mline {number} grüße 漢字 {'x' * 40}\x1b[0m\r\n" for number in range(24_000))
    text = "".join(lines).encode()
    parts = [text[at:at + 9973] for at in range(0, len(text), 9973)]
    record(scene, (0, "size", b"80x24"), *((100 * number, "out", part) for number, part in enumerate(parts, 1)))
    show(scene, stage)
    with opened(browser) as page:
        page.goto(stage.at("/recordings/S1"))
        page.get_by_role("button", name="To the end").click()
        expect(page.locator(".tape [role=status]")).to_have_text("The end", timeout=30_000)
        assert text_of(page)[-1] == "line 23999 grüße 漢字 " + "x" * 40
        whole = stage.fetched
        assert whole >= len(text) // (300 << 10)
        page.locator(".seek").fill("0")
        page.locator(".seek").fill(str(100 * (len(parts) - 10)))
        expect(page.locator(".tape [role=status]")).to_have_text("Paused")
        assert stage.fetched <= whole + 6     # from a screen that was kept, not from the beginning
        number = int(text_of(page)[-2].split()[1])
        assert 22_500 < number < 23_200
        kept = page.evaluate("document.querySelectorAll('.screen span').length")
        assert kept < 24 * 10


def test_a_live_terminal_goes_on(browser: Browser, stage: Stage, scene: Any) -> None:
    writer = record(scene, (0, "size", b"80x24"), (10, "out", b"before"), end=False)
    show(scene, stage)
    stage.sessions = [structs.replace(sessions()[0], session="S1")]
    with opened(browser) as page:
        page.goto(stage.at("/sessions/S1"))
        page.get_by_role("button", name="To the end").click()
        expect(page.locator(".tape [role=status]")).to_have_text("Live")
        expect(page.locator(".screen")).to_contain_text("before")
        for one in tapes.flow((5000, "out", b" and now"), at=scene.at):
            writer.append(*one)
        writer.append(*scene.result(1))
        writer.flush()
        scene.turn(2)
        expect(page.locator(".screen")).to_contain_text("before and now")
        expect(page.locator(".tape [role=status]")).to_have_text("The end")


def test_what_a_server_sends_is_drawn_and_nothing_else(browser: Browser, stage: Stage, scene: Any) -> None:
    record(scene, (0, "size", b"80x24"),
           (1, "out", b"x\x1b[9999b\x1b[99999999L\x1b[99999999@\x1b[99999999P\x1b[2J\x1b[H"),
           (2, "out", b"<img src=x onerror=alert(1)><script>window.got = 1</script>\r\n"),
           (2, "out", b"\x1b]52;c;ZXZpbA==\x07\x1b]0;title\x07\x1b[6n"),
           (2, "out", b"\x1b[38;2;1;2;3;4mred\x1b[0m\xe2\x80\xaeturned\r\n"),
           (3, "out", b"\x1b[99999999;99999999He"), (4, "size", b"99999999x99999999"))
    show(scene, stage)
    with opened(browser) as page:
        page.goto(stage.at("/recordings/S1"))
        title = page.title()
        page.get_by_role("button", name="To the end").click()
        expect(page.locator(".tape [role=status]")).to_have_text("The end")
        assert page.locator(".screen img, .screen script").count() == 0
        assert page.evaluate("window.got") is None
        assert page.title() == title
        assert "<img src=x onerror=alert(1)>" in page.locator(".screen").inner_text()
        assert "\u202e" not in page.locator(".screen").inner_text()


def test_what_is_slow_to_draw_can_be_stopped(browser: Browser, stage: Stage, scene: Any) -> None:
    record(scene, (0, "size", b"1000x200"), *((number, "out", b"\x1b[2J\x1b[999L" * 5000) for number in range(1, 9)))
    show(scene, stage)
    with opened(browser) as page:
        page.goto(stage.at("/recordings/S1"))
        page.get_by_role("button", name="To the end").click()
        page.locator(".tape").get_by_role("button", name="Pause").click()
        expect(page.locator(".tape [role=status]")).to_have_text("Paused")


# Without what pyte does otherwise than terminals do: margins and deleted lines, wide letters at the edge.  A sequence
# while wrapping is pending is left out below.
PARTS = ["word ", "é", "\r\n", "\r", "\n", "\b", "\t", "\x1b[K", "\x1b[1K", "\x1b[2K", "\x1b[J", "\x1b[1J", "\x1b[2J",
         "\x1b[H", "\x1b[3;7H", "\x1b[5A", "\x1b[2B", "\x1b[3C", "\x1b[2D", "\x1b[4G", "\x1b[2L", "\x1b[2P", "\x1b[3@",
         "\x1b[2X", "\x1bM", "\x1bD", "\x1b[31;1m", "\x1b[0m", "\x1b[4h", "\x1b[4l", "\x1b]0;t\x07", "x" * 9,
         "0123456789" * 3]


def test_the_screen_is_as_another_terminal_draws_it(browser: Browser, stage: Stage) -> None:
    """pyte's, over what both know."""
    chance = random.Random(20261128)
    texts, wanted = [], []
    for _ in range(2000):
        screen, parts, pending = pyte.Screen(20, 8), chance.choices(PARTS, k=12), False
        stream = pyte.Stream(screen)
        for part in parts:
            pending |= part[0] == "\x1b" and screen.cursor.x == 20
            stream.feed(part)
        if not pending:
            texts.append("".join(parts))
            wanted.append(["".join(screen.buffer[y][x].data for x in range(20)).rstrip() for y in range(8)])
    with opened(browser) as page:
        page.goto(stage.at("/recordings"))
        made = page.evaluate("""async ([place, texts]) => {
            const { Screen } = await import(place);
            return texts.map((text) => {
                const one = new Screen(20, 8);
                one.feed(text);
                return one.lines.map((_, y) => one.text(y).trimEnd());
            });
        }""", [f"{PATHS.static}/screen.js", texts])
    other = [(text, made[at], wanted[at]) for at, text in enumerate(texts) if made[at] != wanted[at]]
    assert not other, f"{len(other)}: {other[0]}"
