"""DataRow rewriting: what is masked is replaced, the rest is as it was, what is malformed is refused."""
from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.hot.rows import Mask, rewrite

Values = list[bytes | None]


def row(values: Values) -> bytes:
    body = struct.pack("!H", len(values)) + b"".join(
        b"\xff\xff\xff\xff" if one is None else struct.pack("!I", len(one)) + one for one in values)
    return b"D" + struct.pack("!I", len(body) + 4) + body


MASKS: list[Mask | None] = [
    None, lambda value: b"hidden", lambda value: None, lambda value: b"", lambda value: value * 3]


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[Mask | None], list[Values]]:
    masks = draw(st.lists(st.sampled_from(MASKS), max_size=6))
    value = st.none() | st.binary(max_size=12)
    return masks, draw(st.lists(st.lists(value, min_size=len(masks), max_size=len(masks)), max_size=6))


@given(tables(), st.binary(max_size=9), st.binary(max_size=9))
def test_values_are_replaced(table: tuple[list[Mask | None], list[Values]], before: bytes, after: bytes) -> None:
    masks, rows = table
    data = before + b"".join(map(row, rows)) + after
    wanted = [[one if mask is None or one is None else mask(one) for one, mask in zip(values, masks, strict=True)]
              for values in rows]
    assert rewrite(data, len(before), len(data) - len(after), masks) == b"".join(map(row, wanted))


@given(tables(), st.integers(0, 200), st.integers(0, 255))
def test_a_damaged_row_is_refused_or_of_the_same_shape(
    table: tuple[list[Mask | None], list[Values]], at: int, byte: int
) -> None:
    masks, rows = table
    data = bytearray(b"".join(map(row, rows)))
    if not data:
        return
    data[at % len(data)] = byte
    found = rewrite(bytes(data), 0, len(data), masks)
    while found:
        size = 1 + struct.unpack_from("!I", found, 1)[0]
        assert struct.unpack_from("!H", found, 5)[0] == len(masks)
        assert size <= len(found)
        found = found[size:]


@pytest.mark.parametrize("values", [[], [b"a"], [b"a", b"b", b"c"], [None]])
def test_another_number_of_columns(values: Values) -> None:
    assert rewrite(row(values), 0, len(row(values)), [None, MASKS[1]]) is None


def test_every_truncation_is_refused() -> None:
    whole = row([b"one", None, b"three"])
    masks = [None, None, MASKS[1]]
    assert rewrite(whole, 0, len(whole), masks) == row([b"one", None, b"hidden"])
    for end in range(1, len(whole)):
        assert rewrite(whole[:end], 0, end, masks) is None
        assert rewrite(whole, 0, end, masks) is None


@pytest.mark.parametrize("length", [0xFFFFFFFE, 0x80000000, 0x7FFFFFFF, 6, 100])
def test_a_value_longer_than_its_row(length: int) -> None:
    body = struct.pack("!HI", 1, length) + b"12345"
    data = b"D" + struct.pack("!I", len(body) + 4) + body
    assert rewrite(data, 0, len(data), [MASKS[1]]) is None


def test_bytes_left_over() -> None:
    body = struct.pack("!HI", 1, 2) + b"12345"
    data = b"D" + struct.pack("!I", len(body) + 4) + body
    assert rewrite(data, 0, len(data), [MASKS[1]]) is None
