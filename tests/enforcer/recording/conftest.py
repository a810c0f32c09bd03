"""A journal, a recorder in this process, and what they leave."""
from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import msgspec
import pytest
import tapes

from agent.contract.journal import HostEvent, render_host_event
from enforcer.recording import recorder as recording_process
from enforcer.recording.journal import JournalWriter
from enforcer.recording.read import Reader, open_recording
from enforcer.recording.recorder import Options, Recorder
from enforcer.recording.signing import load_signer
from enforcer.recording.store import newest_key
from enforcer.recording.verify import read_key, verify
from enforcer.recording.weir_verify import Report
from enforcer.words import events

ROOT = Path(__file__).resolve().parents[3]
SALT = b"s" * 16
DELIVERED = b"D\0\0\0\x0d\0\1\0\0\0\3row"       # one DataRow of one column


def digest(content: bytes, salt: bytes = SALT) -> bytes:
    return blake2b(content, digest_size=32, key=salt).digest()


class Scene:
    """`recorder` runs in this process, a turn at a time."""

    SALT = SALT

    def __init__(self, base: Path) -> None:
        self.base, self.journal, self.recording = base, base / "journal", base / "recording"
        self.journal.mkdir()
        self.recording.mkdir()
        self.writers: list[JournalWriter] = []
        self.recorder: Recorder | None = None
        self.at = time.time_ns()

    def writer(self, **options) -> JournalWriter:
        self.writers.append(JournalWriter(
            self.journal, "enforcer0", os.urandom(8).hex(), **{"limit": 1 << 30, "reserve": 0, **options}))
        return self.writers[-1]

    def options(self, **options) -> Options:
        return Options(self.journal, self.recording, **options)

    def start(self, **options) -> Recorder:
        self.recorder = Recorder(self.options(**options), load_signer(self.recording, newest_key(self.recording)))
        self.recorder._due.update(look=0.0, sync=0.0)
        return self.recorder

    def turn(self, times: int = 1) -> None:
        assert self.recorder
        for _ in range(times):
            self.recorder._due.update(look=0.0, sync=0.0)
            self.recorder.turn()

    def stop(self) -> None:
        assert self.recorder
        self.recorder.stopping = True
        self.recorder.stop()
        self.recorder = None

    def kill(self) -> None:
        """As kill -9 would: what was not committed is gone."""
        assert self.recorder
        self.recorder._store._db.close()
        os.close(self.recorder._store._wal)
        for file in self.recorder._files.values():
            file.close()
        self.recorder = None

    # events

    def opened(self, session: str = "S1", **more) -> events.SessionOpened:
        self.at += 1000
        values = {
            "kind": events.SESSION_OPENED, "at": self.at, "monotonic": 5, "session": session, "protocol": "postgresql",
            "target": "orders", "database": "shop", "role": "app", "subject": "local:zoë", "groups": ("data",),
            "workload": "crew", "uid": 1000, "pid": 4711, "exe": "/usr/bin/psql", "exe_sha256": "ab", "argv": ("psql",),
            "cgroup": "/crew", "cookie": 99, "destination": "10.0.0.1 5432", "attribution": "mark",
            "client_tls": "TLSv1.3", "upstream": "weir@10.0.0.1:5432", "application": "psql", "backend": 77}
        return events.SessionOpened(**{**values, **more})

    def intent(self, number: int, session: str = "S1", text: bytes = b"SELECT 1", parameters: bytes = b"", **more
               ) -> tuple[events.Intent, tuple[events.Blob, ...]]:
        self.at += 1000
        blobs: tuple[events.Blob, ...] = ((digest(text), SALT, text),)
        if parameters:
            blobs += ((digest(parameters, b"p" * 16), b"p" * 16, parameters),)
        values = {
            "kind": events.INTENT, "at": self.at, "monotonic": 6, "session": session, "operation": number,
            "actor": "crew", "verb": "query", "decision": 1, "forwarded": digest(text, b"f" * 32), "text": digest(text),
            "parameters": digest(parameters, b"p" * 16) if parameters else b"",
            "requests": (("sql:select", "public.orders"),), "rules": ("base:read",), "masks": ("pii.email",),
            "reason": "", "ticket": "", "durable": False}
        return events.Intent(**{**values, **more}), blobs

    def result(self, number: int, session: str = "S1", payload: bytes = b"", error: bytes = b"", **more
               ) -> tuple[events.Result, tuple[events.Blob, ...]]:
        self.at += 1000
        blobs = tuple((digest(one), SALT, one) for one in (payload, error) if one)
        values = {
            "kind": events.RESULT, "at": self.at, "monotonic": 7, "session": session, "operation": number,
            "status": "error" if error else "ok", "tag": "SELECT 1", "sqlstate": "42501" if error else "", "rows": 1,
            "bytes": 9, "duration": 1500, "response": digest(payload) if payload else b"", "salt": SALT,
            "payload": (digest(payload),) if payload else (), "error": digest(error) if error else b""}
        return events.Result(**{**values, **more}), blobs

    def closed(self, session: str = "S1", **more) -> events.SessionClosed:
        self.at += 1000
        values = {"kind": events.SESSION_CLOSED, "at": self.at, "monotonic": 8, "session": session,
                  "reason": "client closed", "operations": 1, "bytes_in": 10, "bytes_out": 20}
        return events.SessionClosed(**{**values, **more})

    def all_kinds(self, writer: JournalWriter, session: str = "S1") -> None:
        """One of each kind that an enforcer writes, of a session that ends."""
        bound = b"\1" * 32
        writer.append(self.opened(session))
        writer.append(*self.intent(1, session, b"SELECT 'it''s ' || chr(0x1b)", b"\x92\xa1x\xc0"))
        writer.append(*self.result(1, session, DELIVERED * 214))
        writer.append(*self.intent(2, session, b"DELETE FROM t" + b" " * 5000, decision=3, ticket="T1",
                                   rules=("a", "b")))
        writer.append(events.HoldChanged(5, self.at, 1, session, 2, "T1", "pending", "", "", self.at, bound))
        writer.append(*self.result(2, session, b"", "rechte nicht da: ÄÖ\u2028".encode()))
        writer.append(events.Gap(6, self.at, 1, session, (3, 4), "a \x00 gap"))
        writer.append(events.Refused(
            7, self.at, 1, "crew", "local:x", 1, "/bin/nc", "10.0.0.9 22", "", "no", ("deny",)))
        writer.append(events.FlowOpened(
            8, self.at, 1, "F1", "model", "local:x", "crew", 1, "/bin/curl", "", ("curl", "-s"), "10.0.0.2 443",
            "mark"))
        writer.append(events.Configured(
            events.CONFIGURED, self.at, 1, "d" * 64, {"/etc/weir/weir.toml": "e" * 64}, "f" * 16))
        writer.append(events.FlowNoted(
            10, self.at, 1, "F1", "shadow", "tls", "api.example", "name", "TLS for 'api.example'"))
        size, *flowed = tapes.flow((0, "size", b"80x24"), (1, "out", b"hello \xff"), at=self.at, session=session)
        writer.append(*size)
        writer.append(events.SessionNoted(events.SESSION_NOTED, self.at, 1, session, "shared", "yes"))
        for event, blobs in flowed:
            writer.append(event, blobs)
        writer.append(events.FlowClosed(9, self.at, 1, "F1", 5, 6, "done"))
        writer.append(self.closed(session))
        writer.flush()

    def host_event(self, name: str = "agent.started", detail: dict[str, str] | None = None) -> None:
        path = self.journal / f"agent-{os.urandom(8).hex()}-0.journal"
        path.write_bytes(render_host_event(HostEvent(20, self.at, 1, name, "crew", detail or {"b": "2", "a": "1"})))

    # what there is now

    def files(self) -> list[Path]:
        return sorted(self.recording.glob("recording-*.sqlite"), key=lambda path: int(path.stem.split("-")[-1]))

    def rows(self, statement: str, *values) -> list[tuple]:
        found = []
        for path in self.files():
            db = sqlite3.connect(path)
            found += db.execute(statement, values).fetchall()
            db.close()
        return found

    def names(self) -> list[str]:
        return [row[0] for row in self.rows("SELECT name FROM recorder_event ORDER BY seq")]

    def journal_files(self) -> list[str]:
        return sorted(path.name for path in self.journal.glob("*.journal"))

    def taken(self) -> dict[str, int]:
        return msgspec.msgpack.decode((self.journal / "taken").read_bytes(), type=dict[str, int])

    def verify(self, *paths: Path, **options) -> Report:
        return verify(paths or (self.recording,), [read_key(self.recording / "signing.pub")], **options)

    def assert_verified(self) -> Report:
        report = self.verify()
        assert report.problems == []
        return report

    def reader(self) -> Reader:
        return open_recording(self.recording)

    def spawn(self, *options: str) -> subprocess.Popen[bytes]:
        """The recorder as a process."""
        return subprocess.Popen(
            [sys.executable, "-m", "enforcer.recording.recorder", "--journal", str(self.journal), "--recording",
             str(self.recording), *options],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE)

    def close(self) -> None:
        if self.recorder is not None:
            self.kill()
        for writer in self.writers:
            for fd in (*writer._retired, writer._fd):
                if fd >= 0:
                    os.close(fd)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for what is gone."""
    monkeypatch.setattr(recording_process, "GONE", 0.0)


@pytest.fixture(scope="session")
def make_scene() -> type[Scene]:
    return Scene
