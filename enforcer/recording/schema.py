"""The recording's tables and views: a documented, stable interface (docs/recording.md).

Every event is a row of `event`, with its canonical bytes, and a row of one table with plain columns that are derived
from those bytes and nothing else.  `SPOKEN` lists these columns in order; `derive` makes the row.  Digests of texts,
parameters, errors and payload become ids of `blob` rows.  Columns are only ever added at the end of a table.
"""
# ruff: noqa: S608 (the only names in the statements are this module's own)
from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

import msgspec

from agent.contract.journal import HostEvent
from enforcer.words import events

FORMAT: Final = 1
APPLICATION: Final = 0x57656972        # "Weir", PRAGMA application_id
LARGEST: Final = (1 << 63) - 1         # SQLite's integers

Row = tuple[Any, ...]
BlobId = Callable[[bytes], int | None]

_TABLES: Final = (
    # what the chain is made of
    """CREATE TABLE file (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  format INTEGER NOT NULL,
  recording BLOB NOT NULL,
  number INTEGER NOT NULL,
  seq_before INTEGER NOT NULL,
  head_before BLOB NOT NULL,
  made INTEGER NOT NULL,
  closed INTEGER,
  public_key BLOB NOT NULL
)""",
    "CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), seq INTEGER NOT NULL, head BLOB NOT NULL)",
    "CREATE TABLE event (seq INTEGER PRIMARY KEY, kind INTEGER, body BLOB, leaf BLOB)",
    """CREATE TABLE blob (
  id INTEGER PRIMARY KEY,
  digest BLOB NOT NULL,
  salt BLOB,
  encoding INTEGER NOT NULL,
  size INTEGER NOT NULL,
  body BLOB
)""",
    "CREATE TABLE erased (digest BLOB PRIMARY KEY, statement BLOB NOT NULL) WITHOUT ROWID",
    """CREATE TABLE checkpoint (
  seq_to INTEGER PRIMARY KEY,
  seq_from INTEGER NOT NULL,
  head_before BLOB NOT NULL,
  head BLOB NOT NULL,
  merkle_root BLOB NOT NULL,
  at INTEGER NOT NULL,
  key_id TEXT NOT NULL,
  signature BLOB NOT NULL
)""",
    # the recorder's own memory: no part of what is proved
    "CREATE TABLE position (file TEXT PRIMARY KEY, taken INTEGER NOT NULL, ended INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE live (session TEXT PRIMARY KEY, writer TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE live_operation (session TEXT, operation INTEGER, PRIMARY KEY (session, operation)) WITHOUT ROWID",
    # plain columns, one table a kind of event
    """CREATE TABLE session_opened (
  seq INTEGER PRIMARY KEY, at INTEGER, session TEXT, protocol TEXT, target TEXT, database TEXT, role TEXT,
  subject TEXT, groups TEXT, workload TEXT, uid INTEGER, pid INTEGER, exe TEXT, exe_sha256 TEXT, argv TEXT,
  cgroup TEXT, cookie INTEGER, destination TEXT, attribution TEXT, client_tls TEXT, upstream TEXT,
  application TEXT, backend INTEGER
)""",
    """CREATE TABLE session_closed (
  seq INTEGER PRIMARY KEY, at INTEGER, session TEXT, reason TEXT, operations INTEGER, bytes_in INTEGER,
  bytes_out INTEGER
)""",
    """CREATE TABLE intent (
  seq INTEGER PRIMARY KEY, at INTEGER, session TEXT, operation INTEGER, actor TEXT, verb TEXT, decision INTEGER,
  forwarded BLOB, text INTEGER, parameters INTEGER, requests TEXT, rules TEXT, masks TEXT, reason TEXT, ticket TEXT,
  durable INTEGER, reported TEXT
)""",
    """CREATE TABLE result (
  seq INTEGER PRIMARY KEY, at INTEGER, session TEXT, operation INTEGER, status TEXT, tag TEXT, sqlstate TEXT,
  rows INTEGER, bytes INTEGER, duration INTEGER, response BLOB, payload TEXT, error INTEGER
)""",
    """CREATE TABLE hold (
  seq INTEGER PRIMARY KEY, at INTEGER, session TEXT, operation INTEGER, ticket TEXT, state TEXT, by TEXT,
  reason TEXT, until INTEGER, binding BLOB, form TEXT, subject TEXT, target TEXT, what TEXT, note TEXT
)""",
    "CREATE TABLE gap (seq INTEGER PRIMARY KEY, at INTEGER, session TEXT, operations TEXT, reason TEXT)",
    """CREATE TABLE refused (
  seq INTEGER PRIMARY KEY, at INTEGER, workload TEXT, subject TEXT, pid INTEGER, exe TEXT, destination TEXT,
  target TEXT, reason TEXT, rules TEXT, cookie INTEGER
)""",
    """CREATE TABLE flow_opened (
  seq INTEGER PRIMARY KEY, at INTEGER, flow TEXT, egress TEXT, subject TEXT, workload TEXT, pid INTEGER, exe TEXT,
  exe_sha256 TEXT, argv TEXT, destination TEXT, attribution TEXT, cookie INTEGER
)""",
    """CREATE TABLE flow_closed (
  seq INTEGER PRIMARY KEY, at INTEGER, flow TEXT, bytes_in INTEGER, bytes_out INTEGER, reason TEXT
)""",
    """CREATE TABLE flow_noted (
  seq INTEGER PRIMARY KEY, at INTEGER, flow TEXT, mode TEXT, speaks TEXT, name TEXT, rule TEXT, reason TEXT
)""",
    "CREATE TABLE configured (seq INTEGER PRIMARY KEY, at INTEGER, digest TEXT, files TEXT, forwarded_key TEXT)",
    """CREATE TABLE streamed (
  seq INTEGER PRIMARY KEY, at INTEGER, session TEXT, operation INTEGER, stream TEXT, offset INTEGER, bytes INTEGER,
  content INTEGER
)""",
    """CREATE TABLE stream_ended (
  seq INTEGER PRIMARY KEY, at INTEGER, session TEXT, operation INTEGER, stream TEXT, bytes INTEGER, kept INTEGER,
  sha256 INTEGER
)""",
    "CREATE TABLE session_noted (seq INTEGER PRIMARY KEY, at INTEGER, session TEXT, name TEXT, value TEXT)",
    "CREATE TABLE host_event (seq INTEGER PRIMARY KEY, at INTEGER, name TEXT, workload TEXT, detail TEXT)",
    "CREATE TABLE recorder_event (seq INTEGER PRIMARY KEY, at INTEGER, name TEXT, detail TEXT)",
    "CREATE TABLE erasure (seq INTEGER PRIMARY KEY, at INTEGER, digests TEXT, by TEXT, reason TEXT, signature BLOB)",
    "CREATE INDEX session_opened_session ON session_opened (session)",
    "CREATE INDEX session_closed_session ON session_closed (session)",
    "CREATE INDEX intent_operation ON intent (session, operation)",
    "CREATE INDEX result_operation ON result (session, operation)",
    "CREATE INDEX hold_session ON hold (session)",
    "CREATE INDEX gap_session ON gap (session)",
    "CREATE INDEX streamed_operation ON streamed (session, operation)",
    # Where streams begin, and sizes: few among many pieces.
    "CREATE INDEX streamed_begin ON streamed (session) WHERE offset = 0",
    "CREATE INDEX stream_ended_operation ON stream_ended (session, operation)",
    "CREATE INDEX session_noted_session ON session_noted (session)",
    "CREATE INDEX flow_opened_flow ON flow_opened (flow)",
    "CREATE INDEX flow_closed_flow ON flow_closed (flow)",
    "CREATE INDEX flow_noted_flow ON flow_noted (flow)",
)


