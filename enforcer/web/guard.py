"""Pure: which requests are answered at all, and what every answer says to the browser.

A page that somebody else has in a browser on the same network can send requests here: by a name that it makes lead
here (the Host is wrong then), or by a form (the origin is).  RFC 9110, Fetch, Fetch Metadata, CSP 3.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from enforcer.web.shown import POLICY

HEAD: Final = 16 << 10                # bytes of a request's head
METHODS: Final = frozenset(("GET", "HEAD", "POST"))
# "no-referrer" would have browsers say "Origin: null" of our own forms (Fetch, "append a request Origin header").
_HEADERS: Final = (
    ("content-security-policy", POLICY), ("x-content-type-options", "nosniff"), ("referrer-policy", "same-origin"),
    ("x-frame-options", "DENY"), ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"), ("cross-origin-embedder-policy", "require-corp"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=(), clipboard-read=(), "
     "display-capture=(), fullscreen=()"),
)
_NO_STORE: Final = ("cache-control", "no-store")
_HSTS: Final = ("strict-transport-security", "max-age=31536000")

Headers = Iterable[tuple[bytes, bytes]]


def host_of(url: str) -> str:
    """As a browser's Host has it."""
    return urlsplit(url).netloc.lower()


def headers_of(url: str) -> tuple[tuple[str, str], ...]:
    """What every answer has; but what may be kept says so itself."""
    return (*_HEADERS, _NO_STORE, *((_HSTS,) if url.startswith("https:") else ()))


def why_not(url: str, method: str, size: int, headers: Headers) -> tuple[int, str]:
    """(status, reason), (0, "") where it is answered.  `size`: bytes of its head."""
    if size > HEAD:
        return 431, "this is too long"
    if method not in METHODS:
        return 405, "the page knows GET, HEAD and POST"
    if {b"content-length", b"transfer-encoding"} <= {name for name, _ in headers}:
        return 400, "its length is said in two ways"   # and what stands before the page may go by the other
    if _one(headers, b"host") != host_of(url).encode():
        return 421, ("this is not the name that [web] url gives the page: open that; a server that stands before it "
                     "has to pass on the Host that the browser sent")
    return 0, ""


def is_own(url: str, headers: Headers) -> bool:
    """Whether a page of ours, or a person, has the browser send it.  A browser that says neither is too old to tell."""
    site, origin = _one(headers, b"sec-fetch-site"), _one(headers, b"origin")
    if origin is None or (site is not None and site not in (b"same-origin", b"none")):
        return False
    return origin.lower() == url.encode()


def is_cross(headers: Headers) -> bool:
    """Whether another site has the browser ask."""
    site = _one(headers, b"sec-fetch-site")
    return site is not None and site not in (b"same-origin", b"none")


def is_form(headers: Headers) -> bool:
    return (_one(headers, b"content-type") or b"").partition(b";")[0].strip().lower() == (
        b"application/x-www-form-urlencoded")


def _one(headers: Headers, name: bytes) -> bytes | None:
    """None: it is not there, or stands twice."""
    found = [value for key, value in headers if key == name]
    return found[0] if len(found) == 1 else None
