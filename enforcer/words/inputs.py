"""What the edge tells a layer.  Past tense.  Bytes come by `Layer.receive`, everything else by `Layer.handle`."""
from __future__ import annotations

import msgspec

from agent.contract.credential import Credential


class Input(msgspec.Struct, frozen=True):
    pass


class TlsStarted(Input, frozen=True):
    peer: int
    version: str                      # "TLSv1.3 TLS_AES_256_GCM_SHA384"
    certificate: bytes = b""          # DER of the server's certificate (peer SERVER), for channel binding
    signature_hash: str = ""          # hash of its signature algorithm, "sha256": RFC 5929 tls-server-end-point


class Connected(Input, frozen=True):
    """Upstream TCP is up; `address` is "10.0.0.1:5432"."""

    address: str


class ConnectFailed(Input, frozen=True):
    reason: str


class CredentialReady(Input, frozen=True):
    credential: Credential


class CredentialFailed(Input, frozen=True):
    reason: str


class ConnectionLost(Input, frozen=True):
    peer: int
    reason: str = ""                  # empty: the peer closed in order


class HoldAnswered(Input, frozen=True):
    operation: int
    state: str                        # approved | denied | expired | cancelled | ticket: ask again once it is approved
    by: str
    reason: str
    ticket: str


class HoldOpened(Input, frozen=True):
    """The hold is registered: its ticket, for the NOTICE."""

    operation: int
    ticket: str
    reason: str = ""                  # why it waits, and for whom


class TimerFired(Input, frozen=True):
    name: str


class CatalogueReady(Input, frozen=True):
    database: str
    catalogue: object                 # the protocol's own Catalogue; None where it could not be read
    reason: str = ""


class RecordingFailed(Input, frozen=True):
    """Nothing more may be forwarded: tell the client in its protocol's words and close."""

    reason: str


class Ended(Input, frozen=True):
    """An operator, a drain or a policy ends this session: now, or once what runs has finished."""

    reason: str
    finish: bool = False


class ThroughOpened(Input, frozen=True):
    """Tunnel `number` is a session of its own, with that target."""

    number: int
    target: str
    session: str


class ThroughRefused(Input, frozen=True):
    """`reason` empty: it is no registered target, and what becomes of it is the layer's to decide."""

    number: int
    reason: str


class ThroughDials(Input, frozen=True):
    """The session in tunnel `tunnel` wants a connection to where that tunnel leads: open one at the server, as line
    `number` (peer SERVER).  Answered by ThroughConnected or ThroughFailed.  The session's own line has its tunnel's
    number; lines below 0 are connections of Weir's own (catalogue, plan, cancel), which have no client."""

    number: int
    tunnel: int


class ThroughData(Input, frozen=True):
    """What goes to that side."""

    number: int
    peer: int
    data: bytes


class ThroughFull(Input, frozen=True):
    """What came from that side is not taken fast enough: send nothing more of it, or (not `on`) go on."""

    number: int
    peer: int
    on: bool


class ThroughEnded(Input, frozen=True):
    """Nothing more goes to that side and nothing more is taken from it: close it, after what it was given.  It may come
    in place of an answer to ThroughDials, where nobody waits for that any more."""

    number: int
    peer: int


class ThroughClosed(Input, frozen=True):
    """The session of this tunnel is over, and the number may be used again."""

    number: int
    reason: str
