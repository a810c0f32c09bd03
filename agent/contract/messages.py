"""Messages between agent and enforcer, over an inherited Unix stream socket pair.

Each is one frame: 4 bytes little-endian length, then msgpack of one tagged struct of the unions below.  `number` joins
an answer to its question.  The enforcer may ask only what `FromEnforcer` lists: that table is the privilege boundary.
"""
from __future__ import annotations

from typing import Annotated

import msgspec

from agent.contract import frames
from agent.contract.credential import Credential
from agent.contract.locks import LockSet
from agent.contract.owner import Owner
from agent.contract.target import Egress, Names, Target

LIMIT = 8 << 20                       # bytes; a longer frame is refused before memory is taken
DOORS = 16                            # sockets of one network namespace, at most

# What the enforcer's questions hold at most, more than honest ones need: the agent keeps them until they are answered,
# and the enforcer may be broken.
TEXT = 1024                           # characters
MOST = 1024                           # words, as the groups of one principal
KEPT = 16 << 10                       # bytes of a ticket that is kept
FIGURES = 10_000                      # targets of which there are figures
TICKETS = 200                         # of them at a time
REASON_REQUIRED = "a reason is required"        # why an answer to a hold does not count, where only that is missing
REPORTS = "@reports"                  # in place of a target's name: the Unix socket at which crews report
Word = Annotated[str, msgspec.Meta(max_length=256)]     # a configured name, an address, a code
Text = Annotated[str, msgspec.Meta(max_length=TEXT)]
Login = Annotated[str, msgspec.Meta(max_length=10_000)] # what PostgreSQL's startup packet may hold
Packed = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]       # an address, IPv4 as ::ffff:a.b.c.d
Words = Annotated[tuple[Word, ...], msgspec.Meta(max_length=MOST)]


class Message(msgspec.Struct, frozen=True, tag=True):
    pass


# agent -> enforcer


class Configure(Message, frozen=True):
    """The whole configuration; the first message, and again at reload.  Answered by Configured."""

    number: int
    runtime: str                      # [runtime] name
    targets: tuple[Target, ...]
    egress: tuple[Egress, ...]
    policies: dict[str, str]          # file name -> Cedar text
    journal: str                      # directory of the journal
    forwarded_key: bytes              # 32 bytes: key of the `forwarded` digests in the recording
    journal_limit: int = 64 << 20     # bytes that may wait for the recorder before operations are refused
    reserve: int = 256 << 20          # bytes that must stay free on the journal's file system
    max_sessions: int = 1000
    hold_seconds: int = 900           # a hold without `within=` expires after this
    durable: str = "writes"           # "writes" | "all" | "none": which operations wait for fdatasync
    names: Names = Names()
    modes: dict[str, str] = {}        # egress mode of workloads, where it is not "enforce"
    ready: bool = True                # False: names are not resolved yet, connections wait
    approval_key: bytes = b""         # of the HMAC that approvals are bound by
    kept: dict[str, bytes] = {}       # of KeepTicket, of the enforcers before, by ticket; only the first one counts
    locks: LockSet = LockSet()        # in force before the first connection is accepted
    people: dict[str, tuple[str, ...]] = {}    # a person's names (agent.contract.people)
    digest: str = ""                  # of the configuration: hex, over `files`
    files: dict[str, str] = {}        # what it was read from -> BLAKE2b-256 of the content, hex
    prepare: bool = False             # not in force yet: PutInForce does that.  Its policies were validated before
    mask_key: bytes = b""             # of the `hash` mask; b"": made from forwarded_key


class PutInForce(Message, frozen=True):
    """What the last Configure has prepared counts from here on, for every session at once.  Answered by Done; with an
    error, what was in force stays."""

    number: int
    standing: frozenset[int]          # Owner.stamp of those who are who they were; others below `horizon` are not
    horizon: int                      # whoever is attributed from here on has this stamp or a later one


class WhoisAnswer(Message, frozen=True):
    number: int
    owner: Owner | None               # None: cannot be attributed, refuse
    reason: str = ""


