"""SPDY's bytes as they travel: bare, or in the messages of a WebSocket (k8s.io/client-go, TunnelingConnection)."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from enforcer.http.websocket import NORMAL, Close, Part, Ping, WebSocket
from enforcer.protocols.kubernetes.streams.words import Over
from enforcer.words.errors import RemoteProtocolError


class Pipe(Protocol):
    def receive(self, data: bytes) -> Iterator[bytes | Over]:
        """What comes through it.  Raises RemoteProtocolError."""
        ...

    def put(self, data: bytes) -> bytes: ...

    def answers(self) -> bytes:
        """What it says by itself."""
        ...

    def close(self) -> bytes: ...


class Bare:
    def receive(self, data: bytes) -> Iterator[bytes | Over]:
        yield data

    def put(self, data: bytes) -> bytes:
        return data

    def answers(self) -> bytes:
        return b""

    def close(self) -> bytes:
        return b""


class Tunnelled:
    def __init__(self, client: bool) -> None:
        self._socket, self._answer = WebSocket(client), b""

    def receive(self, data: bytes) -> Iterator[bytes | Over]:
        for event in self._socket.receive(data):
            if isinstance(event, Part):
                if event.text:
                    raise RemoteProtocolError("a text in a tunnel of bytes")
                yield event.data
            elif isinstance(event, Ping):
                self._answer = self._socket.pong(event.payload)        # the last is enough (RFC 6455 5.5.3)
            elif isinstance(event, Close):
                yield Over(event.code, event.reason)

    def put(self, data: bytes) -> bytes:
        return self._socket.message(data)

    def answers(self) -> bytes:
        answer, self._answer = self._answer, b""
        return answer

    def close(self) -> bytes:
        return self._socket.close(NORMAL)
