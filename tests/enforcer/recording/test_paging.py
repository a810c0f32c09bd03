"""Pages of a recording: what is on them, that they are small and soon there, and that the recorder's work goes on."""
from __future__ import annotations

import os
import socket
import time

import msgspec
import pytest
import tapes

from agent.contract.ledger import (
    HEADER,
    HISTORY,
    LINES,
    PAGE,
    PAGES,
    SESSIONS,
    TAPE,
    AskLedger,
    AskRecording,
    LedgerAnswer,
    RecordingAnswer,
    parse_answer,
    render_frame,
)
from enforcer.recording import asking, paged, paging
from enforcer.recording.asking import PagesAsked
from enforcer.recording.paged import HistoryPage, LinesPage, SessionsPage, TapePage
from enforcer.recording.paging import make_page
from enforcer.words import events


def write(scene, *made: object) -> None:
    writer = scene.writer()
    for one in made:
        event, blobs = one if isinstance(one, tuple) else (one, ())
        writer.append(event, blobs)
    writer.flush()
    scene.turn(2)


def page(scene, what: str, name: str = "", at: int = 0, seconds: float = 30.0):
    return make_page(scene.recording, AskRecording(1, what, "local:eve", name, at), time.monotonic() + seconds)


def hold(scene, ticket: str, state: str, subject: str = "local:zoë", **more) -> events.HoldChanged:
    scene.at += 1000
    return events.HoldChanged(events.HOLD, scene.at, 1, "S1", 1, ticket, state, more.pop("by", ""), "", 0, b"",
                              subject=subject, target="orders", what="sql:delete public.orders", **more)


@pytest.fixture
def recorded(scene):
    scene.start()
    write(scene, scene.opened(), scene.intent(1, text=b"SELECT 1", parameters=msgspec.msgpack.encode(["x", None])),
          scene.result(1, payload=b"D\0\0\0\x0d\0\1\0\0\0\3row"),
          scene.intent(2, text=b"DELETE FROM orders", decision=2, reason="not allowed", masks=()),
          scene.intent(3, actor="weir", verb="denial"), scene.result(3, error=b"no portal"),
          scene.result(2, error=b"permission denied", status="denied"), scene.closed())
    yield scene
    if scene.recorder is not None:
        scene.stop()


def test_sessions(recorded) -> None:
    write(recorded, recorded.opened("S2", subject="local:eve"))
    found = page(recorded, SESSIONS)
    assert isinstance(found, SessionsPage)
    assert [(one.session, one.subject, bool(one.closed), one.operations, one.denied) for one in found.sessions] == [
        ("S2", "local:eve", False, 0, 0), ("S1", "local:zoë", True, 2, 1)]
    assert (found.more, found.wrong) == (0, "")


def test_lines_are_as_the_transcript_has_them(recorded) -> None:
    found = page(recorded, LINES, "S1")
    assert isinstance(found, LinesPage)
    assert found.session is not None
    assert found.session.session == "S1"
    assert [(one.kind, one.operation, one.says) for one in found.lines] == [
        ("opened", 0, ""), ("asked", 1, "permit"), ("answered", 1, "ok"), ("asked", 2, "deny"),
        ("answered", 2, "denied"), ("closed", 0, "")]
    asked, answered, denied = found.lines[1], found.lines[2], found.lines[4]
    assert asked.text == "SELECT 1"
    assert dict(asked.facts) == {"with": "'x', null", "asks": "sql:select public.orders", "rules": "base:read",
                                 "masked": "pii.email"}
    assert answered.rows == ("row",)
    assert "permission denied" in denied.text
    assert dict(found.lines[3].facts)["because"] == "not allowed"
    assert page(recorded, LINES, "S1", found.last).lines == ()


def test_of_a_session_that_goes_on_what_came_since(recorded) -> None:
    write(recorded, recorded.opened("S2"))
    seen = page(recorded, LINES, "S2")
    write(recorded, recorded.intent(1, "S2", text=b"SELECT 2"))
    came = page(recorded, LINES, "S2", seen.last)
    assert [one.text for one in came.lines] == ["SELECT 2"]
    assert came.last > seen.last


def test_a_long_session_comes_in_pages(recorded) -> None:
    write(recorded, recorded.opened("S2"), *(recorded.intent(number, "S2", text=b"SELECT %d" % number)
                                             for number in range(1, 251)))
    texts, after = [], 0
    for _ in range(3):
        found = page(recorded, LINES, "S2", after)
        assert len(found.lines) <= paged.LINES
        texts += [one.text for one in found.lines if one.kind == "asked"]
        after = found.more
    assert texts == [f"SELECT {number}" for number in range(1, 251)]
    assert after == 0


