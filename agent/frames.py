"""Frames with descriptors over a Unix stream socket: 4 bytes little-endian length, body; SCM_RIGHTS with the first.

The kernel never glues bytes that came with descriptors to bytes sent after them (net/unix/af_unix.c,
unix_stream_read_generic), so descriptors are here, in order, when the frame that they came with is complete.
"""
from __future__ import annotations

import array
import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import Final

from agent.contract.frames import HEADER

DESCRIPTOR_LIMIT: Final = 16          # with one frame; unix(7) would allow 253
_PIECE: Final = 1 << 16


class FrameError(Exception):
    """The peer sent what is no frame, or more than the limit."""


class Frames:
    """The receiving end of one socket, blocking or not."""

    def __init__(self, sock: socket.socket, limit: int, *, descriptors: bool = True) -> None:
        """`limit`: bytes of a body.  Without `descriptors` the kernel closes what a peer attaches."""
        self._sock, self._limit, self._descriptors = sock, limit, descriptors
        self._bytes = bytearray()
        self._fds: deque[int] = deque()

    def receive(self) -> bool:
        """One recvmsg(2); False at the end of the stream.  Raises BlockingIOError, FrameError, OSError."""
        if not self._descriptors:
            data = self._sock.recv(min(_PIECE, self._limit + HEADER.size))
        else:
            room = socket.CMSG_SPACE(DESCRIPTOR_LIMIT * 4)
            data, ancillary, flags, _ = self._sock.recvmsg(_PIECE, room, socket.MSG_CMSG_CLOEXEC)
            self._fds.extend(parse_descriptors(ancillary))
            if flags & socket.MSG_CTRUNC or len(self._fds) > 4 * DESCRIPTOR_LIMIT:
                raise FrameError("too many descriptors")
        self._bytes += data
        return bool(data)

    def take(self) -> bytes | None:
        """The next complete body, or None.  Raises FrameError where the announced length is over the limit."""
        if len(self._bytes) < HEADER.size:
            return None
        size: int = HEADER.unpack_from(self._bytes)[0]
        if size > self._limit:
            raise FrameError(f"frame of {size} bytes, limit {self._limit}")
        if len(self._bytes) < HEADER.size + size:
            return None
        body = bytes(self._bytes[HEADER.size:HEADER.size + size])
        del self._bytes[:HEADER.size + size]
        return body

    def take_descriptors(self, count: int) -> list[int]:
        """The next `count` received, close-on-exec, now the caller's.  Raises FrameError where there are fewer."""
        if len(self._fds) < count:
            raise FrameError(f"{count} descriptors announced, {len(self._fds)} came")
        return [self._fds.popleft() for _ in range(count)]

    def next(self) -> bytes | None:
        """Blocking: the next body, None at the end of the stream."""
        while (body := self.take()) is None:
            if not self.receive():
                return None
        return body

    def close_descriptors(self) -> None:
        while self._fds:
            os.close(self._fds.popleft())


def parse_descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[:len(data) - len(data) % fds.itemsize])
    return list(fds)


def send_some(sock: socket.socket, frame: bytes | memoryview, fds: Sequence[int] = ()) -> int:
    """One sendmsg(2) of a frame's beginning with its descriptors; how many bytes went."""
    if not fds:
        return sock.send(frame, socket.MSG_NOSIGNAL)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
    return sock.sendmsg([frame], rights, socket.MSG_NOSIGNAL)


def send(sock: socket.socket, frame: bytes, fds: Sequence[int] = ()) -> None:
    """Blocking: a whole frame, `fds` with its first bytes."""
    rest = memoryview(frame)
    rest = rest[send_some(sock, rest, fds):]
    while rest:
        rest = rest[send_some(sock, rest):]
