"""Pure: the form that a browser posts (Bindings, 3.5): which response it holds, and whose answer it is."""
from __future__ import annotations

import base64
import hmac
from urllib.parse import parse_qsl

from agent.contract.identity import FORM
from enforcer.words.errors import AuthenticationError


def parse_form(form: str, relay: str) -> bytes:
    """The response.  Raises AuthenticationError."""
    if len(form) > FORM:
        raise AuthenticationError("what came back is too long")
    try:
        pairs = parse_qsl(form, keep_blank_values=True, strict_parsing=True, max_num_fields=8)
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError
        raw = base64.b64decode("".join(found["SAMLResponse"].split()), validate=True)
    except (ValueError, KeyError):
        raise AuthenticationError("what came back is malformed") from None
    if not hmac.compare_digest(found.get("RelayState", "").encode(errors="replace"), relay.encode()):
        raise AuthenticationError("what came back is the answer to another login")
    return raw
