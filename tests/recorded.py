"""What a recording holds, for who looks for something in it."""
from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import zstandard


def unpacked(file: Path) -> Iterator[bytes]:
    """What the recording holds compressed."""
    if file.suffix != ".sqlite":
        return
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as recording:
        tables = [name for (name,) in recording.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for value in (one for name in tables for row in recording.execute(f'SELECT * FROM "{name}"') for one in row):
            if isinstance(value, bytes) and value.startswith(zstandard.FRAME_HEADER):
                yield zstandard.ZstdDecompressor().decompress(value)
