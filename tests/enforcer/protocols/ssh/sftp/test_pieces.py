from __future__ import annotations

from filedesk import digest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.protocols.ssh.sftp.pieces import HANDLE_LIMIT, SESSION_LIMIT, Pieces, Room


def make(room: Room | None = None) -> tuple[Pieces, list[bytes]]:
    got: list[bytes] = []
    return Pieces(room or Room(), got.append), got


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=20), st.integers(0, 1 << 40), st.randoms())
def test_any_order_becomes_that_of_the_file(parts: list[bytes], begin: int, random: object) -> None:
    pieces, got = make()
    pieces.start(begin)
    offsets = [begin + sum(map(len, parts[:index])) for index in range(len(parts))]
    both = list(zip(offsets, parts, strict=True))
    random.shuffle(both)  # type: ignore[attr-defined]
    for offset, data in both:
        pieces.add(offset, data)
    pieces.end()
    assert b"".join(got) == b"".join(parts)
    assert pieces.ordered
    where = f" from {begin}" if begin else ""
    content = b"".join(parts)
    assert pieces.tag("read") == (f"read {len(content)} bytes{where} sha256={digest(content)}" if parts else "")


@given(st.lists(st.tuples(st.integers(0, 30), st.binary(max_size=9)), max_size=20))
def test_nothing_is_lost_whatever_the_offsets(parts: list[tuple[int, bytes]]) -> None:
    room = Room()
    pieces, got = make(room)
    for offset, data in parts:
        pieces.add(offset, data)
    pieces.end()
    assert sorted(b"".join(got)) == sorted(b"".join(data for _, data in parts))
    assert room.left == SESSION_LIMIT
    assert pieces.tag("x") == "" or digest(b"".join(got)) in pieces.tag("x")


def test_a_hole_and_what_comes_twice_are_not_in_order() -> None:
    for second in (5, 0, 3):
        pieces, got = make()
        pieces.add(0, b"abcd")
        pieces.add(second, b"efgh")
        pieces.end()
        assert b"".join(got) == b"abcdefgh"
        assert pieces.tag("wrote") == f"wrote 8 bytes not in order sha256={digest(b'abcdefgh')}"


def test_what_waits_is_bounded() -> None:
    room = Room()
    block = bytes(1 << 20)
    handles = [make(room) for _ in range(5)]
    for pieces, got in handles[:4]:
        pieces.start(0)
        for index in range(1, HANDLE_LIMIT // len(block) + 1):
            pieces.add(index * len(block), block)
        assert not got
    assert room.left == 0
    pieces, got = handles[4]
    pieces.start(0)
    pieces.add(10, b"no room")
    assert (got, pieces.ordered) == ([b"no room"], False)
    pieces, got = handles[0]
    pieces.add(10 * len(block), block)
    assert (len(got), pieces.ordered) == (5, False)
    assert room.left == HANDLE_LIMIT
    pieces, got = handles[1]
    pieces.add(0, block)
    assert (len(got), pieces.ordered) == (5, True)
