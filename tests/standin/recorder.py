"""A tiny recorder for the tests of the agent: takes whole records of every journal file, and writes the events it found
as JSON lines to RECORDING/events."""
from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

import msgspec

from agent.contract.journal import EVENT, HEADER, HostEvent
from agent.contract.ledger import LedgerAnswer
from enforcer.recording.answering import Door
from enforcer.recording.ledger import Book

stopping = False


def stop(*_: object) -> None:
    global stopping
    stopping = True


book = Book()
number = 0


def answer(question):
    return LedgerAnswer(question.number, book.open(question.before), len(book), dict(book.counts), {},
                        tuple(book.alarms))


def take(journal: Path, out, taken: dict[str, int]) -> None:
    global number
    for path in sorted(journal.glob("*.journal")):
        data = path.read_bytes()
        at = taken.get(path.name, 0)
        while len(data) >= at + HEADER.size:
            kind, size, _ = HEADER.unpack_from(data, at)
            if len(data) < at + HEADER.size + size:
                break
            if kind == EVENT:
                event = msgspec.msgpack.decode(data[at + HEADER.size:at + HEADER.size + size])
                number += 1
                if event[0] == 20:
                    book.see(number, HostEvent(*event))
                out.write(msgspec.json.encode({"name": event[3], "workload": event[4], **event[5]}) + b"\n")
            at += HEADER.size + size
        taken[path.name] = at
    out.flush()
    fresh = journal / ".taken.new"
    fresh.write_bytes(msgspec.msgpack.encode(taken))
    fresh.rename(journal / "taken")


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("journal", "recording", "checkpoint-seconds", "rotate-bytes"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--ledger", type=int, required=True)
    given = parser.parse_args()
    door = Door(given.ledger, answer)
    signal.signal(signal.SIGTERM, stop)
    taken = {}
    if (Path(given.journal) / "taken").exists():
        taken = msgspec.msgpack.decode((Path(given.journal) / "taken").read_bytes(), type=dict[str, int])
    assert os.getuid() != 0
    with open(Path(given.recording) / "events", "ab") as out:
        while not stopping:
            take(Path(given.journal), out, taken)
            door.turn()
            time.sleep(0.02)
        take(Path(given.journal), out, taken)
    return 0


if __name__ == "__main__":
    sys.exit(main())
