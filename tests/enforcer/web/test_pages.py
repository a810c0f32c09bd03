"""The pages without a browser: what they say, that every word is safe, and that they are in the package."""
from __future__ import annotations

import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import samples
from msgspec import structs

from enforcer.recording.paged import HistoryPage, Line, LinesPage, SessionsPage
from enforcer.web import pages
from enforcer.web.shown import Answering, HoldShown, Page, Paths, ProviderLink, Viewer, seen_of

ROOT = Path(__file__).resolve().parents[3]
WEB = ROOT / "enforcer/web"
PAGE = Page(Viewer("keycloak:bob", ("dba", "oncall"), True, True, "the-token", True), now=samples.time.time_ns())


def every(hold: object = None) -> dict[str, str]:
    one = hold or samples.hold()
    shown = HoldShown(one, samples.history(), samples.sessions()[0])
    return {
        "login": pages.render_login(PAGE, [ProviderLink("keycloak", "/login/keycloak")]),
        "approvals": pages.render_approvals(PAGE, [one]), "holds": pages.render_holds(PAGE, [one], one.ticket),
        "hold": pages.render_hold(PAGE, shown, [one]),
        "answer": pages.render_answer(PAGE, Answering(one, "deny", one.subject, "/answer", (("t", "x"),))),
        "gone": pages.render_answer(PAGE, None),
        "sessions": pages.render_sessions(PAGE, samples.sessions()),
        "session": pages.render_session(PAGE, samples.sessions()[0], samples.lines()),
        "over": pages.render_session(PAGE, None, LinesPage()),
        "recordings": pages.render_recordings(PAGE, samples.recordings()),
        "replay": pages.render_replay(PAGE, samples.lines()), "none": pages.render_replay(PAGE, LinesPage()),
        "tapes": pages.render_lines(PAGE, structs.replace(samples.lines(), lines=tuple(
            Line(number, 1, "stream", number, text="streams", tape=form)
            for number, form in enumerate(("terminal", "streams"))))),
        "history": pages.render_history(PAGE, samples.history()), "error": pages.render_error(PAGE, 404, "Not here"),
        "nothing": pages.render_recordings(PAGE, SessionsPage(wrong="the recorder does not answer")),
    }


