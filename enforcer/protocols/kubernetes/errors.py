"""Status: the API server's own form of an error (meta/v1, types.go), which kubectl prints."""
from __future__ import annotations

from typing import Final

import msgspec

from enforcer.http.messages import Answer
from enforcer.protocols.kubernetes.info import Info

REASONS: Final = {
    400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 405: "MethodNotAllowed",
    406: "NotAcceptable", 409: "Conflict", 413: "RequestEntityTooLarge", 415: "UnsupportedMediaType", 422: "Invalid",
    500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout",
}
_PHRASES: Final = {
    400: b"Bad Request", 403: b"Forbidden", 405: b"Method Not Allowed", 406: b"Not Acceptable",
    413: b"Request Entity Too Large", 414: b"URI Too Long", 415: b"Unsupported Media Type",
    422: b"Unprocessable Entity", 431: b"Request Header Fields Too Large", 500: b"Internal Server Error",
    501: b"Not Implemented", 502: b"Bad Gateway", 503: b"Service Unavailable", 505: b"HTTP Version Not Supported",
}
WARNING: Final = 1000                 # characters of a warning's text


def render_status(status: int, message: str, info: Info | None = None) -> tuple[Answer, bytes]:
    details: dict[str, object] = {} if info is None or not info.is_resource else {
        name: text for name, text in (("name", info.name), ("group", info.group), ("kind", info.resource)) if text}
    if status == 422:                 # kubectl prints these, and not the message
        details["causes"] = [{"reason": "FieldValueForbidden", "message": message}]
    body = msgspec.json.encode({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": REASONS.get(status, ""), "details": details, "code": status})
    return Answer(status, _PHRASES.get(status, b""), ((b"content-type", b"application/json"),)), body


def read_message(body: bytes) -> str:
    """What a Status says, "" where it is none."""
    try:
        said = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError):
        return ""
    message = said.get("message") if isinstance(said, dict) else None
    return message if isinstance(message, str) else ""


def warning(text: str) -> tuple[bytes, bytes]:
    """RFC 7234 5.5: 299, as the API server itself warns; clients print it."""
    shown = "".join(one if one.isprintable() else " " for one in text[:WARNING])
    quoted = shown.replace("\\", "\\\\").replace('"', '\\"').encode("ascii", "replace")
    return b"warning", b'299 - "' + quoted + b'"'