def _iso(column: str) -> str:
    return (f"strftime('%Y-%m-%dT%H:%M:%S', {column} / 1000000000, 'unixepoch') || "
            f"printf('.%09dZ', {column} % 1000000000)")


_DECISION: Final = "CASE {0}decision WHEN 1 THEN 'permit' WHEN 2 THEN 'deny' WHEN 3 THEN 'hold' END AS decision"
_TEXT: Final = "(SELECT CASE b.encoding WHEN 0 THEN CAST(b.body AS TEXT) END FROM blob b WHERE b.id = {0})"

_VIEWS: Final = (
    f"""CREATE VIEW sessions AS SELECT o.session, {_iso('o.at')} AS opened, {_iso('c.at')} AS closed, o.subject,
  o.workload, o.protocol, o.target, o.database, o.role, o.exe, o.pid, o.application,
  (SELECT count(*) FROM intent i WHERE i.session = o.session AND i.actor <> 'weir') AS operations,
  (SELECT count(*) FROM intent i WHERE i.session = o.session AND i.decision = 2) AS denied,
  c.bytes_in, c.bytes_out, c.reason, o.seq, o.at AS opened_ns, c.at AS closed_ns
FROM session_opened o LEFT JOIN session_closed c ON c.session = o.session""",
    f"""CREATE VIEW operations AS SELECT i.seq, {_iso('i.at')} AS time, o.subject, o.workload, o.target, o.database,
  i.session, i.operation, i.actor, i.verb, {_DECISION.format('i.')}, {_TEXT.format('i.text')} AS text, i.requests,
  i.rules, i.masks, i.reason, i.ticket, r.status, r.tag, r.sqlstate, r.rows, r.bytes, r.duration / 1e6 AS milliseconds,
  {_TEXT.format('r.error')} AS error, hex(i.forwarded) AS forwarded, i.at AS at_ns, r.duration AS duration_ns,
  i.reported
FROM intent i LEFT JOIN session_opened o ON o.session = i.session
LEFT JOIN result r ON r.session = i.session AND r.operation = i.operation""",
    f"""CREATE VIEW holds AS SELECT h.seq, {_iso('h.at')} AS time, h.ticket, h.state, h.by, h.reason,
  {_iso('h.until')} AS until, h.session, h.operation, h.form, h.subject, h.target, h.what, h.note FROM hold h""",
    f"""CREATE VIEW refusals AS SELECT r.seq, {_iso('r.at')} AS time, r.workload, r.subject, r.pid, r.exe,
  r.destination, r.target, r.reason, r.rules FROM refused r""",
    f"""CREATE VIEW flows AS SELECT o.flow, {_iso('o.at')} AS opened, {_iso('c.at')} AS closed, o.egress, o.subject,
  o.workload, o.exe, o.pid, o.destination, c.bytes_in, c.bytes_out, c.reason, o.seq
FROM flow_opened o LEFT JOIN flow_closed c ON c.flow = o.flow""",
    f"""CREATE VIEW flow_notes AS SELECT n.seq, {_iso('n.at')} AS time, n.flow, n.mode, o.workload, o.destination,
  o.egress, n.speaks, n.name, n.rule, n.reason
FROM flow_noted n LEFT JOIN flow_opened o ON o.flow = n.flow""",
    f"""CREATE VIEW host_events AS SELECT h.seq, {_iso('h.at')} AS time, h.name, h.workload, h.detail
FROM host_event h""",
    f"""CREATE VIEW configurations AS SELECT c.seq, {_iso('c.at')} AS time, c.digest, c.files, c.forwarded_key
FROM configured c""",
    f"""CREATE VIEW streams AS SELECT s.seq, {_iso('s.at')} AS time, s.session, s.operation, s.stream, s.bytes, s.kept,
  {_TEXT.format('s.sha256')} AS sha256
FROM stream_ended s""",
    f"""CREATE VIEW notes AS SELECT n.seq, {_iso('n.at')} AS time, n.session, n.name, n.value FROM session_noted n""",
    f"CREATE VIEW gaps AS SELECT g.seq, {_iso('g.at')} AS time, g.session, g.operations, g.reason FROM gap g",
    f"CREATE VIEW recorder_events AS SELECT r.seq, {_iso('r.at')} AS time, r.name, r.detail FROM recorder_event r",
    f"""CREATE VIEW checkpoints AS SELECT c.seq_from, c.seq_to, {_iso('c.at')} AS time, hex(c.head) AS head, c.key_id
FROM checkpoint c""",
)

