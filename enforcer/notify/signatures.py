"""Pure: who sent a request, and that it is Weir that sends one.

Slack: https://docs.slack.dev/authentication/verifying-requests-from-slack
Webhooks: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""
from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections import OrderedDict
from typing import Final

SPAN: Final = 300                     # seconds that a request of Slack's may be old, or ahead
SEEN: Final = 20_000                  # requests that are remembered: of SPAN and as much again
_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}")
_SIGNATURE: Final = re.compile(r"v0=[0-9a-f]{64}")


class Seen:
    """What came already, for so long as it would still count; where that is too much nothing more is taken."""

    def __init__(self, seconds: float, most: int = SEEN) -> None:
        self._seconds, self._most = seconds, most
        self._known: OrderedDict[str, float] = OrderedDict()

    def is_new(self, name: str, now: float) -> bool:
        """And from now on it is not."""
        while self._known and next(iter(self._known.values())) + self._seconds < now:
            self._known.popitem(last=False)
        if name in self._known or len(self._known) >= self._most:
            return False
        self._known[name] = now
        return True


def wrong_request(secret: str, timestamp: str, signature: str, body: bytes, now: float) -> str:
    """Why a request is not Slack's, or not of now; "" where it is."""
    if not _TIMESTAMP.fullmatch(timestamp) or not _SIGNATURE.fullmatch(signature):
        return "is not signed"
    if abs(now - int(timestamp)) > SPAN:
        return "is too old"
    wanted = sign_request(secret, timestamp, body)
    return "" if hmac.compare_digest(wanted, signature) else "is signed with another secret"


def sign_request(secret: str, timestamp: str, body: bytes) -> str:
    mac = hmac.new(secret.encode(), b"v0:" + timestamp.encode() + b":" + body, hashlib.sha256)
    return "v0=" + mac.hexdigest()


def sign_webhook(secret: bytes, identifier: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers."""
    mac = hmac.new(secret, f"{identifier}.{timestamp}.".encode() + body, hashlib.sha256)
    return {"webhook-id": identifier, "webhook-timestamp": str(timestamp),
            "webhook-signature": "v1," + base64.b64encode(mac.digest()).decode()}
