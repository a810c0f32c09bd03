"""What agent and refreshing process say to each other: one JSON document each, on standard input and output.

It lives for one answer, as an unprivileged user: what a provider says is parsed there.
"""
from __future__ import annotations

from typing import Annotated

import msgspec

TOKEN = 64 << 10                      # characters of a token
LIMIT = 4 * TOKEN                     # bytes of the answer


class Asked(msgspec.Struct, frozen=True):
    """Never printed: repr hides what it holds."""

    issuer: str
    ca: str                           # PEM, "": the system's roots
    client_id: str
    client_secret: str                # "": a public client
    refresh_token: str

    def __repr__(self) -> str:
        return "Asked(...)"


class Given(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As Asked."""

    error: Annotated[str, msgspec.Meta(max_length=400)] = ""      # without a word of the provider's
    id_token: Annotated[str, msgspec.Meta(max_length=TOKEN)] = ""
    refresh_token: Annotated[str, msgspec.Meta(max_length=TOKEN)] = ""     # "": the old one goes on

    def __repr__(self) -> str:
        return f"Given(error={self.error!r}, ...)"


def parse_given(content: bytes) -> Given:
    """Raises msgspec.MsgspecError."""
    return msgspec.json.decode(content, type=Given)