SCHEMA: Final = (*_TABLES, *_VIEWS)

# Table and columns (without seq) of each kind of event.
SPOKEN: Final[dict[int, tuple[str, int]]] = {
    events.SESSION_OPENED: ("session_opened", 23), events.SESSION_CLOSED: ("session_closed", 7),
    events.INTENT: ("intent", 17), events.RESULT: ("result", 13), events.HOLD: ("hold", 15), events.GAP: ("gap", 5),
    events.REFUSED: ("refused", 11), events.FLOW_OPENED: ("flow_opened", 13), events.FLOW_CLOSED: ("flow_closed", 6),
    events.FLOW_NOTED: ("flow_noted", 8), events.CONFIGURED: ("configured", 5),
    events.STREAMED: ("streamed", 8), events.STREAM_ENDED: ("stream_ended", 8),
    events.SESSION_NOTED: ("session_noted", 5), events.HOST: ("host_event", 5), events.RECORDER: ("recorder_event", 4),
    events.ERASURE: ("erasure", 6),
}
INSERT: Final = {
    kind: f"INSERT INTO {table} VALUES ({', '.join('?' * columns)})"
    for kind, (table, columns) in SPOKEN.items()
}
STRUCTS: Final[dict[int, type[msgspec.Struct]]] = {
    events.SESSION_OPENED: events.SessionOpened, events.SESSION_CLOSED: events.SessionClosed,
    events.INTENT: events.Intent, events.RESULT: events.Result, events.HOLD: events.HoldChanged,
    events.GAP: events.Gap, events.REFUSED: events.Refused, events.FLOW_OPENED: events.FlowOpened,
    events.FLOW_CLOSED: events.FlowClosed, events.FLOW_NOTED: events.FlowNoted,
    events.CONFIGURED: events.Configured, events.STREAMED: events.Streamed,
    events.STREAM_ENDED: events.StreamEnded, events.SESSION_NOTED: events.SessionNoted, events.HOST: HostEvent,
    events.RECORDER: events.RecorderEvent, events.ERASURE: events.Erasure,
}

