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
