"""Windows of one channel: never more than was granted, either way; ends behind what waits; a bound on what is kept."""
from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sshtalk import shape

from enforcer.protocols.ssh.channels import flow
from enforcer.protocols.ssh.channels.flow import Half
from enforcer.protocols.ssh.messages import DATA, EXTENDED_DATA, Fields
from enforcer.words.commands import CLIENT
from enforcer.words.errors import RemoteProtocolError

MOST = (1 << 32) - 1


class End:
    """Who is sent to."""

    def __init__(self, window: int = 1000, packet: int = 1 << 15) -> None:
        self.raw: list[bytes] = []
        self.half = Half(CLIENT, 0, lambda peer, message: self.raw.append(message))
        self.half.confirm(7, window, packet)

    def heard(self) -> list[str]:
        found, self.raw = [shape(one) for one in self.raw], []
        return found

    def text(self, kind: int = 0) -> bytes:
        found = b""
        for one in self.raw:
            fields = Fields(one, 5)
            if one[0] == DATA and not kind:
                found += fields.string()
            elif one[0] == EXTENDED_DATA and fields.number() == kind:
                found += fields.string()
        return found


def test_what_fits_goes_at_once() -> None:
    end = End()
    end.half.put(b"ab")
    end.half.put(b"cd", 1)
    assert end.heard() == ["data 7 ab", "error 7 cd"]
    assert end.half.window == 996


def test_what_does_not_fit_waits_for_the_window() -> None:
    end = End(window=3)
    end.half.put(b"abcde")
    end.half.put(b"fg", 1)
    assert end.heard() == ["data 7 abc"]
    assert end.half.queued == 4
    end.half.adjust(1)
    assert end.heard() == ["data 7 d"]
    end.half.adjust(100)
    assert end.heard() == ["data 7 e", "error 7 fg"]
    assert end.half.queued == 0


def test_pieces_are_as_small_as_the_peer_wants_them() -> None:
    end = End(window=1 << 20, packet=300)
    end.half.put(b"x" * 700)
    assert [len(Fields(one, 5).string()) for one in end.raw] == [300, 300, 100]
    end = End(window=1 << 30, packet=MOST)
    end.half.put(b"x" * (100 << 10))
    assert max(len(Fields(one, 5).string()) for one in end.raw) == flow.PACKET


def test_ends_stand_behind_what_waits() -> None:
    end = End(window=0)
    end.half.put(b"abc")
    end.half.end()
    end.half.close()
    assert end.heard() == []
    assert not end.half.over
    end.half.adjust(2)
    assert end.heard() == ["data 7 ab"]
    end.half.adjust(1)
    assert end.heard() == ["data 7 c", "eof 7", "close 7"]
    end.half.closed = True
    assert end.half.over


def test_each_end_is_said_once_and_nothing_after_it() -> None:
    end = End()
    end.half.end()
    end.half.end()
    end.half.put(b"late")
    end.half.close()
    end.half.close()
    end.half.drop()
    end.half.end()
    end.half.put(b"later")
    end.half.give_back(1 << 20, True)
    assert end.heard() == ["eof 7", "close 7"]


def test_a_close_at_once_leaves_nothing_behind() -> None:
    end = End(window=0)
    end.half.put(b"abc")
    end.half.drop()
    assert end.heard() == ["close 7"]
    assert end.half.queued == 0
    end.half.adjust(10)
    assert end.heard() == []


def test_more_than_was_granted() -> None:
    half = End().half
    half.took(flow.WINDOW - 1)
    half.took(1)
    with pytest.raises(RemoteProtocolError):
        half.took(1)


def test_data_after_the_end() -> None:
    for name in ("ended", "closed"):
        half = End().half
        setattr(half, name, True)
        with pytest.raises(RemoteProtocolError):
            half.took(0)


def test_a_window_of_more_than_32_bits() -> None:
    end = End(window=MOST - 5)
    end.half.adjust(5)
    with pytest.raises(RemoteProtocolError):
        end.half.adjust(1)


@pytest.mark.parametrize("packet", [0, 1, flow.LEAST - 1])
def test_who_takes_nothing_or_next_to_nothing_at_a_time(packet: int) -> None:
    """A message for each byte of a window costs Weir seconds."""
    with pytest.raises(RemoteProtocolError):
        End(packet=packet)
    End(packet=flow.LEAST)


def test_window_is_given_back_in_shares_and_once() -> None:
    end = End()
    end.half.took(flow.SHARE)
    end.half.give_back(flow.SHARE - 1, True)
    assert end.heard() == []
    end.half.give_back(1, False)
    assert end.heard() == []
    end.half.give_back(0, True)
    assert end.heard() == [f"adjust 7 {flow.SHARE}"]
    assert end.half.granted == flow.WINDOW
    end.half.give_back(0, True)
    assert end.heard() == []


@pytest.mark.parametrize("kinds", [(0,), (1,), (0, 1)])
def test_what_is_kept_of_tiny_pieces_is_bounded(kinds: tuple[int, ...]) -> None:
    """A window's worth of bytes, one at a time, towards somebody who reads nothing."""
    end = End(window=0)
    count = 200_000
    for index in range(count):
        end.half.put(b"%d" % (index % 10), kinds[index % len(kinds)])
    kept = sum(sys.getsizeof(one) + sys.getsizeof(one[1]) + 8 for one in end.half.queue)
    assert kept < 3 * count
    end.half.adjust(count)
    written = b"".join(b"%d" % (index % 10) for index in range(count))
    assert [end.text(kind) for kind in kinds] == [written[place::len(kinds)] for place in range(len(kinds))]


def test_nothing_is_kept_of_nothing() -> None:
    end = End(window=0)
    end.half.put(b"a")
    for _ in range(1000):
        end.half.put(b"")
    assert len(end.half.queue) == 1
    end = End()
    end.half.put(b"")
    assert end.heard() == []


@settings(max_examples=300)
@given(st.lists(st.one_of(
    st.tuples(st.just("put"), st.integers(0, 900), st.sampled_from([0, 1])),
    st.tuples(st.just("adjust"), st.integers(0, 1500), st.just(0)),
    st.tuples(st.just("end"), st.just(0), st.just(0)),
    st.tuples(st.just("close"), st.just(0), st.just(0)),
), max_size=40), st.integers(0, 1000), st.integers(flow.LEAST, 600))
def test_never_more_than_granted_and_in_order(
    steps: list[tuple[str, int, int]], window: int, packet: int,
) -> None:
    end, granted = End(window, packet), window
    wanted = {0: b"", 1: b""}
    open_ = True
    for name, size, kind in steps:
        if name == "put":
            text = bytes((len(wanted[kind]) + at) % 251 for at in range(size))
            end.half.put(text, kind)
            if open_:
                wanted[kind] += text
        elif name == "adjust":
            end.half.adjust(size)
            granted += size
        else:
            (end.half.end if name == "end" else end.half.close)()
            open_ = False
        sent = len(end.text()) + len(end.text(1))
        assert sent <= granted
        assert sent + end.half.queued == len(wanted[0]) + len(wanted[1])
        assert end.half.queued == 0 or end.half.window == 0
    end.half.adjust(100_000)
    assert {0: end.text(), 1: end.text(1)} == wanted
    told = [shape(one).split()[0] for one in end.raw]
    assert told.count("eof") <= 1
    assert told.count("close") <= 1
    if "close" in told:
        assert told[-1] == "close"