OF_A_SESSION: Final = tuple(
    table for kind, (table, _) in SPOKEN.items() if "session" in STRUCTS[kind].__struct_fields__)

_encode_json = msgspec.json.Encoder().encode


# Lists that come again and again, as JSON.  Both bounds: what a list holds is a crew's to choose.
_KNOWN: Final = 4096
_SHORT: Final = 512                   # characters
_known: dict[tuple[Any, ...], str] = {}


def _list(value: tuple[Any, ...]) -> str:
    found = _known.get(value)
    if found is None:
        found = _encode_json(value).decode()
        if len(found) <= _SHORT:
            if len(_known) >= _KNOWN:
                _known.clear()
            _known[value] = found
    return found


def _detail(value: dict[str, str]) -> str:
    return _encode_json(value).decode()


def _opened(seq: int, e: Any, blob: BlobId) -> Row:
    return (
        seq, e.at, e.session, e.protocol, e.target, e.database, e.role, e.subject, _list(e.groups), e.workload, e.uid,
        e.pid, e.exe, e.exe_sha256, _list(e.argv), e.cgroup, e.cookie, e.destination, e.attribution, e.client_tls,
        e.upstream, e.application, e.backend,
    )


def _closed(seq: int, e: Any, blob: BlobId) -> Row:
    return seq, e.at, e.session, e.reason, e.operations, e.bytes_in, e.bytes_out


def _intent(seq: int, e: Any, blob: BlobId) -> Row:
    return (
        seq, e.at, e.session, e.operation, e.actor, e.verb, e.decision, e.forwarded or None,
        blob(e.text) if e.text else None, blob(e.parameters) if e.parameters else None, _list(e.requests),
        _list(e.rules), _list(e.masks), e.reason, e.ticket, e.durable, _list(e.reported),
    )


def _result(seq: int, e: Any, blob: BlobId) -> Row:
    payload = _encode_json([blob(one) for one in e.payload]).decode() if e.payload else "[]"
    return (
        seq, e.at, e.session, e.operation, e.status, e.tag, e.sqlstate, e.rows, e.bytes, e.duration, e.response or None,
        payload, blob(e.error) if e.error else None,
    )


