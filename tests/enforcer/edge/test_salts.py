"""Salts are given once, whatever sizes are asked for."""
from __future__ import annotations

import pytest

from enforcer.edge.salts import PAGE, Salts


def test_no_byte_is_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[bytes] = []

    def urandom(size: int) -> bytes:
        given.append(b"".join(b"%08d" % (len(given) * 100_000 + at) for at in range(size // 8 + 1))[:size])
        return given[-1]

    monkeypatch.setattr("os.urandom", urandom)
    salts = Salts()
    taken = [salts.take(size) for size in (16, 4080, 8, 16, 4096, 8000) + (16,) * 600]
    assert [len(one) for one in taken] == [16, 4080, 8, 16, 4096, 8000] + [16] * 600
    eights = [one[at:at + 8] for one in taken for at in range(0, len(one) - 7, 8)]
    assert len(set(eights)) == len(eights)
    assert len(given) < 10                     # by the page, not each by itself
    assert salts.take(PAGE + 1) == given[-1]


def test_they_are_the_kernels() -> None:
    salts = Salts()
    assert len({salts.take(16) for _ in range(10_000)}) == 10_000
