"""Pure but for asking: three paths, as an ASGI application.

A page that somebody has in a browser on this host could send requests here by a name that it makes lead here: what
names another host than this one's address is not answered (the Host of RFC 9110, 7.2).
"""
from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import msgspec

from agent.contract import metrics as asked
from agent.contract.metrics import Health
from enforcer.frames import NoAnswer
from enforcer.metrics.rendering import render_metrics

PLAIN: Final = "text/plain; charset=utf-8"
LOCAL: Final = ("[::1]", "localhost")
_Answer = TypeVar("_Answer", bound=msgspec.Struct)

Send = Callable[[dict[str, Any]], Awaitable[None]]
Said = tuple[int, bytes, str]         # status, body, content type


class Site:
    """`ask` asks the agent; it raises NoAnswer.  `local`: every Host is this one, for the listener is a Unix socket."""

    def __init__(self, ask: Callable[..., Awaitable[Any]], local: bool) -> None:
        self._ask, self._local = ask, local
        self._paths: dict[str, Callable[[str], Awaitable[Said]]] = {
            "/metrics": self._metrics, "/healthz": self._healthz, "/readyz": self._readyz}

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Send) -> None:
        status, body, kind = await self._answer(scope)
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode()),
                   (b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
        if status == 405:
            headers.append((b"allow", b"GET, HEAD"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _answer(self, scope: dict[str, Any]) -> Said:
        headers = {name: value.decode("latin-1") for name, value in reversed(scope["headers"])}
        if not self._local and not _is_local(_host(headers.get(b"host", ""))):
            return _said(421, "this is not an address of the listener: ask by that")
        if scope["method"] not in ("GET", "HEAD"):
            return _said(405, "GET and HEAD are answered here")
        if (path := self._paths.get(scope["path"])) is None:
            return _said(404, "there are /metrics, /healthz and /readyz")
        try:
            return await path(headers.get(b"accept", ""))
        except NoAnswer as reason:
            return _said(503, str(reason))

    async def _metrics(self, accept: str) -> Said:
        body, kind = render_metrics((await self._ask(asked.AskFigures(0), asked.Figures)).samples, accept)
        return 200, body, kind

    async def _healthz(self, accept: str) -> Said:
        health = await self._health()
        return _said(200 if health.healthy else 503, _line(health))

    async def _readyz(self, accept: str) -> Said:
        health = await self._health()
        return _said(200 if health.serving else 503, _line(health))

    async def _health(self) -> Health:
        answer: asked.HealthAnswer = await self._ask(asked.AskHealth(0), asked.HealthAnswer)
        return answer.health


def _line(health: Health) -> str:
    return f"{health.state}: {health.reason}" if health.reason else health.state


def _said(status: int, line: str) -> Said:
    return status, f"{line}\n".encode(), PLAIN


def _host(value: str) -> str:
    """Without the port."""
    return value.lower() if value.endswith("]") else value.lower().rpartition(":")[0] or value.lower()


def _is_local(host: str) -> bool:
    """A name is whatever its owner says that it is; an address is what it is, and 127.0.0.0/8 are all this host's."""
    try:
        return host in LOCAL or ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        return False
