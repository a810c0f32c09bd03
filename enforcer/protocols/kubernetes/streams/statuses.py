"""How a command ended, as the error stream says it.

From version 4 on it is a metav1.Status as JSON; before, it is a text, and nothing where all went well.
Source: k8s.io/apimachinery pkg/apis/meta/v1, k8s.io/client-go tools/remotecommand/v4.go.
"""
from __future__ import annotations

import json
from typing import Any, Final

Ending = tuple[str, str, str]         # of events.Result: status, tag, error
EXIT: Final = "NonZeroExitCode"
KILLED: Final = 137                   # as a shell says it of SIGKILL
SHOWN: Final = 4096                   # characters of a message


def read_ending(text: bytes, states: bool) -> Ending:
    """`states`: it is a Status."""
    if not states:
        return ("error", "", text.decode("utf-8", "replace")[:SHOWN]) if text else ("ok", "", "")
    status = _read(text)
    if status is None:
        return "error", "", "the server did not say how it ended"
    if status.get("status") == "Success":
        return "ok", "exit 0", ""
    if status.get("reason") == EXIT and (code := _code(status)) is not None:
        return "ok", f"exit {code}", ""
    message = status.get("message")
    return "error", "", message[:SHOWN] if isinstance(message, str) else "it failed"


def _read(text: bytes) -> dict[str, Any] | None:
    try:
        status = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return status if isinstance(status, dict) else None


def _code(status: dict[str, Any]) -> int | None:
    details = status.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    for cause in causes if isinstance(causes, list) else ():
        if isinstance(cause, dict) and cause.get("reason") == "ExitCode":
            return _number(cause.get("message"))
    return None


def _number(said: object) -> int | None:
    return int(said) if isinstance(said, str) and said.isascii() and said.isdecimal() and len(said) < 8 else None


def render_failure(reason: str, states: bool) -> bytes:
    """By Weir.  It has an exit code, for clients that look for nothing else (kubernetes.stream, in Python)."""
    if not states:
        return f"weir: {reason}".encode()
    return json.dumps({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": f"weir: {reason}",
        "reason": "Forbidden", "code": 403,
        "details": {"causes": [{"reason": "ExitCode", "message": str(KILLED)}]}}).encode()
