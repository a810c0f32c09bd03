"""Pure: SAML's times."""
from __future__ import annotations

import datetime
import re
from typing import Final

from enforcer.words.errors import AuthenticationError

_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d{1,9})?Z", re.ASCII)


def parse_time(text: str | None, name: str) -> int | None:
    """Seconds UTC; None: it is not there.  Core, 1.3.3: in UTC, as `Z`.  Raises AuthenticationError."""
    if text is None:
        return None
    found = _TIME.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        return int(datetime.datetime.fromisoformat(found[1] + "+00:00").timestamp())
    except (ValueError, OverflowError):
        raise AuthenticationError(f"its {name} is no time in UTC") from None


def render_time(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
