"""Sizes of a terminal."""
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.protocols.kubernetes.streams.sizes import Size, Sizes
from enforcer.words.errors import ProtocolError, RemoteProtocolError

TWO = b'{"Width":80,"Height":24}\n {"height": 50, "width":200}'


@pytest.mark.parametrize("cut", [1, 2, 5, 100])
def test_however_they_are_cut(cut: int) -> None:
    sizes = Sizes()
    found = [one for at in range(0, len(TWO), cut) for one in sizes.feed(TWO[at:at + cut])]
    assert found == [Size(80, 24), Size(200, 50)]
    assert found[0].text == b"80x24"
    assert found[0].render() == b'{"Width":80,"Height":24}\n'


@pytest.mark.parametrize("wrong", [
    b"}", b'{"Width":-1}', b'{"Width":65536}', b'{"Width":"80"}', b'{"Width":1.5}', b'{"Width":true}', b'{"Width":{}}',
    b"[1]}", b" " * 300 + b"x" * 300, b"{" * 300, b'{"Width":' + b"9" * 300 + b"}", b"\xff}",
])
def test_what_is_none(wrong: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        list(Sizes().feed(wrong))


@given(st.binary(max_size=300))
def test_garbage(data: bytes) -> None:
    try:
        list(Sizes().feed(data))
    except ProtocolError:
        pass
