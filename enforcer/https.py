"""Edge: HTTPS to whom the configuration names: no redirect, no proxy, bounded answers within a bounded time."""
from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx2

ANSWER: Final = 512 << 10             # bytes
SECONDS: Final = 15.0                 # of a whole exchange


class TooLong(httpx2.TransportError):
    pass


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self._inner:
            size += len(piece)
            if size > ANSWER:
                raise TooLong("the answer is too long")
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()


class Transport(httpx2.AsyncHTTPTransport):
    """Compressed answers are refused: their size would not be bounded by what came."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.headers["Accept-Encoding"] = "identity"
        answer = await super().handle_async_request(request)
        if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
            await answer.aclose()
            raise TooLong("the answer is compressed")
        return httpx2.Response(answer.status_code, headers=answer.headers, stream=_Bounded(answer.stream),
                               extensions=answer.extensions)


def trusted(roots: str) -> ssl.SSLContext:
    """`roots`: PEM, "": the system's.  Raises ssl.SSLError."""
    # Not create_default_context: from Python 3.13 on that refuses what others accept, as authorities of companies that
    # name no key identifier, and accepts what is no root.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if roots:
        context.load_verify_locations(cadata=roots)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def options(context: ssl.SSLContext) -> dict[str, Any]:
    """For a client of httpx2's, or of authlib's, which is one."""
    return {"transport": Transport(verify=context, trust_env=False), "timeout": SECONDS, "follow_redirects": False,
            "trust_env": False}
