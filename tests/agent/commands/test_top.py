"""The live view: what is shown in which order, what a key does, and that nobody's name moves the cursor."""
from __future__ import annotations

from typing import Any

import msgspec
import pytest
from rich.console import Console

from agent.commands.keyboard import DOWN, ENTER, PAGE, PAGE_UP, UP
from agent.commands.top import HOLDS_BOARD, SORTS, Snapshot, Top
from agent.contract.control import ServiceView, Status, TargetView
from agent.contract.messages import HoldView, SessionView

CONSOLE = Console(width=120)
SECOND = 1_000_000_000
RUNS = ServiceView(1, 1, 0)
STATUS = Status("enforcing", (), "weir", 1, 1, "x", True, (), RUNS, RUNS, 2048, (
    TargetView("orders", "postgresql", (), 5432, ()), TargetView("web", "ssh", (), 22, ())), (), (),
    {"sessions": 3, "flows": 0, "holds": 1, "sessions_total": 10, "events": 100}, ())


def session(name: str, since: int, target: str = "orders", operations: int = 0, **more: Any) -> SessionView:
    made = SessionView(name, since, "local:ada", "crew", 7, target, "shop", operations, "active")
    return msgspec.structs.replace(made, **more)


def hold(ticket: str, since: int, **more: Any) -> HoldView:
    made = HoldView(ticket, since, 1 << 62, "local:ada", "crew", 7, "/usr/bin/psql", "orders", "shop",
                    "sql:delete public.orders", "DELETE", (), ("held",), ("dba",), False, "s1")
    return msgspec.structs.replace(made, **more)


OPEN = (session("aaa", 1, operations=5), session("bbb", 2, "web", 9), session("ccc", 3, operations=1))
NOW = Snapshot(100 * SECOND, STATUS, OPEN, (hold("t1", 90 * SECOND), hold("t2", 1, state="approved")))


def drawn(top: Top, height: int = 24, width: int = 120) -> list[str]:
    lines = top.draw(CONSOLE, width, height).plain.splitlines()
    assert len(lines) == height
    assert all(len(line) <= width for line in lines)
    return lines


def names(top: Top, **how: int) -> list[str]:
    return [line.split()[0] for line in drawn(top, **how) if line[:3] in ("aaa", "bbb", "ccc") or line[:2] == "s0"]


@pytest.fixture
def top() -> Top:
    made = Top()
    made.take(NOW)
    return made


def test_what_goes_on_is_shown(top: Top) -> None:
    lines = drawn(top)
    assert lines[0] == "enforcing  3 sessions, 0 flows, 1 holds, 0 workloads, 2 KiB of journal waiting"
    assert names(top) == ["ccc", "bbb", "aaa"], "the newest first"
    assert "held 10 s: t1  local:ada  orders  sql:delete public.orders" in lines
    assert not [line for line in lines if "t2" in line], "what is in force waits for nobody"


def test_rates_are_what_came_since(top: Top) -> None:
    later = msgspec.structs.replace(
        NOW, at=102 * SECOND, sessions=(session("aaa", 1, operations=25), OPEN[1]),
        status=msgspec.structs.replace(STATUS, statistics=STATUS.statistics | {"sessions_total": 14, "events": 50}))
    top.take(later)
    lines = drawn(top)
    assert lines[1].split("  ") == ["2.0 sessions/s", "0.0 flows/s", "0.0 refused/s", "0.0 names/s", "0.0 events/s"]
    assert " 10.0 " in next(line for line in lines if line.startswith("aaa"))
    assert " 0.0 " in next(line for line in lines if line.startswith("bbb"))
    top.press("s")
    assert names(top) == ["aaa", "bbb"]


def test_another_enforcer_counts_from_nothing(top: Top) -> None:
    status = msgspec.structs.replace(STATUS, enforcer=ServiceView(9, 50, 1), statistics={"sessions_total": 1000})
    top.take(msgspec.structs.replace(NOW, at=101 * SECOND, status=status))
    assert drawn(top)[1].startswith("0.0 sessions/s")


@pytest.mark.parametrize(("presses", "order"), [
    (0, ["ccc", "bbb", "aaa"]), (2, ["bbb", "aaa", "ccc"]), (3, ["aaa", "ccc", "bbb"]),
    (len(SORTS), ["ccc", "bbb", "aaa"])])
def test_s_sorts(top: Top, presses: int, order: list[str]) -> None:
    for _ in range(presses):
        top.press("s")
    assert names(top) == order
    assert drawn(top)[-2] == f"by {SORTS[presses % len(SORTS)][0]}"