def test_events_that_are_no_lines_hide_none(recorded) -> None:
    made = [recorded.opened("S2")]
    for number in range(1, 301):
        made += [tapes.streamed("size", b"80x%d" % number, at=recorded.at, session="S2"),
                 recorded.intent(number, "S2", actor="weir", verb="denial" if number % 3 else "query")]
    write(recorded, *made)
    found = page(recorded, LINES, "S2")
    assert [one.operation for one in found.lines if one.kind == "asked"] == [3 * number for number in range(1, 99)]
    assert page(recorded, LINES, "S2", found.more).lines[0].operation == 297


def test_streams_have_a_line_where_they_begin_and_where_they_end(recorded) -> None:
    tapes.write_session(recorded, recorded.writers[-1], "S2")
    recorded.turn(2)
    found = page(recorded, LINES, "S2")
    assert [(one.kind, one.operation, one.tape) for one in found.lines] == [
        ("opened", 0, ""), ("noted", 0, ""), ("asked", 1, ""), ("stream", 1, "terminal"), ("stream", 1, ""),
        ("stream", 1, ""), ("answered", 1, ""), ("asked", 2, ""), ("stream", 2, "streams"), ("stream", 2, ""),
        ("stream", 2, ""), ("stream", 2, ""), ("answered", 2, ""), ("closed", 0, "")]
    assert "in ends: 10 B, all kept, SHA-256 4a45092c" in found.lines[9].text
    assert not any("0 rows" in one.text for one in found.lines)


def test_a_tape_comes_in_pages_over_files(recorded) -> None:
    content = [bytes([65 + number % 26]) * 60_000 for number in range(20)]
    made = tapes.flow((0, "size", b"80x24"), *((100 * number, "out", one) for number, one in enumerate(content, 1)),
                      at=recorded.at, session="S2", operation=3)
    write(recorded, recorded.opened("S2"), *made[:9])
    recorded.recorder._rotate()
    seen = tape(recorded, "S2", 3)
    assert not seen.ended
    assert not seen.more or seen.last
    write(recorded, *made[9:], recorded.result(3, "S2"))
    found, after = [], 0
    while True:
        one = tape(recorded, "S2", 3, after)
        assert one.terminal
        assert one.length == 2000 * tapes.MILLISECOND
        assert len(msgspec.msgpack.encode(one)) < PAGE
        assert sum(len(piece.content) for piece in one.pieces) < paging.TAPE_ROOM + events.PIECE
        found += one.pieces
        after = one.last
        if not one.more:
            break
        assert not one.ended
    assert one.ended
    assert [piece.content for piece in found] == [b"80x24", *content]
    assert [piece.after for piece in found] == [100 * number * tapes.MILLISECOND for number in range(21)]
    assert tape(recorded, "S2", 3, after).pieces == ()


def tape(scene, session: str, operation: int, after: int = 0, seconds: float = 30.0) -> TapePage:
    question = AskRecording(1, TAPE, "local:eve", session, after, operation)
    found = make_page(scene.recording, question, time.monotonic() + seconds)
    assert isinstance(found, TapePage)
    return found


def test_many_small_pieces_are_a_bounded_page(recorded) -> None:
    write(recorded, recorded.opened("S2"), *tapes.flow(
        *((number, "out", b"%d" % number) for number in range(5000)), at=recorded.at, session="S2"))
    first = tape(recorded, "S2", 1)
    assert (len(first.pieces), first.more, first.terminal) == (paged.PIECES, True, False)
    last = tape(recorded, "S2", 1, tape(recorded, "S2", 1, first.last).last)
    assert last.pieces[-1].content == b"4999"


def test_a_tape_that_is_not_there_or_not_in_time(recorded) -> None:
    assert "no such session" in tape(recorded, "S9", 1).wrong
    assert "nothing flowed" in tape(recorded, "S1", 1).wrong
    write(recorded, recorded.opened("S2"), *tapes.flow((0, "out", b"x"), at=recorded.at, session="S2"))
    late = tape(recorded, "S2", 1, seconds=-1)
    assert late.wrong == paging.LATE
    assert not late.ended


def test_who_looks_at_streams_is_recorded(recorded) -> None:
    write(recorded, recorded.opened("S2"), *tapes.flow((0, "out", b"x"), at=recorded.at, session="S2"))
    told = []
    asked = PagesAsked(recorded.recording, lambda name, detail: told.append((name, detail)))
    for after in (0, 5):
        asked.ask(AskRecording(1, TAPE, "local:eve", "S2", after, 1))
    asked.close()
    assert told == [("read", {"what": "streams", "by": "local:eve", "through": "web", "session": "S2"})]


