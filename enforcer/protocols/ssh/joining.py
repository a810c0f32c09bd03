"""What a layer says in pieces, in fewer.  Pure.

A client may send a message for every byte: a write and an event for each would let it fill a disk with little.  Pieces
of one stream between which nothing but bytes was sent are one piece, where the first stood: a record that stands
earlier still stands before its bytes.
"""
from __future__ import annotations

from typing import cast

from msgspec import structs

from enforcer.hot.chain import make_digest
from enforcer.words.commands import Command, Record, SendData
from enforcer.words.events import PIECE, Streamed


def join(commands: list[Command]) -> list[Command]:
    """The same, in order."""
    return _join_data(_join_pieces(commands) if len(commands) > 2 else commands)


def _join_data(commands: list[Command]) -> list[Command]:
    joined: list[Command] = []
    at = 0
    while at < len(commands):
        command, end = commands[at], at + 1
        if isinstance(command, SendData):
            while end < len(commands) and _goes_with(commands[end], command):
                end += 1
            if end - at > 1:
                data = b"".join(cast(SendData, one).data for one in commands[at:end])
                command = SendData(command.peer, data, command.answers)
        joined.append(command)
        at = end
    return joined


def _goes_with(more: Command, first: SendData) -> bool:
    return isinstance(more, SendData) and (more.peer, more.answers) == (first.peer, first.answers)


def _join_pieces(commands: list[Command]) -> list[Command]:
    joined: list[Command] = []
    run: list[Record] = []            # pieces that follow each other,
    place = 0                         # and where the first stands
    for command in commands:
        if isinstance(command, SendData):
            joined.append(command)
        elif isinstance(command, Record) and run and _follows(run, command):
            run.append(command)
        else:
            _close(joined, place, run)
            run, place = ([command], len(joined)) if isinstance(command, Record) and _is_piece(command) else ([], 0)
            joined.append(command)
    _close(joined, place, run)
    return joined


def _is_piece(record: Record) -> bool:
    return isinstance(record.event, Streamed) and len(record.blobs) == 1 and record.event.stream in ("in", "out", "err")


def _follows(run: list[Record], record: Record) -> bool:
    if not _is_piece(record):
        return False
    first, last, event = (cast(Streamed, one.event) for one in (run[0], run[-1], record))
    goes_on = (event.operation, event.stream, event.offset) == (last.operation, last.stream, last.offset + last.bytes)
    return goes_on and event.offset + event.bytes - first.offset <= PIECE and record.barrier == run[0].barrier


def _close(joined: list[Command], place: int, run: list[Record]) -> None:
    if len(run) < 2:
        return
    content, salt = b"".join(one.blobs[0][2] for one in run), run[0].blobs[0][1]
    digest = make_digest(salt, content)
    event = structs.replace(cast(Streamed, run[0].event), bytes=len(content), content=digest)
    joined[place] = structs.replace(run[0], event=event, blobs=((digest, salt, content),))
