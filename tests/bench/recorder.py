"""Microseconds of processor time that the recorder takes for a statement (intent and result), and the rate.

    PYTHONPATH=.:tests python -m bench.recorder [STATEMENTS [RATE]]     500000 are a million events

The journal is written first, so that nothing else takes the processor; then the recorder takes it all.  With a RATE
(statements per second) the recorder follows a writer at that pace, as it does while crews work: small transactions.
The recorder's start is in the figure: take the one of a few statements away.  Compiling recording's modules with mypyc
gave about 4 percent in all: what is left is SQLite, BLAKE2 and msgspec.
"""
from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from enforcer.hot.chain import make_digest
from enforcer.recording.journal import JournalWriter
from enforcer.words import events

TEXT = b"SELECT abalance FROM pgbench_accounts WHERE aid = $1;"
SALT = b"t" * 16
EVERY = 50                            # statements in one write
SESSIONS = [letter * 26 for letter in "ABCDEFGH"]


def write(directory: Path, statements: int, rate: float = 0.0) -> float:
    """A pgbench-like load into the journal; processor microseconds of append and flush, a statement."""
    start = time.monotonic()
    writer = JournalWriter(directory, "enforcer0", os.urandom(8).hex(), limit=1 << 40, reserve=0)
    began, forwarded, text = time.process_time(), make_digest(b"k" * 32, TEXT), make_digest(SALT, TEXT)
    for number in range(1, statements + 1):
        session = SESSIONS[number % len(SESSIONS)]
        salt, parameters = os.urandom(16), msgspec.msgpack.encode([str(number)])
        named = make_digest(salt, parameters)
        writer.append(events.Intent(
            events.INTENT, time.time_ns(), number, session, number, "crew", "execute", 1, forwarded, text,
            named, (("sql:select", "public.pgbench_accounts"),), ("base:read",), (), "", "",
            False), ((text, SALT, TEXT), (named, salt, parameters)))
        writer.append(events.Result(
            events.RESULT, time.time_ns(), number, session, number, "ok", "SELECT 1", "", 1, 30, 1000, text, salt, (),
            b""))
        if number % EVERY == 0:
            writer.flush()
            if rate:
                time.sleep(max(0.0, start + number / rate - time.monotonic()))
    writer.flush()
    took = time.process_time() - began
    writer.close()
    return took / statements * 1e6


def main() -> None:
    statements = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    rate = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    with tempfile.TemporaryDirectory(dir="/var/tmp") as base:
        journal, recording = Path(base, "journal"), Path(base, "recording")
        journal.mkdir()
        recording.mkdir()
        if not rate:
            print(f"journal: {write(journal, statements):.1f} us a statement, digests included")
        began = time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", "enforcer.recording.recorder", "--journal", str(journal),
                                    "--recording", str(recording)])
        if rate:
            print(f"journal: {write(journal, statements, rate):.1f} us a statement, digests included")
        while any(journal.glob("*.journal")):
            time.sleep(0.02)
        took = time.monotonic() - began
        process.terminate()
        process.wait()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = used.ru_utime + used.ru_stime
        size = sum(path.stat().st_size for path in recording.glob("*.sqlite*"))
        print(f"recorder: {spent / statements * 1e6:.1f} us a statement, {statements * 2 / took:.0f} events/s, "
              f"{size / statements:.0f} bytes a statement, {used.ru_maxrss // 1024} MiB at most")


if __name__ == "__main__":
    main()
