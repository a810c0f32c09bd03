from __future__ import annotations

from enforcer.notify.backlog import TRIES, WAIT, Backlog


def test_twice_as_late_each_time_and_not_for_ever() -> None:
    backlog: Backlog[str] = Backlog(lambda: 1.0, 10)
    assert backlog.add("a", 0.0)
    now, pauses = 0.0, []
    while backlog.take(now) == "a" and backlog.failed("a", now):
        later = backlog.next()
        assert later is not None
        assert backlog.take(later - 0.01) is None
        pauses.append(later - now)
        now = later
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0, 60.0]
    assert len(pauses) == TRIES - 1
    assert "a" not in backlog


def test_jitter_and_what_the_receiver_asks_for() -> None:
    backlog: Backlog[str] = Backlog(lambda: 0.0, 10)
    backlog.add("a", 0.0)
    backlog.take(0.0)
    backlog.failed("a", 0.0)
    assert backlog.next() == 0.5
    backlog.take(1.0)
    backlog.failed("a", 1.0, wait=30.0)
    assert backlog.next() == 31.0
    backlog.take(31.0)
    backlog.failed("a", 31.0, wait=1e9)
    assert backlog.next() == 31.0 + WAIT


def test_it_is_bounded_and_one_is_under_way_once() -> None:
    backlog: Backlog[str] = Backlog(lambda: 0.0, 2)
    assert backlog.add("a", 0.0)
    assert backlog.add("b", 0.0)
    assert not backlog.add("c", 0.0)
    assert backlog.add("a", 5.0)      # is there already
    assert backlog.take(1.0) == "a"
    assert backlog.take(1.0) == "b"
    assert backlog.take(1.0) is None
    backlog.add("a", 1.0)             # it changed meanwhile: once more after this
    backlog.done("a", 1.0)
    assert backlog.take(1.0) == "a"
    backlog.done("a", 1.0)
    assert backlog.take(1.0) is None
    backlog.drop("b")
    assert len(backlog) == 0
