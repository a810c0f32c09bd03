"""What the recorder tells the agent of the ledger: from what is committed, over restarts, rotations and builds."""
from __future__ import annotations

import os
import socket
import sqlite3
from contextlib import closing

import msgspec
import pytest

from agent.contract.journal import EVENT, HostEvent, render_host_event, render_record
from agent.contract.ledger import (
    ACKNOWLEDGED,
    CONNECT,
    FOREIGN,
    HEADER,
    AskLedger,
    LedgerAnswer,
    parse_answer,
    render_frame,
)
from enforcer.recording import answering, read, schema
from enforcer.recording.recorder import _is_form
from enforcer.words import events


def connect(scene, *cookies: int) -> None:
    path = scene.journal / f"agent-{os.urandom(8).hex()}-0.journal"
    detail = {"verdict": "redirected", "pid": "7", "destination": "192.0.2.4 5432"}
    path.write_bytes(b"".join(render_host_event(HostEvent(
        20, scene.at, 1, CONNECT, "crew", {**detail, "cookie": f"{one:x}"})) for one in cookies))


def said(scene, name: str, detail: dict[str, str]) -> None:
    path = scene.journal / f"agent-{os.urandom(8).hex()}-0.journal"
    path.write_bytes(render_host_event(HostEvent(20, scene.at, 1, name, "crew", detail)))


def refuse(scene, cookie: int) -> None:
    writer = scene.writer()
    writer.append(events.Refused(events.REFUSED, scene.at, 1, "crew", "", 7, "", "x 1", "", "no", (), cookie))
    writer.flush()


def turn(recorder) -> None:
    recorder._due.update(look=0.0)
    recorder.turn()


def ask(recorder, ours: socket.socket, number: int = 1) -> LedgerAnswer:
    ours.sendall(render_frame(AskLedger(number, 1 << 62)))
    data = b""
    for _ in range(10_000):
        turn(recorder)
        try:
            data += ours.recv(1 << 20)
        except BlockingIOError:
            continue
        if len(data) >= HEADER.size and len(data) == HEADER.size + HEADER.unpack_from(data)[0]:
            return parse_answer(data[HEADER.size:])
    raise AssertionError("no answer")


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, os.dup(theirs.fileno())


def test_what_is_open_and_what_is_accounted_for(scene, ends) -> None:
    ours, theirs = ends
    connect(scene, 1, 2, 3)
    refuse(scene, 2)
    recorder = scene.start(ledger=theirs)
    turn(recorder)
    answer = ask(recorder, ours)
    assert [one.cookie for one in answer.open] == [1, 3]
    assert (answer.number, answer.waiting, answer.counts) == (1, 2, {"refused": 1})
    assert answer.taken
    for name, taken in answer.taken.items():
        assert taken == (scene.journal / name).stat().st_size
    recorder._door.close()


def test_gaps_are_counted(scene, ends) -> None:
    """The enforcer's own, and those that the recorder has found."""
    ours, theirs = ends
    writer = scene.writer()
    recorder = scene.start(ledger=theirs)
    writer.append(scene.opened())
    for number in (1, 2):
        writer.append(*scene.intent(number))
    writer.append(events.Gap(events.GAP, scene.at, 1, "S1", (1,), "client closed"))
    writer.append(scene.closed())
    writer.flush()
    turn(recorder)
    assert ask(recorder, ours).gaps == 2
    recorder._door.close()


def test_the_next_recorder_knows_what_is_open(scene, ends) -> None:
    connect(scene, 1, 2)
    recorder = scene.start()
    turn(recorder)
    scene.stop()
    ours, theirs = ends
    refuse(scene, 1)
    recorder = scene.start(ledger=theirs)
    turn(recorder)
    answer = ask(recorder, ours)
    assert [(one.cookie, one.monotonic) for one in answer.open] == [(2, 0)]
    assert answer.counts == {"refused": 1}, "since its start"
    recorder._door.close()


