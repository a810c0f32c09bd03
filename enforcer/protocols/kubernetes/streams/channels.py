"""Streams as channels of a WebSocket: a message's first byte says which one it is for.

Servers take each frame for a message of its own (golang.org/x/net/websocket), clients do not: Weir reads messages as
RFC 6455 has them, and whatever it writes is one whole frame.

Source: k8s.io/apimachinery pkg/util/httpstream/wsstream, k8s.io/apimachinery pkg/util/remotecommand.
"""
from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Final

from enforcer.http.websocket import Close, Part, Ping, Pong, WebSocket
from enforcer.protocols.kubernetes.streams.offers import Spoken
from enforcer.protocols.kubernetes.streams.words import Answered, Asked, Ended, Over, Said, Word
from enforcer.words.errors import RemoteProtocolError

CLOSE: Final = 255                    # v5: the next byte is the channel whose sender says nothing more
PIECE: Final = 32 << 10               # bytes of one message of Weir's
QUARTET: Final = 4                    # letters of base64 that are whole


class Channels:
    """`client`: Weir's role.  `most`: channels there are at most."""

    def __init__(self, spoken: Spoken, client: bool, most: int) -> None:
        self._encoded, self._closes, self._most = spoken.encoded, spoken.closes, most
        self._socket, self._client = WebSocket(client), client
        self._channel = -1            # of the message that comes now; -1: not known
        self._letters = b""           # of base64, that are not whole

    def receive(self, data: bytes) -> Iterator[Word]:
        for event in self._socket.receive(data):
            if isinstance(event, Part):
                yield from self._part(event)
            elif isinstance(event, Ping):
                yield Asked(event.payload)
            elif isinstance(event, Pong):
                yield Answered(event.payload)
            else:
                yield self._over(event)

    def _over(self, event: Close) -> Word:
        return Over(event.code, event.reason)

    def _part(self, part: Part) -> Iterator[Word]:
        data, fresh = part.data, part.first
        if part.first:
            self._channel, self._letters = -1, b""
        if self._channel < 0 and data:
            self._channel, data, fresh = self._number(data[0]), data[1:], True
        if self._channel == CLOSE:
            yield from self._ended(data, part.last)
        elif self._channel >= 0:
            said = self._decode(data, part.last)
            if said or (fresh and part.last):
                yield Said(self._channel, said)

    def _number(self, first: int) -> int:
        number = first - ord("0") if self._encoded else first
        if not (0 <= number < self._most or (number == CLOSE and self._closes)):
            raise RemoteProtocolError(f"a message for channel {number}, of {self._most}")
        return number

    def _ended(self, data: bytes, last: bool) -> Iterator[Word]:
        self._letters += data
        if len(self._letters) > 1 or (last and not self._letters):
            raise RemoteProtocolError("the end of a channel that is not one byte")
        if last:
            if self._letters[0] >= self._most:
                raise RemoteProtocolError(f"the end of channel {self._letters[0]}, of {self._most}")
            yield Ended(self._letters[0])

    def _decode(self, data: bytes, last: bool) -> bytes:
        if not self._encoded:
            return data
        letters = self._letters + data
        size = len(letters) - len(letters) % QUARTET
        # Padding ends a message: what might be it waits for what comes behind.
        size = size if last or b"=" not in letters[:size] else max(letters.index(b"=") // QUARTET * QUARTET, 0)
        self._letters = letters[size:]
        if (last and self._letters) or len(self._letters) > 2 * QUARTET:
            raise RemoteProtocolError("a message that is not in base64")
        try:
            return b64decode(letters[:size], validate=True)
        except ValueError:
            raise RemoteProtocolError("a message that is not in base64") from None

    # Writing

    def open(self, stream: int, last: bool) -> bytes:
        return b""                    # all of them are there

    def accept(self, stream: int) -> bytes:
        return b""

    def say(self, stream: int, data: bytes) -> bytes:
        return b"".join(self._message(stream, data[at:at + PIECE]) for at in range(0, max(len(data), 1), PIECE))

    def _message(self, stream: int, data: bytes) -> bytes:
        if self._encoded:
            return self._socket.message(bytes((ord("0") + stream,)) + b64encode(data), text=True)
        return self._socket.message(bytes((stream,)) + data)

    def end(self, stream: int) -> bytes:
        """Only clients say that."""
        return self._socket.message(bytes((CLOSE, stream))) if self._closes and self._client else b""

    def drop(self, stream: int, status: int) -> bytes:
        return b""

    def ask(self, token: bytes) -> bytes:
        return self._socket.ping(token)

    def answer(self, token: bytes) -> bytes:
        return self._socket.pong(token)

    def close(self, code: int, reason: str) -> bytes:
        return self._socket.close(code, reason)
