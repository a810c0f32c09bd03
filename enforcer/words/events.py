"""What is recorded: canonical events.

Canonical bytes of an event are the msgpack array of its fields in the order given here (shortest forms, as
msgspec writes them), first the kind.  They hold salted digests (32 bytes, see agent.contract.journal) in place of
statement text, parameters and payload.  `at` is nanoseconds UTC, `monotonic` CLOCK_BOOTTIME nanoseconds.
A digest that is not there is b"".  Fields are only ever appended: a reader takes a shorter array for an older one.
"""
from __future__ import annotations

from typing import Final

import msgspec

from enforcer.words.reported import Calls

TYPED: Final = "typed"              # so many bytes were typed at a terminal: what of it may be seen follows as "in"
PIECE: Final = 64 << 10               # bytes of one Streamed at most
Octets = bytes                       # a struct below has a field of that name
Blob = tuple[bytes, bytes, bytes]    # digest (enforcer.hot.chain.make_digest), salt, content: what an event names

SESSION_OPENED: Final = 1
SESSION_CLOSED: Final = 2
INTENT: Final = 3
RESULT: Final = 4
HOLD: Final = 5
GAP: Final = 6
REFUSED: Final = 7
FLOW_OPENED: Final = 8
FLOW_CLOSED: Final = 9
FLOW_NOTED: Final = 10
CONFIGURED: Final = 11
STREAMED: Final = 12
STREAM_ENDED: Final = 13
SESSION_NOTED: Final = 14
HOST: Final = 20                      # agent.contract.journal.HostEvent
RECORDER: Final = 30                  # the recorder's own: started, rotated, read, exported, torn journal
ERASURE: Final = 31


class SessionOpened(msgspec.Struct, frozen=True, array_like=True):
    kind: int
    at: int
    monotonic: int
    session: str                      # 26 characters: time-ordered, unique
    protocol: str
    target: str
    database: str
    role: str                         # user name that the crew asked for
    subject: str
    groups: tuple[str, ...]
    workload: str
    uid: int
    pid: int
    exe: str
    exe_sha256: str
    argv: tuple[str, ...]
    cgroup: str
    cookie: int
    destination: str                  # "ADDRESS PORT" as dialled
    attribution: str                  # mark | cgroup | redirect; tunnel: SessionNoted "through" names the outer session
    client_tls: str                   # "" for plaintext, else "TLSv1.3 CIPHER"
    upstream: str                     # "USER@ADDRESS:PORT TLSv1.3 ..." never a secret
    application: str                  # what the client calls itself
    backend: int                      # process id of the server's backend, 0 if not known


class SessionClosed(msgspec.Struct, frozen=True, array_like=True):
    kind: int
    at: int
    monotonic: int
    session: str
    reason: str                       # "client closed", "server closed", "killed: ...", "protocol error: ..."
    operations: int
    bytes_in: int                     # from the client
    bytes_out: int                    # to the client


class Intent(msgspec.Struct, frozen=True, array_like=True):
    """Committed to the journal before the operation's bytes leave the host; also for what is denied."""

    kind: int
    at: int
    monotonic: int
    session: str
    operation: int                    # counts from 1 in a session
    actor: str                        # "crew", or "weir" for what Weir sends itself
    verb: str                         # "query" | "parse" | "bind" | "execute" | "copy" | "cancel" | "connect" ...
    decision: int                     # decisions.PERMIT | DENY | HOLD
    forwarded: bytes                  # BLAKE2b-256(forwarded statement bytes, key=forwarded_key); b"" if not forwarded
    text: bytes                       # digest of the recorded text
    parameters: bytes                 # digest of the recorded parameters (msgpack array of strings or nil)
    requests: tuple[tuple[str, str], ...]   # (action, resource) pairs
    rules: tuple[str, ...]            # ids of the policies that decided
    masks: tuple[str, ...]            # labels that were masked
    reason: str                       # of a denial
    ticket: str                       # of a hold
    durable: bool
    reported: Calls = ()              # tool calls that its process itself said were active: one, or candidates


class Result(msgspec.Struct, frozen=True, array_like=True):
    kind: int
    at: int
    monotonic: int
    session: str
    operation: int
    status: str                       # "ok" | "error" | "denied" | "cancelled" | "suspended" | "skipped"
    tag: str                          # command tag, "SELECT 3"
    sqlstate: str
    rows: int
    bytes: int                        # of the response as delivered
    duration: int                     # nanoseconds from forwarding to the end of the response
    response: Octets                  # digest of the delivered rows, always there where rows > 0 (b"" else)
    salt: Octets                      # 16 bytes, the salt of `response`
    payload: tuple[Octets, ...]       # digests of the blobs that hold it, by rule
    error: Octets                     # digest of the error's text


