"""Weir's own connection against a server that is nobody's friend: what it is given, and how much is taken of it."""
from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pg8000.native  # type: ignore[import-untyped]
import pytest

from agent.contract.credential import Credential
from enforcer.protocols.postgresql.connection import open_connection

SECRET = "hunter2"


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


OK = message(b"R", struct.pack("!I", 0)) + message(b"Z", b"I")
COLUMN = message(b"T", b"\0\1" + b"a\0" + struct.pack("!IhIhih", 0, 0, 25, -1, -1, 0))
ROW = message(b"D", b"\0\1" + struct.pack("!I", 1) + b"x")


@contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[tuple[int, bytearray]]:
    """Its port, and all that it is sent."""
    listening, heard = socket.create_server(("127.0.0.1", 0)), bytearray()

    def serve() -> None:
        link, _ = listening.accept()
        with link, suppress(OSError):
            heard.extend(link.recv(1 << 16))
            answer(link)
            while data := link.recv(1 << 16):
                heard.extend(data)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listening.getsockname()[1], heard
    finally:
        thread.join(20)
        listening.close()
        assert not thread.is_alive()


def test_no_password_in_clear_text_without_tls() -> None:
    """A crew's login refuses it; Weir's own reading of the catalogue, and of plans, gave it to whoever asked."""
    def ask(link: socket.socket) -> None:
        link.sendall(message(b"R", struct.pack("!I", 3)))

    with serving(ask) as (port, heard), pytest.raises(pg8000.native.InterfaceError, match="clear text"):
        open_connection("127.0.0.1", port, Credential("svc", SECRET), "shop", None)
    assert SECRET.encode() not in heard
    assert b"svc" in heard


def test_no_more_is_read_than_fits() -> None:
    def say_much(link: socket.socket) -> None:
        link.sendall(b"S" + struct.pack("!I", 0x7FFFFFFF))
        for _ in range(64):
            link.sendall(bytes(1 << 20))

    with serving(say_much) as (port, _), pytest.raises(ValueError, match="more than may be read"):
        open_connection("127.0.0.1", port, Credential("svc"), "shop", None)


def test_no_more_rows_are_taken_than_were_asked_for() -> None:
    def give(link: socket.socket) -> None:
        link.sendall(OK)
        link.recv(1 << 16)
        link.sendall(COLUMN)
        while True:
            link.sendall(ROW * 1000)

    with serving(give) as (port, _):
        connection = open_connection("127.0.0.1", port, Credential("svc"), "shop", None, rows=10)
        with pytest.raises(ValueError, match="more rows"):
            connection.run("SELECT 1")
        with suppress(OSError, pg8000.native.InterfaceError):
            connection.close()


def test_no_more_bytes_are_taken_in_all() -> None:
    def give(link: socket.socket) -> None:
        link.sendall(OK)
        while True:
            link.sendall(message(b"N", b"SNOTICE\0Mx" + b"y" * 1000 + b"\0\0") * 100)

    with serving(give) as (port, _):
        connection = open_connection("127.0.0.1", port, Credential("svc"), "shop", None, bytes_=1 << 20)
        with pytest.raises(ValueError, match="more than may be read"):
            connection.run("SELECT 1")
        with suppress(OSError, pg8000.native.InterfaceError):
            connection.close()
