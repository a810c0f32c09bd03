#!/usr/bin/env python3
"""Verify a Weir recording.  One file, Python 3.9 or later, nothing but its standard library.

    python3 weir_verify.py [--key signing.pub] [--expect SEQ:HEAD] [--json] FILE|DIRECTORY ...

What it proves: nobody changed, removed, added or moved an event; the rows with plain columns say what the events say;
texts, parameters and payload are what the events were made with; every signature is of the key that was given; the
files follow one another.  What it cannot know: events that were cut off together with everything signed after them;
and who wrote the events after the last checkpoint ("not signed"): anybody may have, in place of others.
Who keeps a checkpoint elsewhere asks for it with --expect (number and head of an event, from table `checkpoint`).

Without --key the key that the files themselves name is used: then whoever made the files anew is not noticed.
One key is enough for a recording whose key was changed: old and new key have both signed that, each vouches for the
other, and a file after the change has to be signed by the new one.

Exit codes: 0 verified, 1 not, 2 usage or a file that cannot be read, 3 verified as far as it is signed, and events
older than the last hour are not.  How the chain is made: docs/recording.md.
"""
# ruff: noqa: B905, S608 (zip has no strict= in Python 3.9; the table names in statements are of COLUMNS)
from __future__ import annotations

import argparse
import base64
import json
import re
import shutil
import sqlite3
import stat
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b, sha512
from pathlib import Path
from typing import Any
from urllib.parse import quote

FORMAT = 1
MOST_PROBLEMS = 200                   # that are told; more are counted
LARGEST_BLOB = 32 << 20
UNSIGNED = 70 * 60                    # seconds; [recording] checkpoint is an hour at most
CHANGED = "key.changed"              # event of another signing key, which both keys have signed
NAME = re.compile(r"recording-[0-9]{8}T[0-9]{6}Z-([0-9]+)\.sqlite")
RECORDER, ERASURE = 30, 31

# Table of each kind of event, and from which field of the event each column after seq comes.  Suffixes: j as JSON,
# b bytes (empty is NULL), B digest of the blob whose id the column holds, P the same for a JSON list, h hex digests as
# JSON, t truth value.
COLUMNS = {
    1: ("session_opened", "1 3 4 5 6 7 8 9j 10 11 12 13 14 15j 16 17 18 19 20 21 22 23"),
    2: ("session_closed", "1 3 4 5 6 7"),
    3: ("intent", "1 3 4 5 6 7 8b 9B 10B 11j 12j 13j 14 15 16t 17j"),
    4: ("result", "1 3 4 5 6 7 8 9 10 11b 13P 14B"),
    5: ("hold", "1 3 4 5 6 7 8 9 10b 11 12 13 14 15"),
    6: ("gap", "1 3 4j 5"),
    7: ("refused", "1 3 4 5 6 7 8 9 10j 11"),
    8: ("flow_opened", "1 3 4 5 6 7 8 9 10j 11 12 13"),
    9: ("flow_closed", "1 3 4 5 6"),
    10: ("flow_noted", "1 3 4 5 6 7 8"),
    11: ("configured", "1 3 4j 5"),
    12: ("streamed", "1 3 4 5 6 7 8B"),
    13: ("stream_ended", "1 3 4 5 6 7 8B"),
    14: ("session_noted", "1 3 4 5"),
    20: ("host_event", "1 3 4 5j"),
    30: ("recorder_event", "1 3 4j"),
    31: ("erasure", "1 3h 4 5 6"),
}
FIELDS = {
    kind: [(int(re.sub(r"\D", "", one)), re.sub(r"\d", "", one)) for one in columns.split()]
    for kind, (_, columns) in COLUMNS.items()
}