class CredentialAnswer(Message, frozen=True):
    number: int
    credential: Credential | None
    reason: str = ""                  # without secrets


class AskerAnswer(Message, frozen=True):
    number: int
    workload: str = ""
    reason: str = ""                  # why it is no workload's, or why that is given addresses of targets alone


class NameRecorded(Message, frozen=True):
    """The answer to NameAsked: it is recorded, and these addresses are known to belong to the name."""

    number: int
    addresses: tuple[str, ...] = ()   # that may be given, in the order of the question
    error: str = ""                   # nothing may be given


class TicketKept(Message, frozen=True):
    """The answer to KeepTicket: it is on the disk, or gone from there."""

    number: int
    error: str = ""


class ResolveName(Message, frozen=True):
    """For the agent itself.  Answered by NameResolved."""

    number: int
    name: str


class ListHolds(Message, frozen=True):
    """What waits and what is in force, cut where it is much; with a `ticket` that alone, as it is."""

    number: int
    ticket: str = ""


class DecideHold(Message, frozen=True):
    """An approver's answer; the agent has authenticated `approver` by the kernel's peer credentials."""

    number: int
    ticket: str
    approve: bool
    approver: str                     # subject, "local:USER"
    groups: tuple[str, ...]           # of the approver, from the groups file
    reason: str = ""
    break_glass: bool = False         # alone, by the group that the rule names
    names: tuple[str, ...] = ()       # whatever else this person is called: by [people], by a login


class RevokeHold(Message, frozen=True):
    """Of what is in force, or was asked without a connection.  Answered by HoldDecided; `by` and `groups` as above."""

    number: int
    ticket: str
    by: str
    groups: tuple[str, ...]
    reason: str = ""
    names: tuple[str, ...] = ()


class AskElevation(Message, frozen=True):
    """A person asks for more for a while, for himself.  Answered by ElevationAsked."""

    number: int
    subject: str
    user: str
    uid: int
    groups: tuple[str, ...]
    target: str
    seconds: int
    reason: str = ""


class ListSessions(Message, frozen=True):
    number: int


class AskStatistics(Message, frozen=True):
    number: int


class AskFigures(Message, frozen=True):
    """For the metrics.  Answered by Figures."""

    number: int


class WatchChanges(Message, frozen=True):
    """Whether it is told of changes, by Changed.  Answered by Done."""

    number: int
    on: bool


class EndSession(Message, frozen=True):
    """End a session or a flow at once, with the protocol's own error.  Answered by SessionEnded."""

    number: int
    session: str                      # or the beginning of its name
    reason: str


class PutLocks(Message, frozen=True):
    """From now on these are locked out: what is open of them ends at once, what arrives is refused.  Answered by
    LocksTaken."""

    number: int
    locks: LockSet


class EndLogin(Message, frozen=True):
    """A login is no more, or its groups are others now: sessions and flows that speak for it end after the operation
    that runs, and one that arrives late is refused.  Answered by Done."""

    number: int
    login: str
    reason: str


class OpenNetwork(Message, frozen=True):
    """Serve another network namespace.  Its sockets have come before this, in the same order of messages: SCM_RIGHTS of
    one packet over the doors' socket pair.  Answered by Done; one that is served already is no error."""

    number: int
    netns: int                        # SO_NETNS_COOKIE of each of them
    listeners: int                    # so many of these,
    dns: int                          # then so many of the resolver's


class CloseNetwork(Message, frozen=True):
    """Its workload has ended: accept nothing more there.  Answered by Done."""

    number: int
    netns: int


class Ping(Message, frozen=True):
    number: int


class Drain(Message, frozen=True):
    """Accept nothing more, close sessions with the protocol's own error, flush the journal, exit 0."""

    number: int


# enforcer -> agent


class Configured(Message, frozen=True):
    number: int
    error: str = ""                   # empty: in force; else "FILE:LINE:COLUMN: what is wrong" and the old one stays


