"""Detectors over values, each for itself: what begins in one says nothing of the next."""
from __future__ import annotations

import re
from typing import Final

from enforcer.policy.detectors import make_detectors
from enforcer.policy.stream_masks import StreamMask
from enforcer.policy.visible import has_controls

LEAST: Final = 6                      # bytes of the shortest that any detector finds: ://:x@

# The heads of enforcer/policy/detectors.py; also where the text stands in JSON.
_STARRED: Final = re.compile(
    r"(?:(?:KIA|SIA|BIA|CCA|AIza|GOCSPX-|ya29\.|gh[pousr]_|github_pat_|xox[abceoprs]-|xapp-|eyJ)\*{4}"
    r"|://[^\s/?#@:]{0,64}:\*{1,256}@|[2-6][0-9]{3}[ -]?[0-9]{2}[ -]?\*|[A-Z]{2}[0-9]{2} ?\*{4}"
    r"|(?i:aws_?(?:secret|session)_?(?:access_?)?(?:key|token))[\\\"']{0,2}[ \t]{0,3}[=:][ \t]{0,3}[\\\"']{0,2}\*{8}"
    r"|PRIVATE KEY(?: BLOCK)? ?-{4,5}(?:\s|\\n){0,4}\*{8})")


def detect(labels: frozenset[str], value: bytes) -> bytes:
    """Of the same length.  What holds nothing is told without a stream's cost."""
    if len(value) < LEAST or not labels:
        return value
    detectors = make_detectors(labels)
    if not has_controls(value) and not (
            detectors.may_hold(value) and (detectors.suspects(value) or detectors.tail(value))):
        return value
    mask = StreamMask(labels)
    return mask.feed(value) + mask.flush()


def looks_detected(value: str) -> bool:
    """It has the mask of something that a detector finds: a head that everybody may see, and stars."""
    return "*" in value and _STARRED.search(value) is not None


def detect_text(labels: frozenset[str], value: str) -> str:
    return detect(labels, value.encode("utf-8", "replace")).decode("utf-8", "replace")