# First 16 hex digits of the BLAKE2b-256 of each CREATE statement.
SCHEMA: dict[str, str] = {
    # SCHEMA-BEGIN
    "blob": "eb776aa992e971f2",
    "checkpoint": "cdf4239afe452523",
    "checkpoints": "9b332001036a0845",
    "configurations": "22a9afa5f79169f7",
    "configured": "5c0f0fd673402c21",
    "erased": "7b2092ab68c2863f",
    "erasure": "366ba57a1002168a",
    "event": "1d27bf2aaf83bd35",
    "file": "fab8b82e4b9c7265",
    "flow_closed": "a6cb6946a2992ada",
    "flow_closed_flow": "90c9f86da4be8f34",
    "flow_noted": "fe53ce12071f51ac",
    "flow_noted_flow": "7f3047601c5a3f1a",
    "flow_notes": "cc73720a629357c8",
    "flow_opened": "2d516a4902ae6985",
    "flow_opened_flow": "b102d605b7072eab",
    "flows": "317543a65a240d17",
    "gap": "58e1e4be4d7ea4ab",
    "gap_session": "604869c951763334",
    "gaps": "b9c907c0d546f495",
    "hold": "f18db7664ef0aee8",
    "hold_session": "32275be1ad3d2613",
    "holds": "bdf606aea0a87beb",
    "host_event": "2d8b8df57d1db489",
    "host_events": "4b1f148e26f0f6a8",
    "intent": "dc4763ec11b6ebc4",
    "intent_operation": "b8769df24850fb89",
    "live": "48d710aafd78732e",
    "live_operation": "4369a83a28b15a86",
    "notes": "65857b105ce1cec0",
    "operations": "68f184f4a4eca4d4",
    "position": "f74ec46be73c7b5f",
    "recorder_event": "8744db0b22d13dc7",
    "recorder_events": "c8175c1b99d31bb1",
    "refusals": "7928872ea9da5ce0",
    "refused": "47ba904f6969400d",
    "result": "6b4d8d0e29a104a4",
    "result_operation": "fe01673de9888dd5",
    "session_closed": "ba9efbccef194c76",
    "session_closed_session": "db29f3b9c4bd635c",
    "session_noted": "97e1cdb37ad26588",
    "session_noted_session": "dac7fd8dc6fdfcd9",
    "session_opened": "8337f5852e6b7cc4",
    "session_opened_session": "5c71ecca1034bf9d",
    "sessions": "ebb2f34d50703372",
    "state": "6ac902867435c47b",
    "stream_ended": "384fb1197caf1848",
    "stream_ended_operation": "33001ea2e5017811",
    "streamed": "4aefe9fb58a36840",
    "streamed_begin": "5ef1d6cd4c7ec1cd",
    "streamed_operation": "075b5be0bbf4035c",
    "streams": "a19f07dcb5bdec4e",
    # SCHEMA-END
}
# What files of earlier builds have: columns came at the end.
# And what they do not have, build by build.
LATER = (frozenset(("flow_noted", "flow_noted_flow", "flow_notes")), frozenset(("configured", "configurations")),
         frozenset(("streamed", "streamed_operation", "streamed_begin", "stream_ended", "stream_ended_operation",
                    "session_noted", "session_noted_session", "streams", "notes")))
OLDER = {"flow_opened": "5993b5c693250594", "refused": "4bb5a23cd02cead4", "hold": "2ffbf39d8d461728",
         "holds": "9507d60be96724e0", "intent": "17deb71aa2afc9c4", "operations": "347129c5f0f201a1"}


def plain(text: str) -> str:
    """What a file's name or its tables' names say must not steer the terminal that shows it."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


class Unreadable(Exception):
    """Not a recording at all."""

    def __init__(self, text: str) -> None:
        super().__init__(plain(text))


class Report:
    """`problems` empty: verified.  `notes` say what was not, or could not be, looked at."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.more = 0
        self.counts: dict[str, int] = dict.fromkeys(
            ("files", "events", "omitted", "blobs", "erased", "unopened", "checkpoints", "unsigned"), 0)
        self.head: tuple[int, str] = (0, "")
        self.overdue = False          # events should have been signed long ago, or say nothing of when they were made

    @property
    def code(self) -> int:
        """The exit code."""
        return 1 if self.problems else 3 if self.overdue else 0

    def problem(self, text: str) -> None:
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(plain(text))
        else:
            self.more += 1

    def note(self, text: str) -> None:
        if plain(text) not in self.notes:
            self.notes.append(plain(text))


# The chain: see enforcer/hot/chain.py, made here a second time on purpose.


def digest(data: bytes, key: bytes = b"") -> bytes:
    return blake2b(data, digest_size=32, key=key).digest()


def make_leaf(seq: int, body: bytes) -> bytes:
    return digest(b"\0" + struct.pack(">Q", seq) + body)


