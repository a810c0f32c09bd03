"""Sessions with streams, as the enforcer writes them, of what a test says was typed and shown."""
from __future__ import annotations

from hashlib import blake2b, sha256
from typing import Any

from enforcer.words import events

SALT = b"t" * 16
MILLISECOND = 10**6


def digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=32, key=SALT).digest()


def streamed(stream: str, content: bytes, *, at: int, after: int = 0, session: str = "S1", operation: int = 1,
             offset: int = 0) -> tuple[events.Streamed, tuple[events.Blob, ...]]:
    """`at`: nanoseconds UTC of the session's beginning, `after` milliseconds."""
    blobs = ((digest(content), SALT, content),) if content else ()
    return events.Streamed(
        events.STREAMED, at + after * MILLISECOND, 1000 + after * MILLISECOND, session, operation, stream, offset,
        len(content), digest(content) if content else b""), blobs


def ended(stream: str, whole: bytes, *, at: int, after: int = 0, session: str = "S1", operation: int = 1,
          kept: int = -1) -> tuple[events.StreamEnded, tuple[events.Blob, ...]]:
    said = sha256(whole).hexdigest().encode()
    return events.StreamEnded(
        events.STREAM_ENDED, at + after * MILLISECOND, 1000 + after * MILLISECOND, session, operation, stream,
        len(whole), len(whole) if kept < 0 else kept, digest(said) if whole else b""), (
            ((digest(said), SALT, said),) if whole else ())


def flow(*pieces: tuple[int, str, bytes], at: int, session: str = "S1", operation: int = 1, end: bool = True
         ) -> list[tuple[Any, tuple[events.Blob, ...]]]:
    """(milliseconds, stream, content) and their ends."""
    whole: dict[str, bytes] = {}
    made: list[tuple[Any, tuple[events.Blob, ...]]] = []
    last = 0
    for after, stream, content in pieces:
        flowing = stream in ("in", "out", "err")
        made.append(streamed(stream, content, at=at, after=after, session=session, operation=operation,
                             offset=len(whole.get(stream, b"")) if flowing else 0))
        if flowing:
            whole[stream] = whole.get(stream, b"") + content
        last = after
    return made + [ended(stream, content, at=at, after=last, session=session, operation=operation)
                   for stream, content in whole.items() if end]


TERMINAL = (
    (0, "size", b"80x24"), (10, "out", b"\x1b]0;agent@db-1\x07\x1b[1;32magent@db-1\x1b[0m:~$ "), (900, "in", b"l"),
    (910, "out", b"l"), (1000, "in", b"x\x7fs\r"), (1010, "out", b"x\b \bs\r\n"),
    (1050, "out", b"\x1b[01;34mnotes\x1b[0m  pas\bss.txt  gr\xc3"), (1060, "out", b"\xbc\xc3\x9fe\r\n"),
    (1070, "out", b"\x1b]52;c;ZXZpbA==\x07\x1b[6n\x1b[c"), (60000, "size", b"100x30"),
    (60500, "out", b"\x1b[1;32magent@db-1\x1b[0m:~$ "), (61000, "in", b"exit\r"), (61010, "out", b"exit\r\n"))
EXEC = ((0, "in", b"select 1;\n"), (20, "out", b"one\ttwo\n"), (25, "err", b"warning: \x1b[31mdisk full\x1b[0m\n"),
        (30, "out", b"three\n"))


def write_session(scene: Any, writer: Any, session: str = "S1", end: bool = True) -> None:
    """A shell with a terminal as operation 1, an exec as 2."""
    writer.append(scene.opened(session, protocol="ssh", target="db-1", database="", role="agent"))
    at = scene.at
    writer.append(events.SessionNoted(events.SESSION_NOTED, at, 1, session, "shared", "two clients"))
    writer.append(*scene.intent(1, session, b"shell", verb="shell", requests=(("ssh:shell", "db-1 agent"),), masks=()))
    for one in flow(*TERMINAL, at=at, session=session, end=end):
        writer.append(*one)
    if end:
        writer.append(*scene.result(1, session, tag="exit 0", rows=0))
    writer.append(*scene.intent(2, session, b"psql -c -", verb="exec", requests=(("ssh:exec", "db-1 agent psql"),),
                                masks=()))
    for one in flow(*EXEC, at=at + 62 * 10**9, session=session, operation=2, end=end):
        writer.append(*one)
    if end:
        writer.append(*scene.result(2, session, tag="exit 1", rows=0))
        writer.append(scene.closed(session))
    writer.flush()
