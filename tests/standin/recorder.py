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

from agent.contract.journal import EVENT, HEADER

stopping = False


def stop(*_: object) -> None:
    global stopping
    stopping = True


def take(journal: Path, out, taken: dict[str, int]) -> None:
    for path in sorted(journal.glob("*.journal")):
        data = path.read_bytes()
        at = taken.get(path.name, 0)
        while len(data) >= at + HEADER.size:
            kind, size, _ = HEADER.unpack_from(data, at)
            if len(data) < at + HEADER.size + size:
                break
            if kind == EVENT:
                event = msgspec.msgpack.decode(data[at + HEADER.size:at + HEADER.size + size])
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
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, stop)
    taken = {}
    if (Path(given.journal) / "taken").exists():
        taken = msgspec.msgpack.decode((Path(given.journal) / "taken").read_bytes(), type=dict[str, int])
    assert os.getuid() != 0
    with open(Path(given.recording) / "events", "ab") as out:
        while not stopping:
            take(Path(given.journal), out, taken)
            time.sleep(0.02)
        take(Path(given.journal), out, taken)
    return 0


if __name__ == "__main__":
    sys.exit(main())
