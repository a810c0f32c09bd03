"""The target of a request (RFC 9112 3.2): path and query, of which no two servers could make two things.  Pure.

Theory: Go's net/url, which API servers read with, is lenient: it drops pairs of a query that it cannot read, leaves dot
segments and double slashes to whoever comes next, and keeps `%2F` apart from `/` only for who asks.  What such leniency
would be needed for is refused here; what is left is decoded once and rendered anew, and that is what the server gets.
"""
from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from enforcer.protocols.kubernetes.info import Query, Unclear

LIMIT: Final = 64 << 10               # bytes of a target
# RFC 3986 3.3, without ";": what begins with it some servers drop.
_PATH: Final = re.compile(rb"/(?:[A-Za-z0-9._~!$&'()*+,=:@/-]|%[0-9A-Fa-f]{2})*")
_QUERY: Final = re.compile(rb"(?:[!-~]|%[0-9A-Fa-f]{2})*")
_BROKEN: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ENCODED: Final = re.compile("%[0-9A-Fa-f]{2}")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
_KEPT_IN_PATH: Final = "/-._~!$&'()*+,=:@"
_KEPT_IN_QUERY: Final = "/-._~:,@"


def parse_target(target: bytes) -> tuple[str, Query, bytes]:
    """Decoded path, decoded query in order, and the target as the server gets it.  Unclear where it is not in origin
    form, or may be read in two ways."""
    if len(target) > LIMIT:
        raise Unclear(f"a target of more than {LIMIT} bytes", 414)
    if not target.startswith(b"/"):
        raise Unclear("what is asked for is no path that begins with a slash")
    path, mark, query = target.partition(b"?")
    decoded, pairs = _path(path), _pairs(query) if mark else ()
    rendered = quote(decoded, safe=_KEPT_IN_PATH).encode()
    if pairs:
        rendered += b"?" + b"&".join(map(_render, pairs))
    return decoded, tuple((key, value or "") for key, value in pairs), rendered


def _path(path: bytes) -> str:
    if not _PATH.fullmatch(path):
        raise Unclear("the path holds bytes that are to be percent-encoded, or an encoding that is none")
    lower = path.lower()
    if b"%2f" in lower or b"%5c" in lower or b"%3b" in lower:
        raise Unclear("the path holds an encoded slash, backslash or semicolon")
    decoded = _text(path, "path")
    if _CONTROL.search(decoded):
        raise Unclear("the path holds control characters")
    if _ENCODED.search(decoded):
        raise Unclear("the path is encoded twice")
    segments = decoded.split("/")[1:]
    if "." in segments or ".." in segments or "" in segments[:-1]:
        raise Unclear("the path holds an empty or a dot segment")
    return decoded


def _pairs(query: bytes) -> tuple[tuple[str, str | None], ...]:
    """A key without `=` has None."""
    if not _QUERY.fullmatch(query) or _BROKEN.search(query) or b"#" in query or b";" in query:
        raise Unclear("the query holds bytes that are to be percent-encoded, or an encoding that is none")
    return tuple(_pair(one) for one in query.split(b"&") if one)


def _pair(pair: bytes) -> tuple[str, str | None]:
    key, equals, value = pair.replace(b"+", b" ").partition(b"=")
    name, said = _text(key, "query"), _text(value, "query") if equals else None
    if "\0" in name or (said and "\0" in said):
        raise Unclear("the query holds NUL")
    return name, said


def _text(data: bytes, where: str) -> str:
    try:
        return unquote_to_bytes(data).decode()
    except UnicodeDecodeError:
        raise Unclear(f"the {where} is not UTF-8") from None


def _render(pair: tuple[str, str | None]) -> bytes:
    key, value = pair
    name = quote(key, safe=_KEPT_IN_QUERY)
    return (name if value is None else f"{name}={quote(value, safe=_KEPT_IN_QUERY)}").encode()
