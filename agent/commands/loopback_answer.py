"""The loopback listener of a browser's login, in the process of the person who logs in.

Of a code flow a GET comes (RFC 8252, 7.3), of SAML a POST (Bindings, 3.5).  Any process and any page may dial it: only
what holds the state of this very login counts (`state`, or `RelayState`: nobody else can know it), at the path that is
its provider's alone, by the name that it was sent to; everything else is answered with an error and forgotten.  Whose
page posts is not looked at: browsers say `Origin: null` where the provider has them say nothing of it, as Keycloak
does, and the state says more.
"""
from __future__ import annotations

import base64
import hmac
import re
import socket
import time
from collections.abc import Callable
from hashlib import sha256
from types import TracebackType
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from agent.contract.identity import FORM

HEAD: Final = 16 << 10                # bytes of a request's head
PATIENCE: Final = 2.0                 # seconds in which a request must come
_GET: Final = re.compile(rb"GET (/callback/[a-z0-9-]{1,32})\?([!-~]{1,8192}) HTTP/1\.[01]")
_POST: Final = re.compile(rb"POST (/acs/[a-z0-9-]{1,32}) HTTP/1\.[01]")
_SIZE: Final = re.compile(rb"[0-9]{1,9}")
_FORM: Final = re.compile(rb"[!-~]+")
_KIND: Final = b"application/x-www-form-urlencoded"
_DONE: Final = ("Your provider has answered",
                "You may close this window and go back to the terminal, which says whether you are logged in.")
_OTHER: Final = ("Nobody waits for this", "This is not the answer that is waited for. Begin again with weir login.")
_STYLE: Final = ("body{margin:15vh auto;max-width:34rem;padding:0 1rem;font:1.1rem/1.5 system-ui,sans-serif;"
                 "color:#1a1a1a;background:#fff}h1{font-size:1.4rem}"
                 "@media(prefers-color-scheme:dark){body{color:#e8e8e8;background:#161616}}")
_STYLED: Final = base64.b64encode(sha256(_STYLE.encode()).digest()).decode()


class Listener:
    def __init__(self, port: int = 0) -> None:
        self._wanted = port

    def __enter__(self) -> Listener:
        """Raises OSError: the port is taken."""
        self._socket = socket.create_server(("127.0.0.1", self._wanted), backlog=8)
        self.port: int = self._socket.getsockname()[1]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, place: TracebackType | None
                 ) -> None:
        self._socket.close()

    def wait(self, url: str, provider: str, seconds: float) -> str | None:
        """What answers this address, a query or a form; None where nothing comes in time."""
        asked = dict(parse_qsl(urlsplit(url).query))
        parse, state, path = parse_callback, asked.get("state", ""), urlsplit(asked.get("redirect_uri", "")).path
        if "SAMLRequest" in asked:
            parse, state, path = parse_posted, asked.get("RelayState", ""), f"/acs/{provider}"
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and state:
            self._socket.settimeout(left)
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                return None
            with connection:
                if (answer := self._take(connection, parse, path, state)) is not None:
                    return answer
        return None

    def _take(
        self, connection: socket.socket, parse: Callable[[bytes, int, str, str], str | None], path: str, state: str,
    ) -> str | None:
        try:
            answer = parse(_request(connection), self.port, path, state)
            connection.sendall(render_page(200, _DONE) if answer else render_page(400, _OTHER))
        except OSError:
            return None               # it went away, or was too slow
        return answer


def _request(connection: socket.socket) -> bytes:
    """A head, with the body that it speaks of.  Raises OSError."""
    raw, deadline = b"", time.monotonic() + PATIENCE
    while (wanted := _missing(raw)) > 0 and (left := deadline - time.monotonic()) > 0:
        connection.settimeout(left)
        piece = connection.recv(min(wanted, 65536))
        if not piece:
            break
        raw += piece
    return raw


def _missing(raw: bytes) -> int:
    """Pure: how many bytes more are read, at most."""
    head, end, body = raw.partition(b"\r\n\r\n")
    if not end:
        return 4096 if len(head) <= HEAD else 0
    sizes = _values(head, b"content-length")
    if len(head) > HEAD or len(sizes) != 1 or not _SIZE.fullmatch(sizes[0]) or int(sizes[0]) > FORM:
        return 0
    return int(sizes[0]) - len(body)


def _values(head: bytes, name: bytes) -> list[bytes]:
    lines = head.split(b"\r\n")[1:]
    return [line.partition(b":")[2].strip() for line in lines if line.lower().startswith(name + b":")]


def parse_callback(raw: bytes, port: int, path: str, state: str) -> str | None:
    """Pure: the query, where it is this login's."""
    found = _GET.fullmatch(raw.partition(b"\r\n")[0])
    if found is None or found[1].decode() != path or len(raw) > HEAD or not _is_here(raw, port):
        return None
    query = found[2].decode()
    return query if _is_answer(query, "state", state) else None


def parse_posted(raw: bytes, port: int, path: str, state: str) -> str | None:
    """Pure: the form, where it is this login's."""
    head, end, body = raw.partition(b"\r\n\r\n")
    kinds = [one.partition(b";")[0].strip().lower() for one in _values(head, b"content-type")]
    found = _POST.fullmatch(head.partition(b"\r\n")[0])
    if found is None or found[1].decode() != path or not end or len(head) > HEAD or not _is_here(head, port):
        return None
    if kinds != [_KIND] or _values(head, b"transfer-encoding") or not _FORM.fullmatch(body) or len(body) > FORM:
        return None
    if _values(head, b"content-length") != [b"%d" % len(body)]:
        return None
    form = body.decode()
    return form if _is_answer(form, "RelayState", state) else None


def _is_here(head: bytes, port: int) -> bool:
    """A page whose name leads here says that name."""
    return _values(head, b"host") == [f"127.0.0.1:{port}".encode()]


def _is_answer(text: str, name: str, state: str) -> bool:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=64)
    except ValueError:
        return False
    states = [value for key, value in pairs if key == name]
    return len(states) == 1 and hmac.compare_digest(states[0].encode(errors="replace"), state.encode())


def render_page(status: int, said: tuple[str, str]) -> bytes:
    head, text = said
    body = (f"<!doctype html><html lang=en><meta charset=utf-8><title>{head} - Weir</title>"
            f"<meta name=viewport content=width=device-width><style>{_STYLE}</style>"
            f"<main><h1>{head}</h1><p>{text}</p></main></html>\n").encode()
    lines = (f"HTTP/1.1 {status} {'OK' if status == 200 else 'Bad Request'}\r\n"
            "Content-Type: text/html; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\n"
            f"Content-Security-Policy: default-src 'none'; style-src 'sha256-{_STYLED}'; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'\r\n"
            "Referrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n")
    return lines.encode() + body
