"""Framing of journal files, and the one event that the agent itself writes.

A journal file belongs to one writer and is only appended to.  Its name is `WRITER-INSTANCE-NUMBER.journal`: WRITER
"enforcer0" or "agent", INSTANCE 16 hex digits drawn at the writer's start, NUMBER counts its files from 0.  It holds
records: kind (1 byte), length of body (4 bytes little-endian), CRC-32 of kind, length and body (4 bytes), body.

Kinds: EVENT, body = canonical event bytes (see enforcer/words/events.py); BLOB, body = 16 bytes salt, then content;
END, empty body: the writer closed the file in order (the next file of the same instance follows, or nothing).
A BLOB comes before the first event that names its digest = BLAKE2b-256(content, key=salt).
"""
from __future__ import annotations

import struct
import zlib
from typing import Final

import msgspec

HEADER: Final = struct.Struct("<BII")
EVENT: Final = 1
BLOB: Final = 2
END: Final = 3
BODY_LIMIT: Final = 32 << 20          # bytes of one record's body


def render_record(kind: int, body: bytes) -> bytes:
    crc = zlib.crc32(body, zlib.crc32(struct.pack("<BI", kind, len(body))))
    return HEADER.pack(kind, len(body), crc) + body


class HostEvent(msgspec.Struct, frozen=True, array_like=True):
    """Something that the agent did or saw: start, stop, release, connect seen, repair, refusal.  Canonical bytes are
    msgpack of the array, like every event (tag first: see words/events.py, kind 20)."""

    kind: int                         # always 20
    at: int                           # nanoseconds UTC
    monotonic: int                    # CLOCK_BOOTTIME nanoseconds
    name: str                         # "agent.started", "agent.stopped", "released", "connect", "repaired", "degraded"
    workload: str
    detail: dict[str, str]            # keys sorted before encoding


def render_host_event(event: HostEvent) -> bytes:
    """A whole EVENT record."""
    ordered = msgspec.structs.replace(event, detail=dict(sorted(event.detail.items())))
    return render_record(EVENT, msgspec.msgpack.encode(ordered))
