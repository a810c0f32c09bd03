"""The live list: what a key does to which hold, and that nothing is approved that was not drawn."""
from __future__ import annotations

import pytest
from rich.console import Console

from agent.commands.board import REASON_LIMIT, SETTLED, Board
from agent.commands.keyboard import BACK, DOWN, ENTER, ESCAPE, PAGE_UP, UP, parse_keys
from agent.commands.screen import render_hold
from agent.contract.control import Decide, Message, Revoke
from agent.contract.messages import HoldView

CONSOLE = Console(width=80)
REQUEST = """POST /api/v1/namespaces/shop/pods
(folded: 12000 characters in all)

{
 "kind": "Pod",
 ... 3 entries more
}"""


def hold(ticket: str, since: int = 1, **more: object) -> HoldView:
    made = HoldView(ticket, since, 1 << 62, "local:ada", "crew", 7, "/usr/bin/psql", "shop", "shop",
                    "sql:delete public.orders", "DELETE FROM orders", (), ("held",), ("dba",), False, "s1")
    return type(made)(**{**{name: getattr(made, name) for name in made.__struct_fields__}, **more})


class Screen:
    """A board, its clock and a terminal of 80 x 24."""

    def __init__(self, *holds: HoldView, height: int = 24) -> None:
        self.board, self.now, self.height = Board(), 0.0, height
        self.take(*holds)

    def take(self, *holds: HoldView) -> None:
        self.board.take(holds)
        self.shown = self.draw()

    def draw(self, width: int = 80) -> str:
        self.shown = self.board.draw(CONSOLE, width, self.height, self.now).plain
        return self.shown

    def press(self, *keys: str, after: float = SETTLED) -> Message | None:
        answer = None
        for key in keys:
            self.now += after
            answer = self.board.press(key, self.now)
            self.draw()
        return answer

    @property
    def chosen(self) -> str:
        found = [line.split()[1] for line in self.shown.splitlines() if line.startswith(">")]
        return found[0] if found else ""


def test_one_key() -> None:
    screen = Screen(hold("A1"))
    assert "1 waits for an answer, 0 in force" in screen.shown
    assert screen.shown.splitlines()[-1].endswith("q: leave"), "how one gets out of it"
    assert "DELETE FROM orders" in screen.shown
    assert screen.press("a") == Decide("A1", True, "")


def test_nothing_waits() -> None:
    screen = Screen()
    assert "nothing waits for an answer" in screen.shown
    assert screen.press("a", "d", "r", DOWN, UP, " ") is None
    assert not screen.board.over


def test_leaving() -> None:
    screen = Screen(hold("A1"))
    screen.press(ESCAPE)              # after a reason, pressed once too often
    assert not screen.board.over
    screen.press("q")
    assert screen.board.over


def test_a_denial_has_a_reason() -> None:
    screen = Screen(hold("A1"))
    assert screen.press("d") is None
    assert "reason to deny A1:" in screen.shown
    assert screen.press(ENTER) is None
    assert "a reason is required" in screen.shown
    assert screen.press(*"nq", BACK, *"o", ENTER) == Decide("A1", False, "no")


def test_an_approval_has_one_where_its_rule_says_so() -> None:
    screen = Screen(hold("A1", reason_required=True))
    assert screen.press("a") is None
    assert screen.press(*"why", ENTER) == Decide("A1", True, "why")


def test_not_after_all() -> None:
    screen = Screen(hold("A1"))
    screen.press("d", *"a", ESCAPE)
    assert "reason to" not in screen.shown
    assert screen.press("a") == Decide("A1", True, "")


def test_a_reason_is_bounded() -> None:
    screen = Screen(hold("A1"))
    answer = screen.press("d", *"x" * (REASON_LIMIT + 9), "\x01", ENTER)
    assert answer == Decide("A1", False, "x" * REASON_LIMIT)


def test_what_waits_longest_comes_first_and_what_is_in_force_last() -> None:
    screen = Screen(hold("C", 1, state="approved"), hold("B", 3), hold("A", 2))
    assert "2 wait for an answer, 1 in force" in screen.shown
    assert screen.chosen == "A"
    screen.press(DOWN)
    assert screen.chosen == "B"
    screen.press(DOWN, DOWN)
    assert screen.chosen == "C"
    assert screen.press("a") is None
    assert "is in force: r ends it" in screen.shown
    assert screen.press("r") == Revoke("C", "")
    screen.press(UP)
    assert screen.press("r") is None


def test_what_was_typed_ahead_answers_nothing() -> None:
    screen = Screen(hold("A"), hold("B", 2))
    assert screen.press("a", after=0.1) is None
    assert "only just been shown" in screen.shown
    assert screen.press("a") == Decide("A", True, "")
    screen.take(hold("B", 2))
    assert screen.chosen == "B"
    assert screen.press("a", "d", after=0.0) is None
    assert "reason to" not in screen.shown


