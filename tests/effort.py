"""How much work something is: processor time in units that a busy or slow machine makes longer too."""
from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager


def _loop() -> float:
    began = time.process_time()
    for number in range(1_000_000):
        number * number
    return time.process_time() - began


@contextmanager
def at_most(loops: float) -> Iterator[None]:
    """The block is no more work than so many times a loop of a million steps (some 30 ms), which is measured before it
    and behind it.  What all the tests before have left in memory is not collected again and again meanwhile."""
    gc.collect()
    gc.freeze()
    try:
        before, began = _loop(), time.process_time()
        yield
        spent = time.process_time() - began
    finally:
        gc.unfreeze()
    unit = max(before, _loop())
    assert spent < loops * unit, f"{spent / unit:.0f} loops of {unit * 1000:.0f} ms, at most {loops:.0f}"
