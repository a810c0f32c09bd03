"""h11 for both sides: bytes in, heads and pieces out; heads and pieces in, bytes out.

Theory: what is read is never sent on as it came.  Heads are values in between, so whatever a peer does to make two
readers differ (RFC 9112 11.2: lengths, line ends, folded fields) is gone, or was refused here.  h11 keeps the states of
both peers; this adds what it lets pass and nobody needs.
"""
from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import h11

from enforcer.http.messages import Answer, Head, Headers, values, without
from enforcer.words.errors import LocalProtocolError, RemoteProtocolError

HEAD: Final = 64 << 10                # bytes of a head at most
FIELDS: Final = 256                   # in a head
HOP: Final = (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
              b"content-length", b"expect", b"host")
_QUOTED: Final = re.compile("bytearray|b?['\"]")
_BODILESS: Final = (204, 304)
_CHUNKED: Final = (b"transfer-encoding", b"chunked")


class BadRequest(Exception):
    """What the client is told, with this status; nothing of it was sent on, and the connection ends."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Ended:
    """The message is whole."""


ENDED: Final = Ended()
Piece = Head | Answer | bytes | Ended


class CrewSide:
    """As server.  Reading: one request at a time, `next` until it gives None."""

    def __init__(self) -> None:
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD)

    def feed(self, data: bytes) -> None:
        """b"": nothing more will come."""
        self._h11.receive_data(data)

    @property
    def behind(self) -> bool:
        """A later request waits, or a part of one."""
        return self._h11.their_state not in (h11.IDLE, h11.SEND_BODY) and bool(self._h11.trailing_data[0])

    @property
    def waits_for_continue(self) -> bool:
        return bool(self._h11.they_are_waiting_for_100_continue)

    def next(self) -> Piece | None:
        """BadRequest for what is no request, or may be read in two ways."""
        try:
            event = self._h11.next_event()
        except h11.RemoteProtocolError as error:
            raise BadRequest(error.error_status_hint or 400, _told(error)) from None
        if isinstance(event, h11.Request):
            return _read_head(event)
        if isinstance(event, h11.Data):
            return bytes(event.data)
        return ENDED if isinstance(event, h11.EndOfMessage) else None

    def proceed(self) -> bytes:
        """100 (Continue)."""
        return self._send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))

    def switch(self, headers: Headers) -> bytes:
        """101, with `upgrade` among them."""
        upgrade = [(b"connection", b"Upgrade"), *((b"upgrade", one) for one in values(headers, b"upgrade"))]
        return self._send(h11.InformationalResponse(
            status_code=101, headers=[*without(headers, HOP), *upgrade], reason=b"Switching Protocols"))

    def left(self) -> bytes:
        """What came behind a request that was answered with 101."""
        return bytes(self._h11.trailing_data[0])

    def answer(self, answer: Answer, length: int | None, last: bool) -> bytes:
        """Its head.  `length` of the body, None: not known; `last`: the connection ends with it."""
        fields = list(without(answer.headers, HOP))
        if answer.status not in _BODILESS:
            fields.append(_CHUNKED if length is None else (b"content-length", str(length).encode()))
        if last:
            fields.append((b"connection", b"close"))
        return self._send(h11.Response(status_code=answer.status, headers=fields, reason=answer.reason))

    def piece(self, data: bytes) -> bytes:
        return self._send(h11.Data(data=data)) if data else b""

    def end(self) -> bytes:
        return self._send(h11.EndOfMessage())

    def renew(self) -> bool:
        """Both are done with the exchange: whether another may come."""
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        return True

    def _send(self, event: h11.Event) -> bytes:
        return _sent(self._h11, event)


class ServerSide:
    """As client.  `closing`: nothing can be asked behind the answer whose head was given last."""

    def __init__(self) -> None:
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD)
        self.closing = False

    def feed(self, data: bytes) -> None:
        self._h11.receive_data(data)

    def request(self, head: Head, body: bytes, host: bytes, upgrade: bytes = b"") -> bytes:
        """All of it."""
        fields = [(b"host", host), *without(head.headers, HOP)]
        if upgrade:
            fields += [(b"connection", b"Upgrade"), (b"upgrade", upgrade)]
        if body or head.method in ("POST", "PUT", "PATCH"):
            fields.append((b"content-length", str(len(body)).encode()))
        out = _sent(self._h11, h11.Request(method=head.method, target=head.target, headers=fields))
        if body:
            out += _sent(self._h11, h11.Data(data=body))
        return out + _sent(self._h11, h11.EndOfMessage())

    def next(self) -> Piece | None:
        """RemoteProtocolError for what is no answer.  Of 1xx only 101 is given."""
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                raise RemoteProtocolError(f"the server's answer: {_told(error)}") from None
            if isinstance(event, h11.InformationalResponse) and event.status_code != 101:
                continue
            if isinstance(event, h11.Response | h11.InformationalResponse):
                self.closing = event.http_version != b"1.1" or b"close" in _listed(event.headers, b"connection")
                return _read_answer(event)
            if isinstance(event, h11.Data):
                return bytes(event.data)
            return ENDED if isinstance(event, h11.EndOfMessage) else None

    def left(self) -> bytes:
        return bytes(self._h11.trailing_data[0])

    def renew(self) -> bool:
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        return True


def length_of(headers: Headers) -> int | None:
    """As the head says it; h11 has read it, and found it to be a number."""
    found = values(headers, b"content-length")
    return int(found[0]) if found and not values(headers, b"transfer-encoding") else None


def _told(error: h11.RemoteProtocolError) -> str:
    """Without the bytes that h11 quotes: they may be a credential, or of a body that is masked."""
    return _QUOTED.split(str(error), maxsplit=1)[0].rstrip(" :(")


def _read_head(event: h11.Request) -> Head:
    headers = _read_headers(event.headers)
    if event.http_version != b"1.1":
        raise BadRequest(505, "HTTP/1.1 is spoken here")
    if values(headers, b"content-length") and values(headers, b"transfer-encoding"):
        raise BadRequest(400, "a message with a length and in chunks")        # RFC 9112 6.3
    if len(headers) > FIELDS or sum(len(name) + len(text) for name, text in headers) + len(event.target) > HEAD:
        raise BadRequest(431, f"a head of more than {FIELDS} fields or {HEAD} bytes")
    return Head(event.method.decode("ascii"), bytes(event.target), headers)


def _read_answer(event: h11.Response | h11.InformationalResponse) -> Answer:
    headers = _read_headers(event.headers)
    if values(headers, b"content-length") and values(headers, b"transfer-encoding"):
        raise RemoteProtocolError("the server's answer: a message with a length and in chunks")
    return Answer(event.status_code, bytes(event.reason), headers)


def _listed(fields: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    found = (bytes(value) for one, value in fields if one == name)
    return [part.strip().lower() for value in found for part in value.split(b",")]


def _read_headers(fields: Iterable[tuple[bytes, bytes]]) -> Headers:
    return tuple((bytes(name), bytes(value)) for name, value in fields)


def _sent(connection: h11.Connection, event: h11.Event) -> bytes:
    try:
        return connection.send(event) or b""
    except h11.LocalProtocolError as error:
        raise LocalProtocolError(f"an HTTP message of Weir's own: {error}") from None
