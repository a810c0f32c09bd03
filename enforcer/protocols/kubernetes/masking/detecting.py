"""Detectors over values, each for itself: what begins in one says nothing of the next."""
from __future__ import annotations

from typing import Final

from enforcer.policy.detectors import make_detectors
from enforcer.policy.stream_masks import StreamMask
from enforcer.policy.visible import has_controls

LEAST: Final = 6                      # bytes of the shortest that any detector finds: ://:x@


def detect(labels: frozenset[str], value: bytes) -> bytes:
    """Of the same length.  What holds nothing is told without a stream's cost."""
    if len(value) < LEAST or not labels:
        return value
    detectors = make_detectors(labels)
    if not has_controls(value) and not detectors.suspects(value) and not detectors.tail(value):
        return value
    mask = StreamMask(labels)
    return mask.feed(value) + mask.flush()


def detect_text(labels: frozenset[str], value: str) -> str:
    return detect(labels, value.encode("utf-8", "replace")).decode("utf-8", "replace")
