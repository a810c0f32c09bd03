"""The loopback redirect of a code flow (RFC 8252, 7.3), in the process of the person who logs in.

Any process and any page may dial it: only a GET of the redirect's path, which is its provider's alone, with the state
of this very login counts, by the name that the redirect has; everything else is answered with an error and forgotten.
"""
from __future__ import annotations

import hmac
import re
import socket
import time
from types import TracebackType
from typing import Final
from urllib.parse import parse_qsl, urlsplit

HEAD: Final = 16 << 10                # bytes of a request's head
PATIENCE: Final = 2.0                 # seconds in which a head must come
_REQUEST: Final = re.compile(rb"GET (/callback/[a-z0-9-]{1,32})\?([!-~]{1,8192}) HTTP/1\.[01]")
_DONE: Final = "You may close this window and go back to the terminal."
_OTHER: Final = "This is not the answer that is waited for."


class Listener:
    def __enter__(self) -> Listener:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=8)
        self.port: int = self._socket.getsockname()[1]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, place: TracebackType | None
                 ) -> None:
        self._socket.close()

    def wait(self, url: str, seconds: float) -> str | None:
        """The query of the redirect that answers this address; None where none comes in time."""
        asked = dict(parse_qsl(urlsplit(url).query))
        state, path = asked.get("state", ""), urlsplit(asked.get("redirect_uri", "")).path
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and state:
            self._socket.settimeout(left)
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                return None
            with connection:
                if (query := self._take(connection, path, state)) is not None:
                    return query
        return None

    def _take(self, connection: socket.socket, path: str, state: str) -> str | None:
        try:
            query = parse_callback(_head(connection), self.port, path, state)
            connection.sendall(render_page(200, _DONE) if query else render_page(400, _OTHER))
        except OSError:
            return None               # it went away, or was too slow
        return query


def _head(connection: socket.socket) -> bytes:
    """Raises OSError."""
    head, deadline = b"", time.monotonic() + PATIENCE
    while b"\r\n\r\n" not in head and len(head) <= HEAD and (left := deadline - time.monotonic()) > 0:
        connection.settimeout(left)
        piece = connection.recv(4096)
        if not piece:
            break
        head += piece
    return head


def parse_callback(head: bytes, port: int, path: str, state: str) -> str | None:
    """Pure: the query, where it is this login's."""
    first, *rest = head.split(b"\r\n")
    names = [line.partition(b":")[2].strip() for line in rest if line.lower().startswith(b"host:")]
    found = _REQUEST.fullmatch(first)
    if found is None or found[1].decode() != path or len(head) > HEAD or names != [f"127.0.0.1:{port}".encode()]:
        return None
    query = found[2].decode()
    states = [value for name, value in parse_qsl(query, keep_blank_values=True) if name == "state"]
    return query if len(states) == 1 and hmac.compare_digest(states[0].encode(), state.encode()) else None


def render_page(status: int, text: str) -> bytes:
    body = f"<!doctype html><meta charset=utf-8><title>Weir</title><p>{text}</p>\n".encode()
    head = (f"HTTP/1.1 {status} {'OK' if status == 200 else 'Bad Request'}\r\n"
            "Content-Type: text/html; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nContent-Security-Policy: default-src 'none'\r\nCache-Control: no-store\r\n"
            "Referrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n")
    return head.encode() + body