def merkle(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, section 2.1, level by level: an odd last node goes up as it is."""
    if not leaves:
        return digest(b"")
    level = list(leaves)
    while len(level) > 1:
        above = [digest(b"\1" + level[at] + level[at + 1]) for at in range(0, len(level) - 1, 2)]
        level = above + ([level[-1]] if len(level) % 2 else [])
    return level[0]


# msgpack


def unpack(data: bytes) -> Any:
    """One msgpack value, the whole of `data`.  Raises ValueError."""
    try:
        value, at = _unpack(data, 0, 0)
    except (IndexError, struct.error, UnicodeDecodeError, TypeError) as reason:
        raise ValueError(f"not msgpack: {reason}") from None
    if at != len(data):
        raise ValueError("bytes after the end")
    return value


_SIZED = {
    0xC4: (">B", "bin"), 0xC5: (">H", "bin"), 0xC6: (">I", "bin"), 0xD9: (">B", "str"), 0xDA: (">H", "str"),
    0xDB: (">I", "str"), 0xDC: (">H", "array"), 0xDD: (">I", "array"), 0xDE: (">H", "map"), 0xDF: (">I", "map"),
}
_NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i",
    0xD3: ">q",
}


def _unpack(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if depth > 16:
        raise ValueError("too deep")
    first = data[at]
    at += 1
    if first < 0x80:
        return first, at
    if first >= 0xE0:
        return first - 0x100, at
    if first < 0xC0:
        if first >= 0xA0:
            return _unpack_sized("str", first & 0x1F, data, at, depth)
        return _unpack_sized("array" if first >= 0x90 else "map", first & 0x0F, data, at, depth)
    if first in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[first], at
    if first in _NUMBERS:
        form = _NUMBERS[first]
        return struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)
    if first not in _SIZED:
        raise ValueError(f"type {first:#x}")
    form, what = _SIZED[first]
    return _unpack_sized(what, struct.unpack_from(form, data, at)[0], data, at + struct.calcsize(form), depth)


def _unpack_sized(what: str, size: int, data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if size > len(data) - at:         # each element takes a byte at least
        raise ValueError("cut off")
    if what in ("bin", "str"):
        piece = data[at:at + size]
        return (piece if what == "bin" else piece.decode()), at + size
    if what == "array":
        items = []
        for _ in range(size):
            item, at = _unpack(data, at, depth + 1)
            items.append(item)
        return items, at
    pairs = {}
    for _ in range(size):
        key, at = _unpack(data, at, depth + 1)
        pairs[key], at = _unpack(data, at, depth + 1)
    return pairs, at


def pack(value: Any) -> bytes:
    """The shortest form of what an erasure is made of."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        if value < 0x80:
            return bytes([value])
        for code, form, limit in ((0xCC, ">B", 8), (0xCD, ">H", 16), (0xCE, ">I", 32), (0xCF, ">Q", 64)):
            if value >> limit == 0:
                return bytes([code]) + struct.pack(form, value)
    if isinstance(value, str):
        data = value.encode()
        return (bytes([0xA0 | len(data)]) if len(data) < 32 else _pack_size((0xD9, 0xDA, 0xDB), len(data))) + data
    if isinstance(value, bytes):
        return _pack_size((0xC4, 0xC5, 0xC6), len(value)) + value
    if isinstance(value, list):
        head = bytes([0x90 | len(value)]) if len(value) < 16 else _pack_size((None, 0xDC, 0xDD), len(value))
        return head + b"".join(map(pack, value))
    raise ValueError(f"cannot pack {value!r}")


def _pack_size(codes: Sequence[int | None], size: int) -> bytes:
    for code, form, limit in zip(codes, (">B", ">H", ">I"), (8, 16, 32)):
        if code is not None and size >> limit == 0:
            return bytes([code]) + struct.pack(form, size)
    raise ValueError("too long")


# Ed25519, RFC 8032, section 5.1: verification only, so that time does not matter.

_P = 2**255 - 19
_Q = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, _P - 2, _P) % _P
_ROOT = pow(2, (_P - 1) // 4, _P)
_Point = tuple[int, int, int, int]


def _add(one: _Point, other: _Point) -> _Point:
    a, b = (one[1] - one[0]) * (other[1] - other[0]) % _P, (one[1] + one[0]) * (other[1] + other[0]) % _P
    c, d = 2 * one[3] * other[3] * _D % _P, 2 * one[2] * other[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _multiply(number: int, point: _Point) -> _Point:
    result: _Point = (0, 1, 1, 0)
    while number:
        if number & 1:
            result = _add(result, point)
        point = _add(point, point)
        number >>= 1
    return result


def _equal(one: _Point, other: _Point) -> bool:
    return (one[0] * other[2] - other[0] * one[2]) % _P == 0 and (one[1] * other[2] - other[1] * one[2]) % _P == 0


def _recover(y: int, sign: int) -> int | None:
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    if square == 0:
        return None if sign else 0
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT % _P
    if (x * x - square) % _P:
        return None
    return _P - x if x & 1 != sign else x


def _decompress(data: bytes) -> _Point | None:
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    x = _recover(y, sign)
    return None if x is None else (x, y, 1, x * y % _P)


_BASE_Y = 4 * pow(5, _P - 2, _P) % _P
_BASE_X = _recover(_BASE_Y, 0) or 0
_BASE: _Point = (_BASE_X, _BASE_Y, 1, _BASE_X * _BASE_Y % _P)


def verify_signature(public: bytes, signature: bytes, text: bytes) -> bool:
    if len(public) != 32 or len(signature) != 64:
        return False
    key, nonce = _decompress(public), _decompress(signature[:32])
    number = int.from_bytes(signature[32:], "little")
    if key is None or nonce is None or number >= _Q:
        return False
    challenge = int.from_bytes(sha512(signature[:32] + public + text).digest(), "little") % _Q
    return _equal(_multiply(number, _BASE), _add(nonce, _multiply(challenge, key)))


def parse_key(text: bytes) -> bytes:
    """A public key: PEM (SubjectPublicKeyInfo, RFC 8410) or 64 hex digits.  Raises ValueError."""
    stripped = text.strip()
    if re.fullmatch(rb"[0-9a-fA-F]{64}", stripped):
        return bytes.fromhex(stripped.decode())
    found = re.fullmatch(rb"-----BEGIN PUBLIC KEY-----\s+(.*?)\s+-----END PUBLIC KEY-----", stripped, re.S)
    der = base64.b64decode(found.group(1)) if found else b""
    if len(der) != 44 or der[:12] != bytes.fromhex("302a300506032b6570032100"):
        raise ValueError("no Ed25519 public key (PEM or 64 hex digits)")
    return der[12:]


# zstd is the one thing that the standard library lacks (before 3.14).


def find_zstd() -> Callable[[bytes, int], bytes] | None:
    try:
        import zstandard  # noqa: F401
        return _run_zstandard
    except ImportError:
        pass
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]
        return lambda body, size: zstd.ZstdDecompressor().decompress(body, size + 1)  # type: ignore[no-any-return,unused-ignore]
    except ImportError:
        pass
    program = shutil.which("zstd")
    if program is None:
        return None
    return lambda body, size: _run_zstd(str(program), body, size)


def _run_zstandard(body: bytes, size: int) -> bytes:
    import zstandard
    # max_output_size holds only for frames that do not say their size.
    if zstandard.frame_content_size(body) not in (-1, size):
        raise ValueError("it is of another size")
    return zstandard.ZstdDecompressor().decompress(body, max_output_size=size)


def _run_zstd(program: str, body: bytes, size: int) -> bytes:
    with tempfile.TemporaryFile() as packed:      # no pipe: zstd would wait for us to read while we wait for it
        packed.write(body)
        packed.seek(0)
        with subprocess.Popen([program, "-dcq"], stdin=packed, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            content = process.stdout.read(size + 1)
            process.stdout.close()
    return content


# Files


def unfit(path: Path) -> str:
    """Why this cannot be a recording's file, before SQLite opens it; empty where it may be one."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            return "is a directory, not a file" if stat.S_ISDIR(mode) else "is not a regular file"
        with open(path, "rb") as file:
            head = file.read(16)
    except FileNotFoundError:
        return "there is no such file or directory"
    except OSError as reason:
        return reason.strerror or str(reason)
    if not head:
        return "is empty, and so no recording"
    # SQLite's file format, 1.3
    return "" if head == b"SQLite format 3\0" else "is no recording: not an SQLite file"


def explain(reason: sqlite3.Error) -> str:
    """What SQLite says of a file that it cannot read, in terms of recordings."""
    return "is no recording, but some other SQLite file" if "no such table" in str(reason) or "no such column" in str(
        reason) else f"cannot be read: {reason}"


class Recording:
    """One file, read in one transaction: what is appended meanwhile is not seen."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        if wrong := unfit(path):
            raise Unreadable(f"{path}: {wrong}")
        try:
            row = self._open("mode=ro")
        except sqlite3.Error as reason:
            # Without -wal, and without the right to make one, only "immutable" opens a file whose header says WAL.  It
            # passes over a -journal, which who may write would roll the file back by.
            if Path(f"{path}-wal").exists() or Path(f"{path}-journal").exists():
                raise Unreadable(f"{path}: {explain(reason)}") from None
            try:
                row = self._open("mode=ro&immutable=1")
            except sqlite3.Error:
                raise Unreadable(f"{path}: {explain(reason)}") from None
        if row is None or row[0] != FORMAT or not (
                all(isinstance(row[at], bytes) for at in (1, 4, 6)) and all(isinstance(row[at], int) for at in (2, 3))):
            self.db.close()
            raise Unreadable(f"{path}: not a recording of format {FORMAT}")
        _, self.recording, self.number, self.seq_before, self.head_before, self.closed, self.public = row

    def _open(self, options: str) -> Any:
        self.db = sqlite3.connect(f"file:{quote(str(self.path))}?{options}", uri=True, isolation_level=None)
        try:
            self.db.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
            self.db.execute("PRAGMA trusted_schema=OFF")
            self.db.execute("PRAGMA query_only=ON")
            self.db.execute("BEGIN")
            found = self.schema()
            if "file" not in dict(found):
                raise sqlite3.OperationalError("no such table: file")
            if ("file", SCHEMA["file"]) not in found:
                return None           # a view in its place might go on for ever
            return self.db.execute("SELECT format, recording, number, seq_before, head_before, closed, public_key "
                                   "FROM file").fetchone()
        except BaseException:
            self.db.close()
            raise

    def schema(self) -> set[tuple[str, str]]:
        """Name and digest of every CREATE statement.  A name may be there twice: triggers have names of their own."""
        return {(str(name), digest(str(sql).encode(errors="surrogateescape")).hex()[:16]) for name, sql in
                self.rows("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")}

    def rows(self, statement: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        return iter(self.db.execute(statement, values))


class Verification:
    """Over files in the order of the chain."""

    def __init__(self, keys: Iterable[bytes], expect: Iterable[tuple[int, bytes]],
                 check: Callable[[bytes, bytes, bytes], bool]) -> None:
        self.report = Report()
        self._keys = list(keys)
        self._changes: dict[bytes, bytes] = {}         # public key -> its successor, as both have signed it
        self._ends_with: dict[str, bytes] = {}         # file -> the key of the one after it, where it is another
        self._expect: dict[int, bytes] = dict(expect)
        self._check = check
        self._zstd = find_zstd()
        # Of one checkpoint's interval, or of the unsigned tail: there the recorder says what was missing, and what
        # nobody signed excuses nothing that was signed.
        self._missing: dict[bytes, str] = {}           # digest -> where it is named
        self._excused: set[bytes] = set()              # by the recorder's own events
        self._seq, self._head = 0, b""
        self._oldest = self._newest = time.time_ns()   # of the events since the last checkpoint

    def run(self, files: Sequence[Recording]) -> Report:
        previous: Recording | None = None
        sound = [self._readable(file, self._verify_schema) for file in files]
        for file, fine in zip(files, sound):
            if fine:                  # what something else in a table's place gives need not end
                self._readable(file, self._learn)
        self._keys = self._vouched(self._keys)
        for file, fine in zip(files, sound):
            self._link(previous, file)
            if fine:
                self._readable(file, self._verify_file)
            self.report.counts["files"] += 1
            previous = file
        self._finish(previous)
        return self.report

    def _readable(self, file: Recording, look: Callable[[Recording], bool | None]) -> bool:
        """What `look` says; False where the file cannot be read."""
        try:
            return look(file) is not False
        except (sqlite3.Error, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, struct.error,
                RecursionError) as reason:
            self.report.problem(f"{file.name}: cannot be read to its end: {reason}")
            return False

    def _learn(self, file: Recording) -> None:
        """Changes of the signing key.  A row that is not there, or says something else, is found later."""
        for (body,) in file.rows("SELECT e.body FROM recorder_event r JOIN event e ON e.seq = r.seq WHERE r.name = ? "
                                 "AND e.body IS NOT NULL ORDER BY r.seq", CHANGED):
            said = unpack(body)[4]
            before, after = bytes.fromhex(said["before"]), bytes.fromhex(said["after"])
            text = render_change(file.recording, before, after, said["at"])
            if len(before) == len(after) == 32 and all(
                    self._check(key, bytes.fromhex(said[by]), text)
                    for key, by in ((before, "by_before"), (after, "by_after"))):
                self._changes[before] = after
                if before == file.public:
                    self._ends_with[file.name] = after
            else:
                self.report.problem(f"{file.name}: a change of the key is not signed by both keys")

    def _vouched(self, keys: Iterable[bytes]) -> list[bytes]:
        """These, and those that they vouch for."""
        found = list(keys)
        for key in found:             # which grows
            found += [other for one, other in (*self._changes.items(), *((b, a) for a, b in self._changes.items()))
                      if one == key and other not in found]
        return found

    def _link(self, previous: Recording | None, file: Recording) -> None:
        say = self.report
        named = NAME.fullmatch(file.name)
        if file.number == 0 and file.name.startswith("recording-"):
            say.problem(f"{file.name} is named as a recording's file, and says that it is an export")
        elif named and file.number != int(named.group(1)):
            say.problem(f"{file.name} says that it is number {file.number}")
        if previous is None or file.number == 0:
            if file.number == 0:
                say.note(f"{file.name} is an export: a part of a recording")
            elif file.number == 1:
                if (file.seq_before, file.head_before) != (0, digest(b"\3" + file.recording)):
                    say.problem(f"{file.name}: does not begin as a recording begins")
            else:
                say.note(f"{file.name} begins after event {file.seq_before}: earlier files were not given")
        else:
            if file.recording != previous.recording:
                say.problem(f"{file.name} is of another recording than {previous.name}")
            elif file.number != previous.number + 1:
                say.problem(f"files are missing between {previous.name} and {file.name}")
            if (file.seq_before, file.head_before) != (self._seq, self._head):
                say.problem(f"{file.name} does not go on where {previous.name} ends")
            if file.public != self._ends_with.get(previous.name, previous.public):
                say.problem(f"{file.name} is not signed by the key that {previous.name} says")
            if previous.closed is None:
                say.problem(f"{previous.name} was not closed, and yet {file.name} follows")
        self._seq, self._head = file.seq_before, file.head_before
        if not self._keys:
            say.note("signatures were checked with the key that the files name themselves: give --key")
        elif file.public not in self._keys:
            say.problem(f"{file.name}: names a key that is not yours")

    def _finish(self, last: Recording | None) -> None:
        say = self.report
        for seq in self._expect:
            say.problem(f"event {seq}, which you expect, is not there")
        if last is not None and last.closed is not None and last.number:
            say.note(f"{last.name} was closed: the file after it was not given")
        if say.counts["unopened"]:
            say.note(f"{say.counts['unopened']} compressed blobs were not opened: Python's zstandard or the program "
                     "zstd is needed")
        say.head = (self._seq, self._head.hex())

    def _settle_missing(self) -> None:
        for found, where in self._missing.items():
            if found not in self._excused:
                self.report.problem(f"{where}: its blob {found.hex()[:16]} is not there")
        self._missing.clear()
        self._excused.clear()

    def _signed(self, file: Recording, signature: Any, text: bytes) -> bool:
        keys = self._keys or self._vouched([file.public])
        return isinstance(signature, bytes) and any(self._check(key, signature, text) for key in keys)

    def _signed_in(self, file: Recording, signature: Any, text: bytes) -> bool:
        """By the file's own key, in a file of the recorder's: a key that was changed signs nothing more."""
        if file.number == 0:
            return self._signed(file, signature, text)
        trusted = not self._keys or file.public in self._keys
        return trusted and isinstance(signature, bytes) and self._check(file.public, signature, text)

    # One file

    def _verify_file(self, file: Recording) -> None:
        checked = [row[0] for row in file.rows("PRAGMA integrity_check(5)")]
        if checked != ["ok"]:
            self.report.problem("{}: SQLite finds it damaged: {}".format(file.name, "; ".join(map(str, checked))))
        self._verify_events(file)
        self._verify_blobs(file)
        state = next(file.rows("SELECT seq, head FROM state"), None)
        if state != (self._seq, self._head):
            self.report.problem(f"{file.name}: ends at event {self._seq}, and its state says otherwise")

    def _verify_schema(self, file: Recording) -> bool:
        """Whether every table and view is there as it was made."""
        found = {(name, SCHEMA[name] if OLDER.get(name) == made else made) for name, made in file.schema()}
        for name, _ in sorted(found - set(SCHEMA.items())):
            if name in SCHEMA:
                self.report.problem(f"{file.name}: {name} is changed")
            else:
                self.report.note(f"{file.name}: {name} was added")
        there = {name for name, _ in found}
        absent = {name for build in LATER if not there & build for name in build}
        wanted = {name: made for name, made in SCHEMA.items() if name not in absent}
        for name in sorted(set(wanted) - there):
            self.report.problem(f"{file.name}: {name} is gone")
        return found >= set(wanted.items())

    def _verify_events(self, file: Recording) -> None:
        say, tables = self.report, _Tables(file, self.report)
        checkpoints = file.rows("SELECT seq_to, seq_from, head_before, head, merkle_root, at, key_id, signature "
                                "FROM checkpoint ORDER BY seq_to")
        point = next(checkpoints, None)
        leaves: list[bytes] = []
        begin = self._head
        for seq, kind, body, leaf in file.rows("SELECT seq, kind, body, leaf FROM event ORDER BY seq"):
            if seq != self._seq + 1:
                gone = str(seq - 1) if seq == self._seq + 2 else f"{self._seq + 1} to {seq - 1}"
                say.problem(f"{file.name}: event {gone} is not there")
            self._seq = seq
            leaf = self._verify_event(file, tables, seq, kind, body, leaf)
            self._head = digest(b"\2" + self._head + leaf)
            leaves.append(leaf)
            say.counts["events"] += 1
            expected = self._expect.pop(seq, None)
            if expected is not None and expected != self._head:
                say.problem(f"event {seq}: the head that you expect is another")
            while point is not None and point[0] <= seq:
                self._verify_checkpoint(file, point, seq, begin, leaves)
                self._settle_missing()
                self._oldest = self._newest = time.time_ns()
                begin, leaves, point = self._head, [], next(checkpoints, None)
        if point is not None:
            say.problem(f"{file.name}: a checkpoint signs event {point[0]}, which is not there")
        tables.finish()
        self._settle_missing()
        say.counts["unsigned"] += len(leaves)
        if leaves:
            text = f"{file.name}: the last {len(leaves)} events are not signed"
            now, most = time.time_ns(), UNSIGNED * 10**9
            if file.closed is not None:
                say.problem(text)
            elif self._oldest < now - most or self._newest > now + most:
                say.overdue = True
                say.note(text + ": anybody may have written them, in place of others")
            else:
                say.note(text + " yet")

    def _verify_event(self, file: Recording, tables: _Tables, seq: int, kind: Any, body: Any, leaf: Any) -> bytes:
        say, where = self.report, f"{file.name}: event {seq}"
        if body is None:
            say.counts["omitted"] += 1
            if file.number != 0:
                say.problem(where + " was left out, and this is no export")
            if kind is not None or not isinstance(leaf, bytes) or len(leaf) != 32:
                say.problem(where + ": a left-out event keeps its leaf and nothing else")
                return b"?" * 32
            self._oldest = 0          # it does not say when it was made
            return leaf
        if not isinstance(body, bytes):
            say.problem(where + ": its bytes are none")
            return b"?" * 32
        made = make_leaf(seq, body)
        if leaf is not None and leaf != made:
            say.problem(where + ": its leaf is another")
        try:
            event = unpack(body)
            if not isinstance(event, list) or event[0] not in COLUMNS:
                raise ValueError("unknown kind")
        except (ValueError, IndexError, TypeError) as reason:
            say.problem(f"{where} cannot be read: {reason}")
            return made
        if kind != event[0]:
            say.problem(where + ": its kind was changed")
        self._oldest, self._newest = min(self._oldest, event[1]), max(self._newest, event[1])
        self._verify_row(file, tables, where, seq, event)
        self._verify_special(file, where, event)
        return made

    def _verify_row(self, file: Recording, tables: _Tables, where: str, seq: int, event: list[Any]) -> None:
        row = tables.take(event[0], seq)
        if row is None:
            self.report.problem(f"{where}: its row in {COLUMNS[event[0]][0]} is not there")
            return
        for at, (field, how) in enumerate(FIELDS[event[0]], 1):
            if field >= len(event):   # an older event
                if how == "j" and row[at:at + 1] not in ((), ("[]",)):
                    self.report.problem(f"{where}: column {at + 1} of its row says what the event does not")
                break
            if at >= len(row) or not self._same(file, where, how, event[field], row[at]):
                self.report.problem(
                    f"{where}: column {at + 1} of its row in {COLUMNS[event[0]][0]} says something else")

    def _same(self, file: Recording, where: str, how: str, value: Any, column: Any) -> bool:
        if how in ("j", "h"):
            wanted = [one.hex() for one in value] if how == "h" else value
            return isinstance(column, str) and _same_json(column, wanted)
        if how == "b":
            return bool(column == (value or None))
        if how == "B":
            return self._same_blob(file, where, value, column)
        if how == "P":
            ids = json.loads(column)
            fits = isinstance(ids, list) and len(ids) == len(value) and set(map(type, ids)) <= {int, type(None)}
            return fits and all(self._same_blob(file, where, one, number) for one, number in zip(value, ids))
        if how == "t":
            return type(column) is int and column == int(value)
        return type(column) is type(value) and bool(column == value)

    def _same_blob(self, file: Recording, where: str, wanted: bytes, number: Any) -> bool:
        if number is None:
            if wanted:
                self._missing.setdefault(wanted, where)
            return True
        found = next(file.rows("SELECT digest FROM blob WHERE id = ?", number), None)
        return found is not None and found[0] == wanted

    def _verify_special(self, file: Recording, where: str, event: list[Any]) -> None:
        if event[0] == ERASURE and not self._signed(file, event[6], pack(event[:6])):
            self.report.problem(where + ": the erasure's signature is wrong")
        elif event[0] == RECORDER and event[3] == "journal.blobs-missing":
            self._excused.update(bytes.fromhex(one) for one in event[4].get("digests", "").split(","))

    def _verify_checkpoint(self, file: Recording, point: tuple[Any, ...], seq: int, begin: bytes,
                           leaves: Sequence[bytes]) -> None:
        seq_to, seq_from, before, head, root, at, key_id, signature = point
        say, where = self.report, f"{file.name}: checkpoint of event {seq_to}"
        say.counts["checkpoints"] += 1
        if (seq_to, seq_from) != (seq, seq - len(leaves) + 1):
            say.problem(where + ": does not begin where the one before ends")
        for name, said, made in (("head before", before, begin), ("head", head, self._head),
                                 ("Merkle root", root, merkle(leaves))):
            if said != made:
                say.problem(f"{where}: its {name} is another: something before it was changed")
        text = render_checkpoint(file.recording, seq_from, seq_to, before, head, root, at, key_id)
        if not self._signed_in(file, signature, text):
            say.problem(where + ": the signature is wrong")

    # Blobs

    def _verify_blobs(self, file: Recording) -> None:
        for number, found, salt, encoding, size, body in file.rows(
                "SELECT id, digest, salt, encoding, size, body FROM blob ORDER BY id"):
            where = f"{file.name}: blob {number}"
            self.report.counts["blobs"] += 1
            if body is None:
                self._verify_erased(file, where, found, salt)
            elif not isinstance(body, bytes) or not isinstance(salt, bytes) or not isinstance(found, bytes):
                self.report.problem(where + " is none")
            else:
                self._verify_blob(where, found, salt, encoding, size, body)

    def _verify_blob(self, where: str, found: bytes, salt: bytes, encoding: Any, size: Any, body: bytes) -> None:
        if encoding not in (0, 1) or type(size) is not int or not 0 <= size <= LARGEST_BLOB:
            self.report.problem(where + " is of an unknown form")
            return
        content = body
        if encoding == 1:
            if self._zstd is None:
                self.report.counts["unopened"] += 1
                return
            try:
                content = self._zstd(body, size)
            except Exception as reason:  # each of the three libraries has its own
                self.report.problem(f"{where} cannot be decompressed: {reason}")
                return
        if len(content) != size or digest(content, salt[:64]) != found:
            self.report.problem(where + " was changed")

    def _verify_erased(self, file: Recording, where: str, found: Any, salt: Any) -> None:
        self.report.counts["erased"] += 1
        row = next(file.rows("SELECT statement FROM erased WHERE digest = ?", found), None)
        if row is None or salt is not None:
            self.report.problem(where + " is gone, and no erasure says so")
            return
        event = unpack(row[0])
        if event[0] != ERASURE or found not in event[3] or not self._signed(file, event[6], pack(event[:6])):
            self.report.problem(where + " is gone, and the erasure that should say so is not signed")


def _same_json(column: str, wanted: Any) -> bool:
    """Of the same types too, and no key twice: who reads with SQLite's functions would get the first."""
    said = json.loads(column, object_pairs_hook=_unique)
    return json.dumps(said, sort_keys=True) == json.dumps(wanted, sort_keys=True)


def _unique(pairs: list[tuple[str, Any]]) -> Any:
    found = dict(pairs)
    return found if len(found) == len(pairs) else None


class _Tables:
    """The rows of every table with plain columns, in the order of the events."""

    def __init__(self, file: Recording, report: Report) -> None:
        self._file, self._report = file, report
        there = {name for name, _ in file.schema()}
        self._cursors = {kind: file.rows(f'SELECT * FROM "{table}" ORDER BY seq') if table in there else iter(())
                         for kind, (table, _) in COLUMNS.items()}
        self._next = {kind: next(cursor, None) for kind, cursor in self._cursors.items()}

    def take(self, kind: int, seq: int) -> tuple[Any, ...] | None:
        row = self._next[kind]
        while row is not None and row[0] < seq:
            self._extra(kind, row)
            row = next(self._cursors[kind], None)
        if row is None or row[0] != seq:
            self._next[kind] = row
            return None
        self._next[kind] = next(self._cursors[kind], None)
        return row

    def finish(self) -> None:
        for kind in COLUMNS:
            self.take(kind, 1 << 63)

    def _extra(self, kind: int, row: tuple[Any, ...]) -> None:
        self._report.problem(f"{self._file.name}: row {row[0]} of {COLUMNS[kind][0]} comes from no event")


def render_checkpoint(recording: bytes, seq_from: Any, seq_to: Any, before: bytes, head: bytes, root: bytes, at: Any,
                      key_id: Any) -> bytes:
    return (
        f"weir checkpoint 1\nrecording {recording.hex()}\nevents {seq_from} {seq_to}\nbefore {before.hex()}\n"
        f"head {head.hex()}\nmerkle {root.hex()}\nat {at}\nkey {key_id}\n"
    ).encode(errors="replace")


def render_change(recording: bytes, before: bytes, after: bytes, at: Any) -> bytes:
    return (f"weir key 1\nrecording {recording.hex()}\nbefore {before.hex()}\nafter {after.hex()}\nat {at}\n"
            ).encode(errors="replace")


def find_files(paths: Iterable[Path]) -> list[Path]:
    """A directory stands for the recording files in it.  Raises Unreadable where it holds none."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("recording-*.sqlite")) if path.is_dir() else [path]
        if not inside:
            raise Unreadable(f"{path}: holds no recording (recording-*.sqlite)")
        found += inside
    return found


def verify_files(
    paths: Iterable[Path], keys: Iterable[bytes] = (), expect: Iterable[tuple[int, bytes]] = (),
    check: Callable[[bytes, bytes, bytes], bool] = verify_signature,
) -> Report:
    """All files of one recording, in any order.  Raises Unreadable."""
    files: list[Recording] = []
    try:
        files += (Recording(path) for path in find_files(paths))
        if not files:
            raise Unreadable("no recording files")
        files.sort(key=lambda file: (file.recording, file.number, file.seq_before))
        return Verification(keys, expect, check).run(files)
    finally:
        for file in files:
            file.db.close()


def parse_expected(text: str) -> tuple[int, bytes]:
    """SEQ:HEAD.  Raises ValueError."""
    seq, _, head = text.partition(":")
    if not re.fullmatch("[0-9]{1,18}", seq) or not re.fullmatch("[0-9a-fA-F]{64}", head):
        raise ValueError(f"{text}: not SEQ:HEAD, an event's number and its head in 64 hex digits")
    return int(seq), bytes.fromhex(head)


def render_report(report: Report) -> str:
    counts = report.counts
    lines = ["not verified: " + one for one in report.problems]
    if report.more:
        lines.append(f"not verified: {report.more} more")
    lines += ["note: " + one for one in report.notes]
    verdict = {0: "verified", 1: "NOT VERIFIED", 3: "verified as far as it is signed"}[report.code]
    lines.append(
        f"{verdict}: {counts['events']} events in {counts['files']} files, "
        f"{counts['unsigned']} not signed, {counts['omitted']} left out, {counts['checkpoints']} checkpoints, "
        f"{counts['blobs']} blobs of which {counts['erased']} were erased; event {report.head[0]} has head "
        f"{report.head[1]}")
    return "\n".join(lines)


def report_json(report: Report) -> dict[str, Any]:
    return {"verified": report.code == 0, "problems": report.problems, "more": report.more, "notes": report.notes,
            "counts": report.counts, "seq": report.head[0], "head": report.head[1]}


def main() -> int:
    parser = argparse.ArgumentParser(description="Verify a Weir recording.")
    parser.add_argument("paths", nargs="+", type=Path, metavar="FILE|DIRECTORY")
    parser.add_argument("--key", action="append", default=[], help="public key: a PEM file, or 64 hex digits")
    parser.add_argument("--expect", action="append", default=[], metavar="SEQ:HEAD", type=parse_expected)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    try:
        keys = [parse_key(one.encode() if re.fullmatch("[0-9a-fA-F]{64}", one) else Path(one).read_bytes())
                for one in given.key]
        report = verify_files(given.paths, keys, given.expect)
    except (Unreadable, OSError, ValueError) as reason:
        print(f"weir_verify: {reason}", file=sys.stderr)
        return 2
    print(json.dumps(report_json(report)) if given.json else render_report(report))
    return report.code


if __name__ == "__main__":
    sys.exit(main())