class HoldChanged(msgspec.Struct, frozen=True, array_like=True):
    """A step of what waits for people, or what happened on the way (`note`).  Session and operation are empty and 0
    where it belongs to none: an elevation, a ticket that is approved."""

    kind: int
    at: int
    monotonic: int
    session: str
    operation: int
    ticket: str
    state: str                        # pending | approved | denied | expired | cancelled | used
    by: str                           # approver's subject
    reason: str
    until: int
    binding: bytes                    # HMAC over operation, parameters, target and principal
    form: str = "hold"                # hold | ticket | elevation
    subject: str = ""                 # who asked; also "": an older event
    target: str = ""
    what: str = ""                    # actions and resources, or of an elevation how long
    note: str = ""                    # "assented", "break-glass", "escalated", "reused", "revoked", "covered",
                                      # "outside of hours"


class Gap(msgspec.Struct, frozen=True, array_like=True):
    """What cannot be told: a session was interrupted, results of forwarded operations are not known."""

    kind: int
    at: int
    monotonic: int
    session: str
    operations: tuple[int, ...]       # intents without a result
    reason: str


class Refused(msgspec.Struct, frozen=True, array_like=True):
    """A connection or login that never became a session."""

    kind: int
    at: int
    monotonic: int
    workload: str
    subject: str
    pid: int
    exe: str
    destination: str
    target: str
    reason: str
    rules: tuple[str, ...]
    cookie: int = 0                   # of the crew's socket, as in SessionOpened; 0: not known, or an older event


class FlowOpened(msgspec.Struct, frozen=True, array_like=True):
    kind: int
    at: int
    monotonic: int
    flow: str
    egress: str
    subject: str
    workload: str
    pid: int
    exe: str
    exe_sha256: str
    argv: tuple[str, ...]
    destination: str
    attribution: str
    cookie: int = 0                   # as in Refused


class FlowClosed(msgspec.Struct, frozen=True, array_like=True):
    kind: int
    at: int
    monotonic: int
    flow: str
    bytes_in: int
    bytes_out: int
    reason: str


class FlowNoted(msgspec.Struct, frozen=True, array_like=True):
    """Of a flow whose workload's egress is not enforced (docs/decisions/0015): once when it is opened, and again when
    its beginning is known.  `rule` and `reason` only in the mode shadow: of what would have refused or ended it."""

    kind: int
    at: int
    monotonic: int
    flow: str
    mode: str                         # "shadow" | "record"
    speaks: str                       # "tls", "http", "proxy", "socks", "ssh", a registered protocol; "": not known
    name: str                         # that it asks for (SNI, Host)
    rule: str                         # "address" | "name" | "proxy" | "protocol" | "beginning"; "": none
    reason: str


class Streamed(msgspec.Struct, frozen=True, array_like=True):
    """A piece of what an operation reads or writes while it runs.  `in`: before it goes to the server; all others: as
    it was delivered.  Of what is beyond the target's limit only StreamEnded tells."""

    kind: int
    at: int
    monotonic: int
    session: str
    operation: int
    stream: str                       # "in" | "out" | "err" | TYPED | "size": content "COLUMNSxROWS" | "signal": "INT"
    offset: int                       # of its first byte in the stream; of sizes and signals 0
    bytes: int
    content: Octets                   # digest of the blob


class StreamEnded(msgspec.Struct, frozen=True, array_like=True):
    kind: int
    at: int
    monotonic: int
    session: str
    operation: int
    stream: str                       # "in" | "out" | "err"
    bytes: int                        # of the whole
    kept: int                         # of these are in Streamed
    sha256: Octets                    # digest of a blob with the SHA-256 of the whole, hex; b"" where it has no bytes


class SessionNoted(msgspec.Struct, frozen=True, array_like=True):
    """What became known of a session, or what happened to it, after it was opened."""

    kind: int
    at: int
    monotonic: int
    session: str
    name: str                         # "shared": several clients may be behind it; "through": a session that carries
                                      # it; "reconnected": to the server, as SessionOpened.upstream
    value: str


class Configured(msgspec.Struct, frozen=True, array_like=True):
    """From here on this configuration is in force: it, and no other, explains what the same enforcer's later events
    decide, until the next one of these."""

    kind: int
    at: int
    monotonic: int
    digest: str                       # hex, over `files`
    files: dict[str, str]             # what it was read from -> BLAKE2b-256 of the content, hex
    forwarded_key: str                # name of the key of the `forwarded` digests of sessions that open from here on


class RecorderEvent(msgspec.Struct, frozen=True, array_like=True):
    kind: int
    at: int
    monotonic: int
    name: str                         # "recorder.started", "rotated", "read", "exported", "journal.torn", ...
    detail: dict[str, str]            # keys sorted


class Erasure(msgspec.Struct, frozen=True, array_like=True):
    kind: int
    at: int
    monotonic: int
    digests: tuple[bytes, ...]        # blobs whose salt and body were removed
    by: str
    reason: str
    signature: bytes                  # Ed25519 over the other fields' canonical bytes


Event = (
    SessionOpened | SessionClosed | Intent | Result | HoldChanged | Gap | Refused | FlowOpened | FlowClosed
    | FlowNoted | Configured | Streamed | StreamEnded | SessionNoted
)

_encoder = msgspec.msgpack.Encoder()


def render_event(event: msgspec.Struct) -> bytes:
    """Canonical bytes."""
    return _encoder.encode(event)