class Whois(Message, frozen=True):
    """Looked up and deleted: one answer a connection."""

    number: int
    cookie: int                       # SO_COOKIE of the accepted socket
    netns: int                        # and SO_NETNS_COOKIE
    address: Packed                   # peer of the accepted socket
    port: int
    redirected: Word = ""             # SO_ORIGINAL_DST as "ADDRESS PORT" where it differs from the listener's own


class WhoisLocal(Message, frozen=True):
    """Whose is a connection to a target's Unix socket.  Answered by WhoisAnswer, which holds if the process is still
    there when it comes: SO_PEERPIDFD of the accepted socket tells."""

    number: int
    target: Word                      # whose listener accepted it; or REPORTS
    pid: int                          # SO_PEERCRED: as the kernel noted them at connect(2)
    uid: int


class WhoAsks(Message, frozen=True):
    """Whose socket sent a question to the resolver.  Answered by AskerAnswer."""

    number: int
    netns: int                        # SO_NETNS_COOKIE of the listening socket
    stream: bool                      # TCP
    address: Packed
    port: int


class NameAsked(Message, frozen=True):
    """To be recorded before the answer goes out.  Answered by NameRecorded."""

    number: int
    workload: Word                    # "": several, or not known
    name: Text
    kind: Word                        # "A", "AAAA", "HTTPS", "TXT", ...
    verdict: Word                     # "answered" | "refused" | "failed"
    rcode: Word = "NOERROR"
    addresses: Words = ()             # that the name leads to
    reason: Text = ""
    count: int = 1                    # of how many questions this speaks


class NameResolved(Message, frozen=True):
    number: int
    addresses: Words = ()             # IPv4 first
    ttl: int = 0                      # seconds
    error: Text = ""                  # why there are none


class AskCredential(Message, frozen=True):
    number: int
    target: Word
    database: Login
    role: Login                       # user name that the crew asked for
    groups: Words
    who: Annotated[str, msgspec.Meta(max_length=1000)] = ""     # SUBJECT:WORKLOAD:SESSION, for the server's log


class KeepTicket(Message, frozen=True):
    """Keep this over restarts, in place of what was kept under the same ticket; with b"" forget it.  Answered by
    TicketKept.  The agent does not read it: it is given back with the first Configure of the next enforcer."""

    number: int
    ticket: Annotated[str, msgspec.Meta(pattern=r"^[a-z2-7]{8}\Z")]
    content: Annotated[bytes, msgspec.Meta(max_length=KEPT)]


class CredentialUnused(Message, frozen=True):
    """A session that was given a credential with this lease has ended, or has another.  Not answered."""

    number: int
    lease: int


class HoldView(msgspec.Struct, frozen=True):
    """A held operation as an approver sees it."""

    ticket: str
    since: int                        # nanoseconds UTC
    until: int
    subject: str
    workload: str
    pid: int
    exe: str
    target: str
    database: str
    action: str                       # "sql:delete public.orders, ..."
    text: str                         # what is recorded of what is asked
    parameters: tuple[str, ...]
    rules: tuple[str, ...]
    approvers: tuple[str, ...]        # groups that may answer
    reason_required: bool
    session: str
    form: str = "hold"                # "hold" | "ticket" | "elevation"
    state: str = "pending"            # "pending" | "approved": stands until `until`, or may be used once until then
    assents: tuple[str, ...] = ()     # who has said yes
    wanted: int = 1                   # distinct approvers
    break_glass: tuple[str, ...] = () # groups
    escalates: int = 0                # nanoseconds UTC from when on others may answer, too; 0: never, or it has
    reuse: str = "once"               # "once" | "session" | "shape" | "command"
    reason: str = ""                  # the asker's, of an elevation
    plan: str = ""                    # how the target would do it, or why that is not shown
    rows: int = -1                    # that it expects to touch; -1: not known
    reported: str = ""                # the tool call that its process says it is, or may be; "": it says nothing
    account: str = ""                 # user name at the target that the crew asked for
    covers: str = ""                  # what else an approval for the command lets through; "": operations of its shape
    reuse_for: int = 0                # seconds that what is reused stands, 0: without an end of its own