class Seen(HTMLParser):
    """Elements and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.mark.parametrize("name", sorted(every()))
def test_nothing_that_the_policy_refuses(name: str) -> None:
    for tag, attributes in Seen(every()[name]).tags:
        assert not {one for one in attributes if one == "style" or one.startswith("on")}, tag
        assert tag != "style"
        assert tag != "script" or attributes["src"].startswith("/static/")
        assert not str(attributes.get("href", "")).startswith(("http", "//", "javascript"))


@pytest.mark.parametrize("name", sorted(every()))
def test_hostile_words_make_no_markup(name: str) -> None:
    plain, hostile = every()[name], every(samples.hostile())[name]
    kinds = {tag for tag, _ in Seen(plain).tags} | {"span", "section", "div", "ul", "li", "strong", "p", "code", "h2"}
    assert {tag for tag, _ in Seen(hostile).tags} <= kinds
    assert not [one for one in hostile if one in "\u202e\u2066\u200b\x00\x1b"]


@pytest.mark.parametrize("name", ["facts", "rows", "text", "says", "verb"])
def test_hostile_words_of_a_recording(name: str) -> None:
    tricks = samples.HOSTILE + "\u202e\x00"
    value = {"facts": ((tricks, tricks),), "rows": (tricks,)}.get(name, tricks)
    found = samples.lines()
    found = structs.replace(found, lines=tuple(structs.replace(one, **{name: value}) for one in found.lines))
    text = pages.render_replay(PAGE, found)
    assert [attributes for tag, attributes in Seen(text).tags if tag == "script"] == [
        attributes for tag, attributes in Seen(pages.render_replay(PAGE, samples.lines())).tags if tag == "script"]
    assert "\u202e" not in text
    assert "\x00" not in text


def test_no_template_takes_words_as_markup() -> None:
    for one in (WEB / "templates").glob("*.html"):
        assert not re.search(r"\|\s*safe\b|autoescape|Markup", one.read_text()), one.name


def test_all_that_an_approver_needs() -> None:
    text = every()["hold"]
    for wanted in ("keycloak:ada", "billing", "4711", "/srv/crews/billing/bin/python3.11", "retention of crew billing",
                   "reported, nobody has checked that", "orders", "deletes-need-a-dba", "about 1204", "Seq Scan",
                   "once", "2024-01-01", "not on a Saturday", "42 operations"):
        assert wanted in text, wanted
    assert '<span class="sql-keyword">DELETE</span>' in text


def test_what_one_yes_is_for_where_it_is_for_a_command() -> None:
    one = samples.hold(reuse="command", reuse_for=3600, exe="/usr/bin/kubectl",
                       covers="k8s:delete of pods in <b>shop</b>")
    said = ("this and further requests of this command (pid 4711, /usr/bin/kubectl): k8s:delete of pods in "
            "&lt;b&gt;shop&lt;/b&gt;, until it ends")
    text = pages.render_hold(PAGE, HoldShown(one), [one])
    assert text.count(f"{said}, for 60 min at most") == 2, "among the facts, and at the button"
    assert said in pages.render_hold(PAGE, HoldShown(structs.replace(one, state="approved")))
    assert seen_of(structs.replace(one, covers="all")) != seen_of(one)
    for change in ({"covers": "\u043e"}, {"parameters": ("\u043e",)}):
        assert "CYRILLIC" in pages.render_hold(PAGE, HoldShown(structs.replace(one, **change)))


def test_a_protocol_that_knows_neither_databases_nor_accounts() -> None:
    one = structs.replace(samples.recorded(), protocol="kubernetes", database="", role="", target="cluster")
    text = pages.render_replay(PAGE, LinesPage(one))
    assert "<dt>Protocol</dt><dd>kubernetes</dd>" in text
    assert "Account" not in text
    assert "Database" not in text


def verbs(view: object, viewer: Viewer) -> set[str]:
    text = pages.render_hold(structs.replace(PAGE, viewer=viewer), HoldShown(view))
    return {str(found["data-verb"]) for tag, found in Seen(text).tags if tag == "form" and "data-verb" in found}


ADA, BOB = Viewer("keycloak:ada", ("dba",), True), Viewer("keycloak:bob", ("dba",), True)
EVE, GLASS = Viewer("keycloak:eve", ("staff",), True), Viewer("keycloak:kim", ("oncall",), True)


@pytest.mark.parametrize(("viewer", "more", "wanted"), [
    (BOB, {}, {"approve", "deny"}),
    (ADA, {}, set()),                                             # her own
    (ADA, {"form": "ticket"}, {"revoke"}),                        # which she may withdraw where nobody waits
    (EVE, {}, set()),
    (GLASS, {"break_glass": ("oncall",)}, {"break-glass"}),
    (BOB, {"state": "approved"}, {"revoke"}), (ADA, {"state": "approved"}, {"revoke"}),
    (EVE, {"state": "approved"}, set()),
])
def test_forms_for_whom_they_are(viewer: Viewer, more: dict[str, object], wanted: set[str]) -> None:
    assert verbs(samples.hold(**more), viewer) == wanted


def test_every_form_that_is_posted_has_the_token() -> None:
    for name, text in every().items():
        for form in re.findall(r'<form[^>]*method="post".*?</form>', text, re.DOTALL):
            assert 'name="csrf" value="the-token"' in form or (name == "answer" and 'name="t"' in form), form


def test_paths_are_the_callers() -> None:
    paths = Paths(**{name: f"/prefix{value}" for name, value in structs.asdict(Paths()).items()})
    page = structs.replace(PAGE, paths=paths)
    for _, found in Seen(pages.render_hold(page, HoldShown(samples.hold()), [samples.hold()])).tags:
        for name in ("href", "src", "action", "data-stream", "data-page"):
            assert str(found.get(name, "/prefix#")).startswith(("/prefix", "#")), found


def test_what_an_answer_is_for() -> None:
    one = samples.hold(since=1, until=2)
    assert seen_of(one) == seen_of(structs.replace(one, until=9, assents=("x",), escalates=7))
    for change in ({"text": "x"}, {"parameters": ()}, {"plan": ""}, {"rows": 5}, {"state": "approved"},
                   {"action": "a"}):
        assert seen_of(structs.replace(one, **change)) != seen_of(one)


def test_a_peek_ends_comments_where_they_end() -> None:
    found = pages.render_holds(PAGE, [samples.hold(text="SELECT 1 -- only reads\nDROP TABLE t")])
    assert '<span class="sql-comment">-- only reads</span> <span class="sql-keyword">DROP</span>' in found


def test_what_is_no_statement_is_not_read_as_one() -> None:
    """In a command line `--` begins no comment, and there are no parameters by number."""
    one = samples.hold(database="", account="deploy", action="ssh:exec rm -rf -- /srv", text="rm -rf -- /srv", plan="",
                       parameters=("LANG=C.UTF-8",))
    for text in (pages.render_holds(PAGE, [one]), pages.render_hold(PAGE, HoldShown(one, samples.history(), None))):
        assert "rm -rf -- /srv" in text
        assert "sql-comment" not in text
        assert "<dt>$" not in text
        assert ">Plan<" not in text
    shell = structs.replace(one, action="ssh:shell deploy@web", text="")
    assert ">Operation<" not in pages.render_hold(PAGE, HoldShown(shell, samples.history(), None))
    recorded = structs.replace(samples.recorded(), database="", role="deploy", target="web")
    asked = Line(1, 1, "asked", 1, "permit", verb="exec", text="rm -rf -- /srv")
    assert "sql-comment" not in pages.render_lines(PAGE, LinesPage(recorded, (asked,)))
    assert "web as deploy" in pages.render_recordings(PAGE, SessionsPage((recorded,)))


def test_a_list_is_drawn_again_without_looking_at_every_statement_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand that wait are drawn for everybody who looks, at each change, and crews write them."""
    looked: list[int] = []
    whole = pages.colour
    monkeypatch.setattr(pages, "colour", lambda text: looked.append(len(text)) or whole(text))
    holds = [samples.hold(f"{number:08d}", text=f"SELECT {number} " + "+-" * 1900) for number in range(1000)]
    pages.render_holds(PAGE, holds)
    assert max(looked) <= pages.SCANNED
    before = pages._peek.cache_info().misses
    pages.render_holds(PAGE, holds)
    assert pages._peek.cache_info().misses == before


def test_two_hundred_that_wait_are_shown_at_once() -> None:
    holds = [samples.hold(f"{number:08d}", text=f"SELECT {number}") for number in range(200)]
    assert len(pages.render_holds(PAGE, holds)) < 400_000
    assert pages.render_holds(PAGE, holds).count("<li ") == 200


def test_history_that_is_not_whole_says_so() -> None:
    text = pages.render_hold(PAGE, HoldShown(samples.hold(), HistoryPage(wrong="it took too long")))
    assert "it took too long" in text


def test_files_are_in_the_package() -> None:
    """What pyproject names is what is there: a wheel without a template is found here, not by an approver."""
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["enforcer"]
    packed = {one for pattern in named for one in (ROOT / "enforcer").glob(pattern)}
    assert {one for folder in ("templates", "static") for one in (WEB / folder).iterdir()} <= packed


def test_scripts_stay_small_and_our_own() -> None:
    for one in (WEB / "static").glob("*.js"):
        text = one.read_text()
        assert len(text) < 12_000, one.name
        assert not re.search(r"\beval\(|new Function|innerHTML =|document\.write|https?://", text), one.name
