"""Detectors over values, each for itself: what begins in one says nothing of the next."""
from __future__ import annotations

import re
from typing import Final

from enforcer.policy.detectors import make_detectors
from enforcer.policy.masks import REDACTED
from enforcer.policy.stream_masks import StreamMask
from enforcer.policy.visible import has_controls

PATIENCE: Final = 4000                # with values of one object in which a head stands: each takes one of it,
DEAR: Final = 20                      # and so many where something may be found
LEAST: Final = 6                      # bytes of the shortest that any detector finds: ://:x@

# The heads of enforcer/policy/detectors.py; also where the text stands in JSON.
_STARRED: Final = re.compile(
    r"(?:(?:KIA|SIA|BIA|CCA|AIza|GOCSPX-|ya29\.|gh[pousr]_|github_pat_|xox[abceoprs]-|xapp-|eyJ)\*{4}"
    r"|://[^\s/?#@:]{0,64}:\*{1,256}@|[2-6][0-9]{3}[ -]?[0-9]{2}[ -]?\*|[A-Z]{2}[0-9]{2} ?\*{4}"
    r"|(?i:aws_?(?:secret|session)_?(?:access_?)?(?:key|token))[\\\"']{0,2}[ \t]{0,3}[=:][ \t]{0,3}[\\\"']{0,2}\*{8}"
    r"|PRIVATE KEY(?: BLOCK)? ?-{4,5}(?:\s|\\n){0,4}\*{8})")


class Detecting:
    """Over values of one object: what is found has a mask of the same length.  What holds nothing is told without a
    stream's cost; who sends thousands of values that do, so that others wait for each, sees them redacted."""

    def __init__(self, labels: frozenset[str]) -> None:
        self._labels, self._detectors = labels, make_detectors(labels)
        self._left = PATIENCE

    def renew(self) -> None:
        """Another object comes."""
        self._left = PATIENCE

    def __call__(self, value: bytes) -> bytes:
        hides = has_controls(value)
        if len(value) < LEAST or not (hides or self._detectors.may_hold(value)):
            return value
        if self._left <= 0:
            return REDACTED.encode()
        self._left -= 1
        if not (hides or self._detectors.suspects(value) or self._detectors.tail(value)):
            return value
        self._left -= DEAR
        mask = StreamMask(self._labels)
        return mask.feed(value) + mask.flush()

    def text(self, value: str) -> str:
        return self(value.encode("utf-8", "replace")).decode("utf-8", "replace")


def looks_detected(value: str) -> bool:
    """It has the mask of something that a detector finds: a head that everybody may see, and stars."""
    return "*" in value and _STARRED.search(value) is not None