@pytest.mark.parametrize("near", [0, 1, 5, 1 << 40])
def test_the_end_is_found_either_way(recorded, monkeypatch: pytest.MonkeyPatch, near: int) -> None:
    monkeypatch.setattr(paging, "NEAR", near)
    write(recorded, recorded.opened("S2"), *(recorded.intent(number, name) for number in range(1, 9)
                                             for name in ("S2", "S3")))
    assert [one.operation for one in page(recorded, LINES, "S2").lines] == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    middle = page(recorded, LINES, "S2").lines[4]
    assert [one.operation for one in page(recorded, LINES, "S2", middle.seq).lines] == [5, 6, 7, 8]


def test_over_files(recorded) -> None:
    write(recorded, recorded.opened("S2"), recorded.intent(1, "S2"))
    recorded.recorder._rotate()
    write(recorded, recorded.intent(2, "S2", text=b"SELECT 2"), recorded.closed("S2"))
    # The last but one is the gap: of neither operation is there a result.
    assert [one.operation for one in page(recorded, LINES, "S2").lines] == [0, 1, 2, 0, 0]
    assert [(one.session, one.operations, bool(one.closed)) for one in page(recorded, SESSIONS).sessions] == [
        ("S2", 2, True), ("S1", 2, True)]


def test_a_page_is_small_whatever_a_crew_sends(recorded) -> None:
    big = [recorded.intent(number, "S2", text=b"SELECT '%d" % number + b"\xff" * 90_000,
                           parameters=msgspec.msgpack.encode(["y" * 50_000] * 3), reason="z" * 20_000)
           for number in range(1, 120)]
    write(recorded, recorded.opened("S2", exe="/" + "e" * 5000, subject="s" * 5000), *big)
    recorded.turn(30)
    seen, after = 0, 0
    for _ in range(20):
        found = page(recorded, LINES, "S2", after)
        assert len(msgspec.msgpack.encode(found)) < PAGE
        seen, after = seen + len(found.lines), found.more
        if not after:
            break
    assert seen == 120
    assert "characters in all, cut here" in found.lines[-1].text
    assert len(msgspec.msgpack.encode(page(recorded, SESSIONS))) < PAGE


def test_what_is_too_long_is_not_even_read(recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "BLOB", 3)
    asked = page(recorded, LINES, "S1").lines[1]
    assert asked.text == "(too long for a page: weir replay shows it)"


def test_what_was_erased_is_gone_here_too(recorded) -> None:
    for db in [recorded.recorder._store._db]:
        db.execute("UPDATE blob SET body = NULL, salt = NULL WHERE id = (SELECT text FROM intent WHERE operation = 1)")
        db.commit()
    asked = page(recorded, LINES, "S1").lines[1]
    assert (asked.text, asked.erased) == ("", True)


def test_no_such_session(recorded) -> None:
    assert page(recorded, LINES, "S9") == LinesPage(wrong="no such session is recorded")


def test_history_of_a_subject(recorded) -> None:
    write(recorded, hold(recorded, "aaaaaaaa", "pending"), hold(recorded, "aaaaaaaa", "denied", by="local:eve"),
          hold(recorded, "bbbbbbbb", "pending", subject="local:eve"),
          events.Refused(events.REFUSED, recorded.at, 1, "crew", "local:zoë", 7, "", "192.0.2.1 22", "", "no rule", ()))
    found = page(recorded, HISTORY, "local:zoë")
    assert isinstance(found, HistoryPage)
    assert [(one.state, one.what, one.target, one.by) for one in found.pasts] == [
        ("refused", "connect", "192.0.2.1 22", ""), ("denied", "sql:delete public.orders", "orders", "local:eve")]
    assert found.sessions == 1


def test_history_says_who_let_through_what_was_used(recorded) -> None:
    write(recorded, hold(recorded, "aaaaaaaa", "pending"), hold(recorded, "aaaaaaaa", "pending", by="local:ann"),
          hold(recorded, "bbbbbbbb", "denied", by="local:cy"), hold(recorded, "aaaaaaaa", "approved", by="local:bob"),
          hold(recorded, "aaaaaaaa", "used"))
    found = page(recorded, HISTORY)
    assert isinstance(found, HistoryPage)
    assert [(one.state, one.by) for one in found.pasts] == [("used", "local:ann, local:bob"), ("denied", "local:cy")]


def test_history_of_everybody_in_pages(recorded) -> None:
    steps = []
    for number in range(30):
        steps += [hold(recorded, f"t{number:07d}", "pending"), hold(recorded, f"t{number:07d}", "approved")]
    steps += [hold(recorded, "t0000000", "used")]      # the oldest comes again last
    write(recorded, *steps)
    first = page(recorded, HISTORY)
    second = page(recorded, HISTORY, at=first.more)
    tickets = [one.ticket for one in (*first.pasts, *second.pasts)]
    assert len(first.pasts) == paged.PASTS
    assert len(tickets) == len(set(tickets)) == 30
    assert tickets[0] == "t0000000"
    assert second.more == 0


