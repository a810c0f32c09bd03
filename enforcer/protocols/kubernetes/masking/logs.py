"""What containers print: masks of the same length, whatever the cuts."""
from __future__ import annotations

from enforcer.policy.stream_masks import StreamMask


class LogMasker:
    """`labels`: of detectors."""

    def __init__(self, labels: frozenset[str]) -> None:
        self._mask = StreamMask(labels)

    def feed(self, data: bytes) -> bytes:
        return self._mask.feed(data)

    def end(self) -> bytes:
        return self._mask.flush()