def _hold(seq: int, e: Any, blob: BlobId) -> Row:
    return (seq, e.at, e.session, e.operation, e.ticket, e.state, e.by, e.reason, e.until, e.binding or None, e.form,
            e.subject, e.target, e.what, e.note)


def _gap(seq: int, e: Any, blob: BlobId) -> Row:
    return seq, e.at, e.session, _encode_json(e.operations).decode(), e.reason


def _refused(seq: int, e: Any, blob: BlobId) -> Row:
    return seq, e.at, e.workload, e.subject, e.pid, e.exe, e.destination, e.target, e.reason, _list(e.rules), e.cookie


def _flow_opened(seq: int, e: Any, blob: BlobId) -> Row:
    return (seq, e.at, e.flow, e.egress, e.subject, e.workload, e.pid, e.exe, e.exe_sha256, _list(e.argv),
            e.destination, e.attribution, e.cookie)


def _flow_closed(seq: int, e: Any, blob: BlobId) -> Row:
    return seq, e.at, e.flow, e.bytes_in, e.bytes_out, e.reason


def _flow_noted(seq: int, e: Any, blob: BlobId) -> Row:
    return seq, e.at, e.flow, e.mode, e.speaks, e.name, e.rule, e.reason


def _configured(seq: int, e: Any, blob: BlobId) -> Row:
    return seq, e.at, e.digest, _detail(e.files), e.forwarded_key


def _streamed(seq: int, e: Any, blob: BlobId) -> Row:
    return (seq, e.at, e.session, e.operation, e.stream, e.offset, e.bytes,
            blob(e.content) if e.content else None)


def _stream_ended(seq: int, e: Any, blob: BlobId) -> Row:
    return seq, e.at, e.session, e.operation, e.stream, e.bytes, e.kept, blob(e.sha256) if e.sha256 else None


def _session_noted(seq: int, e: Any, blob: BlobId) -> Row:
    return seq, e.at, e.session, e.name, e.value


def _host(seq: int, e: Any, blob: BlobId) -> Row:
    return seq, e.at, e.name, e.workload, _detail(e.detail)


def _recorder(seq: int, e: Any, blob: BlobId) -> Row:
    return seq, e.at, e.name, _detail(e.detail)


def _erasure(seq: int, e: Any, blob: BlobId) -> Row:
    return seq, e.at, _encode_json([one.hex() for one in e.digests]).decode(), e.by, e.reason, e.signature


derive: Final[dict[int, Callable[[int, Any, BlobId], Row]]] = {
    events.SESSION_OPENED: _opened, events.SESSION_CLOSED: _closed, events.INTENT: _intent, events.RESULT: _result,
    events.HOLD: _hold, events.GAP: _gap, events.REFUSED: _refused, events.FLOW_OPENED: _flow_opened,
    events.FLOW_CLOSED: _flow_closed, events.FLOW_NOTED: _flow_noted,
    events.CONFIGURED: _configured, events.STREAMED: _streamed, events.STREAM_ENDED: _stream_ended,
    events.SESSION_NOTED: _session_noted, events.HOST: _host,
    events.RECORDER: _recorder, events.ERASURE: _erasure,
}

# Every integer that becomes a column must fit SQLite's.
_integers: Final = {
    kind: attrgetter(*(field.name for field in msgspec.structs.fields(struct) if field.type in (int, "int")))
    for kind, struct in STRUCTS.items()
}


def fits(kind: int, event: Any) -> bool:
    """No integer of it is beyond SQLite's (msgpack's smallest is SQLite's smallest), no piece beyond events.PIECE."""
    if max(_integers[kind](event)) > LARGEST:
        return False
    if kind == events.STREAMED and not 0 <= event.bytes <= events.PIECE:
        return False
    return kind != events.GAP or max(event.operations, default=0) <= LARGEST


def tables_of_sessions(db: Any) -> tuple[str, ...]:
    """Those whose rows name a session, and that this file has: one of an earlier build lacks the latest."""
    there = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return tuple(table for table in OF_A_SESSION if table in there)
