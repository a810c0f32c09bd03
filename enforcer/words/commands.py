"""Commands: what a layer wants done.  Imperative; a layer returns them in order and the edge carries them out in order.

The order is the promise: `SendData(SERVER, ...)` after a `Record` is written to the socket only after the journal holds
that record (and, where the record is durable, after fdatasync).
"""
from __future__ import annotations

from typing import Final

import msgspec

from enforcer.words.decisions import HoldTerms
from enforcer.words.events import Blob

CLIENT: Final = 0
SERVER: Final = 1


class Command(msgspec.Struct, frozen=True):
    pass


class SendData(Command, frozen=True):
    peer: int                         # CLIENT | SERVER
    data: bytes
    answers: bool = False             # what that peer itself has asked: a server that reads none of it is cut off


class Record(Command, frozen=True):
    """Append an event (and first the blobs it names) to the journal.  `barrier` True: what this session sends to the
    server after it waits for the journal's write; `durable` also for fdatasync."""

    event: msgspec.Struct
    blobs: tuple[Blob, ...] = ()
    barrier: bool = False
    durable: bool = False


class StartTls(Command, frozen=True):
    """CLIENT: as server with the target's leaf, after writing `first` (b"S").  SERVER: as client, verified as the
    target says.  Nothing read before it is plaintext that may count.  Answered by TlsStarted or ConnectionLost."""

    peer: int
    first: bytes = b""
    alpn: str = ""


class OpenConnection(Command, frozen=True):
    """Dial the target.  Answered by Connected or ConnectFailed."""


class LeaveServer(Command, frozen=True):
    """Close the connection to the server, if it stands, and tell nothing more of it: the session goes on, and may open
    another."""


class Login(Command, frozen=True):
    """Fetch the credential for (database, role).  Answered by CredentialReady or CredentialFailed."""

    database: str
    role: str


class CloseConnection(Command, frozen=True):
    """Flush what was sent to this peer, then close it.  Where the client is closed alone and sessions go through this
    one, ConnectionLost comes when their last words have had their way."""

    peer: int
    reason: str = ""


class PauseReading(Command, frozen=True):
    peer: int


class ResumeReading(Command, frozen=True):
    peer: int


class Explain(msgspec.Struct, frozen=True):
    """What a protocol needs to ask the target how it would do an operation, on a connection of Weir's own."""

    text: str
    values: tuple[str | None, ...]
    types: tuple[int, ...]            # of the values, as the client said; shorter: the target finds out
    schemas: tuple[str, ...]
    role: str


class Hold(Command, frozen=True):
    """Ask approvers.  Answered by HoldAnswered with the same operation."""

    operation: int
    terms: tuple[HoldTerms, ...]
    action: str
    text: str
    parameters: tuple[str, ...]
    rules: tuple[str, ...]
    binding: bytes                    # digest of the exact bytes and parameters: what the approval is bound to
    database: str = ""
    exact: bytes = b""                # digest of all that tells the same operation in another session; b"": cannot be
    shape: bytes = b""                # digest of the operation's shape, where a rule asks for it; b"": it has none
    explain: Explain | None = None    # how to see how the target would do it,
    unexplained: str = ""             # or why that is not shown
    asked: bytes = b""                # digest of what is asked of what: in `action` names may hold anything
    account: str = ""                 # user name that the crew asked for, where approvers need it
    inexact: str = ""                 # how it could be asked so that `exact` can be told, for its user
    covers: str = ""                  # what else an approval for the command lets through, in words ("k8s:delete of
                                      # pods in shop"): `shape` alone says which things those are, and not `asked`


class UseHold(Command, frozen=True):
    """What was held as `held` and approved under this ticket goes as `operation` (the same number, or one of its own):
    what is sent to the server after it waits until that is on the disk.  Where it may not (it was used, or is not
    approved) the session ends."""

    operation: int
    ticket: str
    held: int


class CancelHold(Command, frozen=True):
    """Nobody waits for the answer any more: answered by HoldAnswered, "cancelled".  What was answered stays so."""

    operation: int
    reason: str


class ReturnHold(Command, frozen=True):
    """What was held as this and approved will not go; not answered.  Of what still waits, or has gone, it changes
    nothing."""

    operation: int


class StartTimer(Command, frozen=True):
    """Answered by TimerFired(name) after `seconds`; a second one of the same name replaces the first, 0 stops it."""

    name: str
    seconds: float


class LoadCatalogue(Command, frozen=True):
    """Read the database's catalogue through a connection of Weir's own.  Answered by CatalogueReady."""

    database: str
    stale: int                        # version that was found wanting; 0: any will do


class CancelRequest(Command, frozen=True):
    """A cancel connection of this target asked for key (pid, secret) of Weir's own: find the session, check that the
    asking principal owns it, and send the real cancel upstream."""

    process: int
    secret: bytes


class Count(Command, frozen=True):
    """Of this target: one more of these ("unknown_host_key")."""

    name: str


class LoginDone(Command, frozen=True):
    """The client is in: there is no deadline any more."""


class Registered(Command, frozen=True):
    """LoginDone, and register the session under Weir's own cancel key; the real key stays with the session."""

    process: int                      # Weir's own key, shown to the client
    secret: bytes
    real_process: int
    real_secret: bytes


# A registered target through a stream that this layer carries (enforcer/edge/through.py).  `number` is a tunnel's or a
# line's: what is gone meanwhile is passed over, for both sides may end it at the same time.


class OpenThrough(Command, frozen=True):
    """Somebody asks for a tunnel to (host, port): if that is a registered target, a session of that target begins, and
    the layer carries its bytes from now on.  Answered by ThroughOpened or ThroughRefused; nothing is sent before that.
    `number`: from 0, of no other tunnel that is not closed."""

    number: int
    host: str                         # as the client says it
    port: int
    target: str = ""                  # by name, where host and port do not say it


class ThroughConnected(Command, frozen=True):
    """Answers ThroughDials: from here on its line may be written to."""

    number: int
    address: str = ""                 # "ADDRESS:PORT" for the recording; empty: as it was asked for


class ThroughFailed(Command, frozen=True):
    """Answers ThroughDials."""

    number: int
    reason: str


class SendThrough(Command, frozen=True):
    """What came from that side.  After ThroughFull(on) a layer sends little more: what it let its peer send already."""

    number: int
    peer: int                         # CLIENT | SERVER
    data: bytes


class EndThrough(Command, frozen=True):
    """That side has said all that it will, and still listens."""

    number: int
    peer: int


class CloseThrough(Command, frozen=True):
    """That side is gone.  With a reason: it was lost, and what is on the way to the session is not read any more."""

    number: int
    peer: int
    reason: str = ""


class PauseThrough(Command, frozen=True):
    """Give nothing more that goes to that side (one ThroughData may still come)."""

    number: int
    peer: int


class ResumeThrough(Command, frozen=True):
    number: int
    peer: int
