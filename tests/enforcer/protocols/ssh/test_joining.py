"""Pieces as fewer: nothing is lost, and a record stands before its bytes."""
from __future__ import annotations

import random

from enforcer.hot.chain import make_digest
from enforcer.protocols.ssh.joining import join
from enforcer.words import events
from enforcer.words.commands import CLIENT, SERVER, CloseConnection, Command, Record, SendData

SALT = b"s" * 16


def piece(stream: str, offset: int, content: bytes, operation: int = 2) -> Record:
    digest = make_digest(SALT, content)
    return Record(events.Streamed(events.STREAMED, 1, offset, "S", operation, stream, offset, len(content), digest),
                  ((digest, SALT, content),), stream == "in")


def pieces(commands: list[Command]) -> list[tuple[int, str, int, bytes]]:
    found = []
    for one in commands:
        if isinstance(one, Record) and one.blobs:
            event, ((digest, salt, content),) = one.event, one.blobs
            assert event.content == digest == make_digest(salt, content)
            assert event.bytes == len(content) <= events.PIECE
            found.append((event.operation, event.stream, event.offset, content))
    return found


def test_answers_stay_apart_from_what_is_asked() -> None:
    """The edge counts them."""
    said: list[Command] = [SendData(SERVER, b"a"), SendData(SERVER, b"b", True), SendData(SERVER, b"c", True)]
    assert join(said) == [SendData(SERVER, b"a"), SendData(SERVER, b"bc", True)]


def test_a_message_for_each_byte_is_one_event_and_one_write() -> None:
    said: list[Command] = []
    for at in range(100):
        said += [piece("in", at, b"%d" % (at % 10)), SendData(SERVER, b"%d" % (at % 10))]
    record, sent = join(said)
    assert pieces([record]) == [(2, "in", 0, b"0123456789" * 10)]
    assert sent == SendData(SERVER, b"0123456789" * 10)
    assert record.barrier


def test_what_does_not_follow_stands_alone() -> None:
    other = [piece("in", 0, b"a"), piece("in", 2, b"c"), piece("out", 3, b"d"), piece("out", 4, b"e", 3)]
    assert join(other) == other
    ended = Record(events.StreamEnded(events.STREAM_ENDED, 1, 1, "S", 2, "in", 1, 1, b""))
    apart = [piece("in", 0, b"a"), ended, piece("in", 1, b"b")]
    assert join(apart) == apart
    typed = Record(events.Streamed(events.STREAMED, 1, 1, "S", 2, events.TYPED, 1, 5, b""), (), True)
    assert len(join([piece("in", 0, b"a"), typed, piece("in", 1, b"b")])) == 3


def test_no_piece_is_longer_than_one_may_be() -> None:
    said = [piece("out", at << 14, bytes(1 << 14)) for at in range(9)]
    assert [len(content) for *_, content in pieces(join(said))] == [events.PIECE, events.PIECE, 1 << 14]


def test_whatever_is_said_nothing_is_lost_and_each_byte_stands_behind_its_record() -> None:
    for seed in range(300):
        chance, offsets, said = random.Random(seed), {}, []
        for _ in range(chance.randrange(30)):
            what = chance.choice(("in", "out", "close", "data"))
            if what == "close":
                said.append(CloseConnection(CLIENT, "x"))
            elif what == "data":
                said.append(SendData(chance.choice((CLIENT, SERVER)), b"-"))
            else:
                place = chance.choice((1, 2)), what
                content = chance.randbytes(chance.randrange(1, 4)).replace(b"-", b"+")
                said += [piece(what, offsets.get(place, 0), content, place[0]),
                         SendData(SERVER if what == "in" else CLIENT, content)]
                offsets[place] = offsets.get(place, 0) + len(content)
        joined = join(said)
        for peer, stream in ((SERVER, "in"), (CLIENT, "out")):
            assert _sent(joined, peer) == _sent(said, peer)
            recorded = sent = 0
            for one in joined:
                if isinstance(one, Record) and one.event.stream == stream:
                    recorded += one.event.bytes
                elif isinstance(one, SendData) and one.peer == peer:
                    sent += len(one.data.replace(b"-", b""))
                assert sent <= recorded
        for place in offsets:
            mine = [one for one in pieces(joined) if one[:2] == place]
            assert [one[2] for one in mine] == [sum(len(one[3]) for one in mine[:at]) for at in range(len(mine))]
            assert b"".join(one[3] for one in mine) == b"".join(one[3] for one in pieces(said) if one[:2] == place)


def _sent(commands: list[Command], peer: int) -> bytes:
    return b"".join(one.data for one in commands if isinstance(one, SendData) and one.peer == peer)
