"""Pure: cookies, and the tokens of forms.

With https names begin with `__Host-` (RFC 6265bis, 4.1.3.2): no other host, and nothing without TLS, can set them.
`Lax`, not `Strict`: who comes back from a provider, or by a link from a chat, is logged in; what changes anything is
posted, and needs a form's token and the right origin besides.
"""
from __future__ import annotations

import hmac
import re
import secrets
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from typing import Final

SESSION, LOGIN, VISIT = "weir", "weir-login", "weir-visit"
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_FORM: Final = b"weir: token of a form"
MOST: Final = 4096                    # bytes of a cookie header


def parse_cookies(header: str) -> dict[str, str]:
    """Only what may be a secret of ours; of a name that stands twice, nothing."""
    found: dict[str, str] = {}
    if len(header) > MOST:
        return found
    twice = set()
    for part in header.split(";"):
        name, _, value = part.strip().partition("=")
        if _SECRET.fullmatch(value):
            twice |= {name} & found.keys()
            found[name] = value
    return {name: value for name, value in found.items() if name not in twice}


def mint() -> str:
    """Of a browser that nobody is logged in with: it binds its forms to it, and stands for nothing else."""
    return secrets.token_urlsafe(32)


def name_of(kind: str, secure: bool) -> str:
    return f"__Host-{kind}" if secure else kind


def render_cookie(kind: str, value: str, secure: bool) -> str:
    """A Set-Cookie; it goes with the browser, or at once where `value` is empty."""
    cookie: SimpleCookie = SimpleCookie()
    name = name_of(kind, secure)
    try:
        cookie[name] = value
    except CookieError:
        raise ValueError(name) from None
    made = cookie[name]
    made["path"], made["httponly"], made["samesite"] = "/", True, "Lax"
    made["secure"] = secure
    if not value:
        made["max-age"] = 0
    return made.OutputString()


def token_of(secret: str) -> str:
    """Of the forms of who has this secret; it says nothing of it."""
    return hmac.digest(secret.encode(), _FORM, sha256).hex()


def is_token(secret: str, token: str) -> bool:
    return bool(secret) and hmac.compare_digest(token_of(secret).encode(), token.encode(errors="replace"))
