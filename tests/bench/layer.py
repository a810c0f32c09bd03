"""Microseconds of processor time that the PostgreSQL layer takes for a statement, without sockets or a journal:

    PYTHONPATH=tests:. python -P -m bench.layer [STATEMENTS]

Says which module it measured, so that the sources and the installed (compiled) ones can be told apart.
"""
from __future__ import annotations

import sys
import time

from pump import SYNC, bind, describe, execute, parse, query, render
from scripted import Scripted, row

from enforcer.protocols.postgresql import conversation

TEXT = "SELECT id FROM t WHERE id = "
ROWS = render(b"T", b"\0\1id\0" + b"\0" * 6 + b"\0\0\0\x17\0\4\xff\xff\xff\xff\0\0")
DONE = row(b"1") + render(b"C", b"SELECT 1\0") + render(b"Z", b"I")
RUN = bind("1", name="s") + describe("P") + execute() + SYNC


def ask(mode: str, number: int) -> tuple[bytes, bytes]:
    """What the client sends and what the server answers."""
    if mode == "simple":
        return query(TEXT + str(number)), ROWS + DONE
    if mode == "extended":
        return (parse(TEXT + "$1") + bind("1") + describe("P") + execute() + SYNC,
                render(b"1") + render(b"2") + ROWS + DONE)
    return RUN, render(b"2") + ROWS + DONE


def measure(mode: str, statements: int) -> float:
    session = Scripted()
    if mode == "prepared":
        session.send(parse(TEXT + "$1", "s") + SYNC)
        session.hear(render(b"1") + render(b"Z", b"I"))
    pairs = [ask(mode, number) for number in range(statements)]
    session.records.clear()
    began = time.process_time()
    for asked, said in pairs:
        session.send(asked)
        session.hear(said)
        session.client = session.to_server = b""
        session.records.clear()
    took = time.process_time() - began
    assert not session.closed, session.closed
    assert session.layer.operations >= statements
    return took * 1e6 / statements


def main() -> None:
    statements = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    print(conversation.__file__.rpartition(".")[2])
    for mode in ("simple", "extended", "prepared"):
        print(f"{mode:9} {min(measure(mode, statements) for _ in range(3)):6.1f} µs")


if __name__ == "__main__":
    main()