def test_who_goes_by_itself_leaves_nothing_chosen() -> None:
    screen = Screen(hold("A"), hold("B", 2))
    screen.take(hold("B", 2))
    assert screen.chosen == ""
    assert "A is over" in screen.shown
    assert screen.press("a") is None
    screen.take(hold("B", 2))
    assert screen.press("a") is None
    screen.press(DOWN)
    assert screen.press("a") == Decide("B", True, "")


def test_who_goes_while_a_reason_is_typed_is_not_answered_and_nobody_else_is() -> None:
    screen = Screen(hold("A"), hold("B", 2))
    screen.press("d", *"becaus")
    screen.take(hold("B", 2))
    assert screen.press(*"ea", ENTER) is None
    assert "reason to" not in screen.shown


def test_one_that_comes_before_does_not_take_its_place() -> None:
    screen = Screen(hold("B", 2))
    screen.take(hold("A", 1), hold("B", 2))
    assert screen.chosen == "B"
    assert screen.press("a") == Decide("B", True, "")


@pytest.mark.parametrize("height", [8, 12, 24])
def test_what_is_below_must_be_read_first(height: int) -> None:
    text = "DELETE FROM orders\n" + "-- nothing\n" * 60 + "WHERE true"
    screen = Screen(hold("A", text=text), height=height)
    assert "WHERE true" not in screen.shown
    assert screen.press("a") is None
    assert "there is more of it" in screen.shown
    for _ in range(100):
        screen.press(" ")
        if (answer := screen.press("a")) is not None:
            break
    assert answer == Decide("A", True, "")


@pytest.mark.parametrize("height", range(1, 6))
def test_a_terminal_that_shows_nothing_of_it_approves_nothing(height: int) -> None:
    screen = Screen(hold("A"), hold("B", 2), height=height)
    assert screen.press(*(" a" * 20)) is None or "DELETE FROM orders" in screen.shown


def test_a_denial_needs_no_reading() -> None:
    screen = Screen(hold("A", text="x\n" * 100))
    assert screen.press("d", *"no", ENTER) == Decide("A", False, "no")


def test_a_narrower_terminal_is_read_anew() -> None:
    screen = Screen(hold("A", text="x" * 1000 + "DROP"))
    assert "DROP" in screen.shown
    screen.draw(20)
    assert "DROP" not in screen.shown
    screen.now += 1
    assert screen.board.press("a", screen.now) is None


@pytest.mark.parametrize("width", [20, 80])
@pytest.mark.parametrize("height", [6, 8, 24])
def test_the_picture_fits_and_nothing_moves_the_cursor(width: int, height: int) -> None:
    hostile = "\x1b[2J\x9b1m\u202e\u4e2d" * 20
    screen = Screen(*(hold(f"T{number}", number, subject=hostile, text=hostile, action=hostile, parameters=(hostile,))
                      for number in range(40)), height=height)
    for key in (DOWN, " ", "d", "x"):
        screen.press(key)
        lines = screen.draw(width).split("\n")
        assert len(lines) <= height
        assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(("text", "keys"), [
    ("a", ["a"]), ("\x1b[A\x1bOB\x1b[6~", [UP, DOWN, "page"]), ("\x1b", [ESCAPE]), ("\r\x7f", [ENTER, BACK]),
    ("\x1ba", []), ("\x1b[1;5Cx\x1b[200~", ["x"]), ("\u00e9", ["\u00e9"]), ("\x1b[<0;1;1M", [])])
def test_keys(text: str, keys: list[str]) -> None:
    assert parse_keys(text) == keys


def test_it_scrolls_back() -> None:
    screen = Screen(hold("A1", text="\n".join(f"line {number}" for number in range(60))))
    first = screen.shown
    assert "line 0" in first
    screen.press(" ")
    assert "line 0" not in screen.shown
    screen.press("b")
    assert "line 0" in screen.shown
    screen.press(" ", " ", PAGE_UP, PAGE_UP, "b")
    assert "line 0" in screen.shown


def test_a_request_and_what_else_a_yes_is_for() -> None:
    """With its lines, without numbers of parameters, and to the last line before it can be approved."""
    one = hold("A1", database="", target="cluster", exe="/usr/bin/kubectl", action="k8s:create pods/shop/web",
               text=REQUEST, parameters=("images: nginx:1.25", "privileged: yes"), reuse="command", reuse_for=600,
               covers="k8s:create of pods in shop")
    shown = render_hold(one, 100).plain
    for line in ("  what          POST /api/v1/namespaces/shop/pods", '                 "kind": "Pod",',
                 "  with          images: nginx:1.25", "                privileged: yes"):
        assert line in shown.split("\n"), shown
    assert ("this and further requests of this command (pid 7, /usr/bin/kubectl): k8s:create of pods in shop, "
            "until it ends, for 10 min at most") in render_hold(one, 200).plain
    assert Screen(one, height=12).press("a") is None
