"""Framing: the same messages however the bytes are cut; nothing is lost, invented or kept beyond its bound."""
from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.hot.wire import HEADER, SIZE_LIMIT, Framing

KINDS = b"DQTdZ"
LIMIT = 300

messages = st.lists(st.tuples(st.sampled_from(KINDS), st.binary(max_size=40)), max_size=30)
cuts = st.lists(st.integers(1, 60), min_size=1, max_size=40)


def render(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + struct.pack("!I", len(body) + 4) + body


def pieces(stream: bytes, sizes: list[int]) -> list[bytes]:
    found, at, turn = [], 0, 0
    while at < len(stream):
        found.append(stream[at:at + sizes[turn % len(sizes)]])
        at += sizes[turn % len(sizes)]
        turn += 1
    return found


def read(framing: Framing, parts: list[bytes], whole: bytes = b"") -> tuple[list[tuple[int, bytes]], int]:
    """(kind, bytes) of each message, pieces of one put together, and the sum of the counts.  Streamed kinds that are in
    `whole` are taken back and gathered."""
    found: list[tuple[int, bytes]] = []
    counted, owing = 0, False
    for part in parts:
        data, places = framing.feed(part)
        for i in range(0, len(places), 4):
            kind, start, end, count = places[i:i + 4]
            if whole and kind in whole and framing.owed and end == len(data) and count:
                framing.give_back(data)
                end, count = framing.tail, count - 1
                if end <= start:
                    continue
            counted += count
            if owing and i == 0 and count == 0:
                found[-1] = kind, found[-1][1] + data[start:end]
                continue
            at = start
            while at < end:
                size = 1 + struct.unpack_from("!I", data, at + 1)[0]
                found.append((kind, data[at:min(at + size, end)]))
                at += size
        owing = framing.owed > 0
    return found, counted


@given(messages, cuts, st.sampled_from([b"", b"D", b"Dd"]))
def test_cut_anywhere(sent: list[tuple[int, bytes]], sizes: list[int], streamed: bytes) -> None:
    stream = b"".join(render(*one) for one in sent)
    framing = Framing(LIMIT, streamed, KINDS)
    found, counted = read(framing, pieces(stream, sizes))
    assert framing.error == ""
    assert found == [(kind, render(kind, body)) for kind, body in sent]
    assert counted == len(sent)
    assert framing.waiting == 0
    assert framing.owed == 0


@given(messages, cuts)
def test_what_is_streamed_can_be_taken_back(sent: list[tuple[int, bytes]], sizes: list[int]) -> None:
    stream = b"".join(render(*one) for one in sent)
    found, counted = read(Framing(LIMIT, b"D", KINDS), pieces(stream, sizes), b"D")
    assert found == [(kind, render(kind, body)) for kind, body in sent]
    assert counted == len(sent)


@pytest.mark.parametrize("streamed", [b"", b"D"])
def test_every_cut_of_a_conversation(streamed: bytes) -> None:
    sent = [(0x51, b"SELECT\0"), (0x44, b"a" * 9), (0x44, b""), (0x44, b"b"), (0x5A, b"I"), (0x64, b"x" * 20)]
    stream = b"".join(render(*one) for one in sent)
    for at in range(len(stream) + 1):
        found, counted = read(Framing(LIMIT, streamed, KINDS), [p for p in (stream[:at], stream[at:]) if p])
        assert [kind for kind, _ in found] == [kind for kind, _ in sent], at
        assert counted == len(sent)
        kept = Framing(LIMIT, streamed, KINDS)
        read(kept, [stream[:at]] if at else [])
        assert kept.waiting < len(stream)


@given(st.binary(max_size=200), cuts)
def test_garbage_gives_an_error_or_waits_within_bounds(garbage: bytes, sizes: list[int]) -> None:
    framing = Framing(LIMIT, b"D", KINDS)
    read(framing, pieces(garbage, sizes))
    assert framing.waiting <= LIMIT + HEADER


@pytest.mark.parametrize("length", [0, 1, 3, SIZE_LIMIT + 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
@pytest.mark.parametrize("kind", [0x51, 0x44])
@pytest.mark.parametrize("cut", [1, 5, 100])
def test_lengths_that_cannot_be(length: int, kind: int, cut: int) -> None:
    framing = Framing(LIMIT, b"D", KINDS)
    for part in pieces(bytes([kind]) + struct.pack("!I", length) + b"x" * 50, [cut]):
        framing.feed(part)
    assert framing.error
    assert framing.feed(render(0x51, b"")) == (render(0x51, b""), [])


@pytest.mark.parametrize("cut", [1, 5, 1000])
def test_the_bound_is_to_the_byte(cut: int) -> None:
    for extra in (0, 1):
        framing = Framing(LIMIT, b"", KINDS)
        found, _ = read(framing, pieces(render(0x51, b"x" * (LIMIT - HEADER + extra)), [cut]))
        assert bool(found) is (extra == 0)
        assert bool(framing.error) is (extra == 1)
        assert framing.waiting <= LIMIT


def test_a_kind_that_is_not_known() -> None:
    for kind in set(range(256)) - set(KINDS):
        framing = Framing(LIMIT, b"D", KINDS)
        assert framing.feed(render(0x51, b"a") + render(kind, b""))[1] == [0x51, 0, 6, 1]
        assert framing.error


def test_a_large_message_is_given_in_pieces_and_not_kept() -> None:
    framing = Framing(LIMIT, b"D", KINDS)
    framing.feed(b"D" + struct.pack("!I", SIZE_LIMIT))
    for _ in range(100):
        assert framing.waiting == 0
        framing.feed(b"x" * 10_000)
    assert framing.owed == SIZE_LIMIT + 1 - 5 - 1_000_000