class HoldsAnswer(Message, frozen=True):
    number: int
    holds: tuple[HoldView, ...]


class HoldDecided(Message, frozen=True):
    number: int
    error: str = ""                   # empty: it counts


class ElevationAsked(Message, frozen=True):
    number: int
    ticket: Word = ""
    error: Text = ""


class SessionView(msgspec.Struct, frozen=True):
    session: str
    since: int
    subject: str
    workload: str
    pid: int
    target: str
    database: str
    operations: int
    state: str                        # "login" | "idle" | "active" | "held" | "flow"
    reported: str = ""                # the tool call that its process says is active, or each of several
    account: str = ""                 # as in HoldView


class Changed(Message, frozen=True):
    """Unasked, while they are watched, some times a second at most: what is held, or which sessions are open, is not as
    it was."""

    holds: bool = False
    sessions: bool = False


class SessionsAnswer(Message, frozen=True):
    number: int
    sessions: tuple[SessionView, ...]


class SessionEnded(Message, frozen=True):
    number: int
    session: SessionView | None = None        # which it was
    error: Text = ""


class LocksTaken(Message, frozen=True):
    number: int
    ended: int                        # sessions and flows


class StatisticsAnswer(Message, frozen=True):
    number: int
    values: Annotated[dict[Word, int], msgspec.Meta(max_length=MOST)]


class TargetFigures(msgspec.Struct, frozen=True, array_like=True):
    """Since the enforcer's start, but for `open`."""

    target: Word
    open: int                         # sessions
    sessions: int
    permitted: int                    # operations of crews
    denied: int
    held: int
    credential_failures: int
    upstream_failures: int
    distrusted: int                   # by clients, for a certificate or a host key


class Figures(Message, frozen=True):
    """`values` as in StatisticsAnswer, of no target; `targets`: those that are configured, FIGURES at most."""

    number: int
    values: Annotated[dict[Word, int], msgspec.Meta(max_length=MOST)]
    targets: Annotated[tuple[TargetFigures, ...], msgspec.Meta(max_length=FIGURES)] = ()


class Done(Message, frozen=True):
    number: int
    error: str = ""


class Pong(Message, frozen=True):
    number: int


FromAgent = (
    Configure | PutInForce | WhoisAnswer | CredentialAnswer | AskerAnswer | NameRecorded | TicketKept | ResolveName
    | ListHolds | DecideHold | RevokeHold | AskElevation
    | ListSessions | AskStatistics | AskFigures | WatchChanges | EndSession | EndLogin | PutLocks | OpenNetwork
    | CloseNetwork | Ping | Drain
)
FromEnforcer = (
    Configured | Whois | WhoisLocal | AskCredential | CredentialUnused | WhoAsks | NameAsked | KeepTicket | NameResolved
    | HoldsAnswer | HoldDecided | ElevationAsked
    | Changed | SessionsAnswer | SessionEnded | LocksTaken | StatisticsAnswer | Figures | Done | Pong
)

_encoder = msgspec.msgpack.Encoder()
_from_agent: msgspec.msgpack.Decoder[FromAgent] = msgspec.msgpack.Decoder(FromAgent)
_from_enforcer: msgspec.msgpack.Decoder[FromEnforcer] = msgspec.msgpack.Decoder(FromEnforcer)


def render_frame(message: Message) -> bytes:
    """One frame, length included.  Raises ValueError: it does not fit."""
    return frames.render_frame(_encoder.encode(message), LIMIT)


def parse_length(head: bytes) -> int:
    """Length of the body that follows these 4 bytes; ValueError where it is over LIMIT."""
    return frames.parse_length(head, LIMIT)


def parse_from_agent(body: bytes) -> FromAgent:
    return _from_agent.decode(body)


def parse_from_enforcer(body: bytes) -> FromEnforcer:
    return _from_enforcer.decode(body)
