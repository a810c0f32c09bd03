"""What a caller and the agent say to each other over the control socket, RUN/control.sock.

Each message is one frame: 4 bytes little-endian length, then msgpack of one tagged struct.  Descriptors travel by
SCM_RIGHTS with the first bytes of a frame.  A connection carries one request.

After `Run` the connection itself is handed to the launcher: from `Started` on, launcher and caller speak directly.  The
caller sends nothing between its `Run` and the answer.  Everything that a person may have typed is bytes, because file
names, arguments and environments need not be UTF-8.
"""
from __future__ import annotations

import struct

import msgspec

LIMIT = 4 << 20                       # bytes; execve(2) takes less than this of arguments and environment
SPOKEN_LIMIT = 256                    # bytes of a frame that a caller sends after `Started`
HEADER = struct.Struct("<I")


class Message(msgspec.Struct, frozen=True, tag=True):
    pass


class Run(Message, frozen=True):
    """Start a command.  The caller's own descriptors 0, 1 and 2 come with it, always all three."""

    workload: str
    user: str                         # named by --user; empty: the caller
    argv: tuple[bytes, ...]
    cwd: bytes
    env: dict[bytes, bytes]
    tty: bool                         # the launcher makes a terminal; descriptors that are none are passed through
    rows: int = 0
    columns: int = 0


class Started(Message, frozen=True):
    """The pid is of the initial pid namespace.  With `tty`, the master of the terminal comes with it."""

    pid: int


class Exited(Message, frozen=True):
    """As a shell's $?: 128 + n after signal n.  Nothing of the command is left when this is said."""

    code: int


class Failed(Message, frozen=True):
    """The command did not run.  125: Weir's own error or refusal; 126, 127: as a shell's."""

    code: int
    text: str


class Signal(Message, frozen=True):
    number: int


class Resize(Message, frozen=True):
    rows: int
    columns: int


ToRunner = Started | Exited | Failed
FromRunner = Signal | Resize

_encoder = msgspec.msgpack.Encoder()
_run = msgspec.msgpack.Decoder(Run)
_to_runner: msgspec.msgpack.Decoder[ToRunner] = msgspec.msgpack.Decoder(ToRunner)
_from_runner: msgspec.msgpack.Decoder[FromRunner] = msgspec.msgpack.Decoder(FromRunner)


def render_frame(message: Message) -> bytes:
    """One frame, length included."""
    body = _encoder.encode(message)
    if len(body) > LIMIT:
        raise ValueError(f"message of {len(body)} bytes, limit {LIMIT}")
    return HEADER.pack(len(body)) + body


def parse_length(head: bytes, limit: int = LIMIT) -> int:
    """Length of the body that follows these 4 bytes; ValueError where it is over the limit."""
    size: int = HEADER.unpack(head)[0]
    if size > limit:
        raise ValueError(f"message of {size} bytes, limit {limit}")
    return size


def parse_run(body: bytes) -> Run:
    return _run.decode(body)


def parse_to_runner(body: bytes) -> ToRunner:
    return _to_runner.decode(body)


def parse_from_runner(body: bytes) -> FromRunner:
    return _from_runner.decode(body)