def test_t_shows_one_target_alone(top: Top) -> None:
    top.press("t")
    assert names(top) == ["ccc", "aaa"]
    top.press("t")
    assert names(top) == ["bbb"]
    assert drawn(top)[-2].endswith("target web alone")
    top.press("t")
    assert len(names(top)) == 3


def test_enter_watches_the_chosen_and_h_shows_holds(top: Top) -> None:
    top.press(ENTER)
    assert top.opens == "", "nothing is chosen"
    top.press(DOWN)
    top.press(DOWN)
    top.press(ENTER)
    assert top.opens == "bbb"
    top.press("t")
    top.press(UP)
    top.opens = ""
    top.press("h")
    assert (top.opens, top.over) == (HOLDS_BOARD, False)
    top.press("q")
    assert top.over


def test_one_that_has_ended_is_not_opened(top: Top) -> None:
    top.press(DOWN)
    top.take(msgspec.structs.replace(NOW, sessions=()))
    top.press(ENTER)
    assert top.opens == ""
    assert "no session is open" in drawn(top)


def test_more_than_there_is_room_for() -> None:
    top = Top()
    top.take(msgspec.structs.replace(NOW, sessions=tuple(session(f"s{at:03}", -at) for at in range(500))))
    assert names(top)[0] == "s000"
    for _ in range(3):
        top.press(PAGE)
    chosen = len(names(top)) * 2
    assert f"s{chosen:03}" in names(top)
    for _ in range(9):
        top.press(PAGE_UP)
    assert names(top)[0] == "s000"


@pytest.mark.parametrize("height", [1, 2, 3, 5, 8, 24, 100])
@pytest.mark.parametrize("width", [1, 20, 80, 300])
def test_any_terminal_is_large_enough(top: Top, height: int, width: int) -> None:
    drawn(top, height, width)
    top.press(PAGE)
    drawn(top, height, width)


def test_names_write_nothing_to_the_terminal(top: Top) -> None:
    evil = "\x1b[2Jx\r\n\x9b7m"
    top.take(Snapshot(101 * SECOND, msgspec.structs.replace(STATUS, state="degraded", reasons=(evil,)), (
        session("aaa", 1, evil, subject=evil, workload=evil, database=evil, state=evil, account=evil),),
        (hold("t1", 1, action=evil, subject=evil, target=evil),)))
    text = "\n".join(drawn(top))
    assert text.replace("\n", "").isprintable()
    assert "because" in text


def test_who_may_not_see_is_told_so() -> None:
    top = Top()
    top.take(Snapshot(1, STATUS, None, None, "only root and members of the auditors' group may do this",
                      "only root and members of the approvers' group may do this"))
    text = "\n".join(drawn(top))
    assert "sessions are not shown: only root and members of the auditors' group" in text
    assert "holds are not shown: only root and members of the approvers' group" in text


def test_on_a_narrow_terminal_one_sees_what_a_session_is_at(top: Top) -> None:
    name = "01M8KH4FVKPATYXV0VTFAF5ZGM"
    top.take(msgspec.structs.replace(NOW, sessions=(session(name, 1, state="held"),)))
    [head] = [line for line in drawn(top, width=80) if line.startswith("SESSION")]
    assert head.split() == ["SESSION", "WHO", "WORKLOAD", "WHERE", "OPS", "STATE", "SINCE"]
    [row] = [line for line in drawn(top, width=80) if line.startswith(name)]
    assert row.split()[-3] == "held"
    assert "PID" in drawn(top, width=100)[2]
    assert drawn(top, width=80)[-1].endswith("q: leave")
    [narrow] = [line for line in drawn(top, width=40) if line.startswith("SESSION")]
    assert narrow.endswith("…")


def test_a_long_name_hides_nothing_of_others() -> None:
    """A crew chooses its database's."""
    top = Top()
    top.take(msgspec.structs.replace(NOW, sessions=(*OPEN, session("ddd", 4, database="x" * 300, operations=77))))
    [head] = [line for line in drawn(top) if line.startswith("SESSION")]
    assert head.endswith("SINCE")
    rows = [line.split() for line in drawn(top) if line[:3] in ("aaa", "bbb", "ccc", "ddd")]
    assert {row[0]: row[5] for row in rows} == {"aaa": "5", "bbb": "9", "ccc": "1", "ddd": "77"}