@pytest.mark.parametrize("what", [SESSIONS, LINES, HISTORY])
def test_a_page_whose_time_is_over_says_so(recorded, what: str) -> None:
    found = page(recorded, what, "S1" if what == LINES else "", seconds=0.0)
    assert found.wrong == paging.LATE


# Beside the recorder


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, os.dup(theirs.fileno())


def answers(recorder, ours: socket.socket, count: int) -> list[LedgerAnswer | RecordingAnswer]:
    found, data, until = [], b"", time.monotonic() + 20
    while len(found) < count and time.monotonic() < until:
        recorder.turn()
        try:
            data += ours.recv(1 << 20)
        except BlockingIOError:
            time.sleep(0.001)
        while len(data) >= HEADER.size and len(data) >= HEADER.size + HEADER.unpack_from(data)[0]:
            end = HEADER.size + HEADER.unpack_from(data)[0]
            found.append(parse_answer(data[HEADER.size:end]))
            data = data[end:]
    assert len(found) == count
    return found


def test_through_the_recorder_and_recorded(scene, ends) -> None:
    ours, theirs = ends
    recorder = scene.start(ledger=theirs)
    write(scene, scene.opened(), scene.intent(1))
    for number in (1, 2):             # once is enough for who looks on
        ours.sendall(render_frame(AskRecording(number, LINES, "keycloak:eve", "S1")))
        (answer,) = answers(recorder, ours, 1)
        assert isinstance(answer, RecordingAnswer)
        assert (answer.number, answer.wrong) == (number, "")
        assert len(msgspec.msgpack.decode(answer.content, type=LinesPage).lines) == 2
    details = [msgspec.json.decode(row[0]) for row in recorder._store._db.execute(
        "SELECT detail FROM recorder_event WHERE name = 'read'")]
    assert details == [{"what": "session", "by": "keycloak:eve", "through": "web", "session": "S1"}]
    scene.stop()


def test_the_ledger_does_not_wait_for_pages(scene, ends, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: object) -> SessionsPage:
        time.sleep(0.3)
        return SessionsPage()

    monkeypatch.setattr(asking, "make_page", slow)
    ours, theirs = ends
    recorder = scene.start(ledger=theirs)
    for number in range(PAGES + 2):
        ours.sendall(render_frame(AskRecording(number, SESSIONS, "keycloak:eve")))
    ours.sendall(render_frame(AskLedger(77, 1)))
    began = time.monotonic()
    write(scene, scene.opened(), scene.intent(1))
    assert time.monotonic() - began < 0.25, "the journal is taken meanwhile"
    found = answers(recorder, ours, PAGES + 3)
    assert isinstance(next(one for one in found if one.number == 77), LedgerAnswer)
    assert not isinstance(found[-1], LedgerAnswer), "it came before the last page"
    assert [one.wrong for one in found if isinstance(one, RecordingAnswer) and one.wrong] == [
        "too many ask for the recording: try again"] * 2
    scene.stop()


def test_a_broken_file_is_the_pages_trouble(scene, ends) -> None:
    ours, theirs = ends
    recorder = scene.start(ledger=theirs)
    (scene.recording / "recording-20200101T000000Z-0.sqlite").write_bytes(b"no database" * 1000)
    ours.sendall(render_frame(AskRecording(1, LINES, "keycloak:eve", "S9")))
    (answer,) = answers(recorder, ours, 1)
    assert isinstance(answer, RecordingAnswer)
    assert answer.wrong.startswith("it cannot be read: ")
    scene.stop()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_readers_leave_nothing_open(recorded) -> None:
    """SQLite keeps a descriptor of its own process's for the next one; it must be the same one each time, and a file
    that was read can be closed."""
    asked = PagesAsked(recorded.recording, lambda name, detail: None)

    def read() -> int:
        asked.ask(AskRecording(1, LINES, "keycloak:eve", "S1"))
        while (answer := asked.take()) is None:
            time.sleep(0.001)
        assert answer.wrong == ""
        return descriptors()

    known = [read() for _ in range(10)][-1]
    assert [read() for _ in range(20)][-1] <= known
    (first,) = recorded.recording.glob("*.sqlite")
    recorded.recorder._rotate()
    assert not first.with_name(first.name + "-wal").exists()
    assert first.read_bytes()[18:20] == b"\1\1", "one plain file"
    asked.close()
