"""A connection of Weir's own, by pg8000, that holds against a server that is hostile or broken.

It takes so many bytes and rows and no more, and gives a password in clear text to nobody without TLS, as a crew's login
does not either (login.py).  How long it may take is its caller's to say.
"""
from __future__ import annotations

import ssl
from typing import Any, Final

import pg8000.native  # type: ignore[import-untyped]

from agent.contract.credential import Credential

TIMEOUT: Final = 20                   # seconds for each answer
BYTES: Final = 256 << 20              # that a server may say
ROWS: Final = 1_000_001               # that one statement may give
_CLEARTEXT: Final = 3                 # AuthenticationCleartextPassword, PostgreSQL 15 documentation 55.7


class _Bounded:
    """The file that pg8000 reads from and writes to."""

    def __init__(self, file: Any, room: int) -> None:
        self._file, self._room = file, room
        self.write, self.flush, self.close = file.write, file.flush, file.close

    def read(self, size: int) -> bytes:
        self._room -= size
        if size < 0 or self._room < 0:
            raise ValueError("the server says more than may be read of it")
        return self._file.read(size)  # type: ignore[no-any-return]


class Connection(pg8000.native.Connection):  # type: ignore[misc]
    """`bytes_`: that may be read in all."""

    def __init__(self, *words: Any, bytes_: int = BYTES, rows: int = ROWS, **options: Any) -> None:
        self._room, self._rows = bytes_, rows
        super().__init__(*words, **options)

    @property
    def _sock(self) -> Any:
        return self._bounded

    @_sock.setter
    def _sock(self, file: Any) -> None:
        self._bounded = file if file is None else _Bounded(file, self._room)

    def handle_AUTHENTICATION_REQUEST(self, data: bytes, context: Any) -> None:
        if int.from_bytes(data[:4], "big") == _CLEARTEXT and not isinstance(self._usock, ssl.SSLSocket):
            raise pg8000.native.InterfaceError(
                "the server asks for the password in clear text over a connection without TLS")
        super().handle_AUTHENTICATION_REQUEST(data, context)

    def handle_DATA_ROW(self, data: bytes, context: Any) -> None:
        if len(context.rows) >= self._rows:
            raise ValueError("the server gives more rows than were asked for")
        super().handle_DATA_ROW(data, context)


def open_connection(
    host: str, port: int, credential: Credential, database: str, ssl_context: object, link: Any = None,
    **bounds: int,
) -> Connection:
    """`ssl_context` None: without TLS.  `link`: a connected socket in place of (host, port).
    Raises what pg8000 raises, ValueError where the server says too much."""
    context: Any = ssl_context if isinstance(ssl_context, ssl.SSLContext) else False
    place: dict[str, Any] = {"unix_sock": host} if host.startswith("/") else {"host": host, "port": port}
    if link is not None:
        link.settimeout(TIMEOUT)      # pg8000 sets it on what it opens itself
        place = {"sock": link}
    try:
        return Connection(
            credential.user, **place, database=database, password=credential.password or None,
            ssl_context=context, timeout=TIMEOUT, application_name="weir", **bounds)
    except BaseException:
        if link is not None:
            link.close()
        raise
