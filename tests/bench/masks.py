"""Megabytes of streams that masks take in a second of processor time, in pieces of 64 KiB:

    PYTHONPATH=tests:. python -P -m bench.masks

Beside each stands how often as long a plain copy of the same bytes takes: the machine's mood is in both.
"""
from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable

from secrets_of_nobody import make_secret

from enforcer.policy.detectors import LABELS
from enforcer.policy.stream_masks import StreamMask

PIECE = 64 << 10
SIZE = 4 << 20
ALL = frozenset(LABELS.values())
LOG = b"2026-11-28 12:00:01,123 INFO app.server 10.0.0.1:5432 GET /api/v1/items?id=123456 200 0.0123 took 17 ms\n"
PROSE = b"Every connection that a crew process opens goes through one enforcer on the same host.\nIt decides.\n"
COLOURED = b"\x1b[32mINFO\x1b[0m 12:00:01 request /api/items done in 17 ms\r\n"
KINDS = {
    "random": lambda: random.Random(1).randbytes(SIZE),
    "text": lambda: PROSE * (SIZE // len(PROSE)),
    "log": lambda: LOG * (SIZE // len(LOG)),
    "coloured": lambda: COLOURED * (SIZE // len(COLOURED)),
    "a secret in 10 kB": lambda: b"".join(LOG * 90 + make_secret(at)[1] + b"\n" for at in range(SIZE // 10_000)),
}


def seconds(work: Callable[[bytes], object], data: bytes) -> float:
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        for at in range(0, len(data), PIECE):
            work(data[at:at + PIECE])
        best = min(best, time.process_time() - began)
    return best


def main() -> int:
    for name, make in KINDS.items():
        data = make()
        copy = seconds(bytearray, data)
        for how, columns, everything in (("", 0, ""), ("on a terminal", 80, ""), ("all of it", 0, "secret")):
            taken = seconds(StreamMask(ALL, everything, columns).feed, data)
            print(f"{name:>18} {how:14} {len(data) / taken / 1e6:8.0f} MB/s {taken / copy:8.1f} copies")
    return 0


if __name__ == "__main__":
    sys.exit(main())