def test_the_next_recorder_follows_no_connect_whose_account_it_does_not_see(
    scene, ends, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The enforcer's event was recorded first, and lies before what is looked at: kill -9 of a recorder that had much
    behind it made a hundred alarms of connects that were all accounted for."""
    monkeypatch.setattr(read, "RECENT", 38)
    recorder = scene.start()
    for cookie in range(100, 110):
        refuse(scene, cookie)
    turn(recorder)
    connect(scene, *range(100, 140))
    turn(recorder)
    scene.kill()
    ours, theirs = ends
    recorder = scene.start(ledger=theirs)
    turn(recorder)
    found = {one.cookie for one in ask(recorder, ours).open}
    assert found.isdisjoint(range(100, 110))
    assert found > set(range(120, 140)), "a quarter of what is looked at is left out at most"
    recorder._door.close()


@pytest.mark.parametrize("acknowledged", [False, True])
def test_an_alarm_stands_over_restarts_however_long_ago_it_was(
    scene, ends, monkeypatch: pytest.MonkeyPatch, acknowledged: bool,
) -> None:
    monkeypatch.setattr(read, "RECENT", 5)
    recorder = scene.start()
    said(scene, FOREIGN, {"pid": "7"})
    turn(recorder)
    if acknowledged:
        said(scene, ACKNOWLEDGED, {"by": "root"})
        turn(recorder)
    recorder._rotate()
    for number in range(3):
        connect(scene, *range(100 * number, 100 * number + 20))
        turn(recorder)
        recorder._rotate()
    scene.stop()
    older = sqlite3.connect(scene.files()[0])
    older.executescript("DROP VIEW holds; ALTER TABLE hold DROP COLUMN note")      # of an earlier build
    older.close()
    ours, theirs = ends
    recorder = scene.start(ledger=theirs)
    turn(recorder)
    assert [one.name for one in ask(recorder, ours).alarms] == ([] if acknowledged else [FOREIGN])
    recorder._door.close()


def test_many_are_answered_piece_by_piece(scene, ends) -> None:
    """The socket takes less than an answer: nothing waits for it."""
    ours, theirs = ends
    connect(scene, *range(1, 10_001))
    recorder = scene.start(ledger=theirs)
    turn(recorder)
    answer = ask(recorder, ours)
    assert (len(answer.open), answer.waiting) == (10_000, 10_000)
    recorder._door.close()


def test_an_agent_that_is_gone_stops_nothing(scene, ends) -> None:
    ours, theirs = ends
    recorder = scene.start(ledger=theirs)
    ours.close()
    turn(recorder)
    connect(scene, 1)
    turn(recorder)
    assert scene.rows("SELECT count(*) FROM host_event") == [(1,)]
    recorder._door.close()


@pytest.mark.parametrize("sent", [HEADER.pack(answering.QUESTION + 1), render_record(EVENT, b"")[:9] + bytes(300),
                                  HEADER.pack(3) + b"abc"])
def test_what_is_no_question_ends_it(ends, sent: bytes) -> None:
    ours, theirs = ends
    door = answering.Door(theirs, lambda question: pytest.fail("it was asked"))
    ours.sendall(sent)
    with pytest.raises(OSError):
        for _ in range(10):
            door.turn()
    door.close()


def test_a_file_of_an_earlier_build_is_closed_and_another_begun(scene) -> None:
    recorder = scene.start()
    scene.stop()
    [path] = scene.files()
    db = sqlite3.connect(path)
    db.execute("DROP TABLE refused")
    db.execute(next(one for one in schema.SCHEMA if one.startswith("CREATE TABLE refused")).replace(
        ", cookie INTEGER", ""))
    db.execute("DROP TABLE flow_opened")
    db.execute(next(one for one in schema.SCHEMA if one.startswith("CREATE TABLE flow_opened")).replace(
        ", cookie INTEGER", ""))
    db.execute("CREATE INDEX flow_opened_flow ON flow_opened (flow)")
    db.execute("DROP VIEW operations")
    db.execute(next(one for one in schema.SCHEMA if one.startswith("CREATE VIEW operations")).replace(
        ",\n  i.reported", ""))
    db.execute("DROP TABLE intent")
    db.execute(next(one for one in schema.SCHEMA if one.startswith("CREATE TABLE intent")).replace(
        ", reported TEXT", ""))
    db.execute("CREATE INDEX intent_operation ON intent (session, operation)")
    db.execute("DROP VIEW flow_notes")
    db.execute("DROP TABLE flow_noted")
    db.execute("UPDATE file SET closed = NULL")
    db.commit()
    db.close()
    refuse(scene, 5)
    recorder = scene.start()
    turn(recorder)
    scene.stop()
    assert len(scene.files()) == 2
    with closing(sqlite3.connect(scene.files()[1])) as db:
        assert db.execute("SELECT cookie FROM refused").fetchall() == [(5,)]
    report = scene.verify()
    assert report.problems == []


def test_an_event_of_an_earlier_build_is_taken() -> None:
    event = events.Refused(events.REFUSED, 1, 1, "crew", "", 7, "", "x 1", "", "no", (), 0)
    render = msgspec.msgpack.Encoder().encode
    shorter = render(msgspec.structs.astuple(event)[:-1])
    read = msgspec.msgpack.decode(shorter, type=events.Refused)
    assert read == event
    assert _is_form(read, shorter)
    assert _is_form(event, render(event))
    assert not _is_form(event, render(msgspec.structs.astuple(event)[:-2]))
    assert not _is_form(msgspec.structs.replace(event, cookie=5), shorter)
