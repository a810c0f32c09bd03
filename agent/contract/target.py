"""What the enforcer is told of a registered target."""
from __future__ import annotations

from typing import Final

import msgspec

# Modes of egress (docs/decisions/0015).  What has none, and what nobody knows, is enforced.
ENFORCE, SHADOW, RECORD = "enforce", "shadow", "record"
MODES: Final = (ENFORCE, SHADOW, RECORD)


class ColumnLabel(msgspec.Struct, frozen=True):
    """A data class on a column and how its values are masked where unmasking is not permitted."""

    label: str                        # "pii.email", "secret"
    schema: str
    table: str
    column: str
    mask: str = "redact"              # "redact" | "partial" | "hash" | "null" | "constant:TEXT"


class ContentLabel(msgspec.Struct, frozen=True):
    """A data class on what files hold and commands print; whoever may not unmask it gets a mask of the same length.
    One of `path` and `command`, `*` stands for anything in both, as in policies."""

    label: str                        # "secret.deploy"
    path: str = ""                    # canonical, "/etc/app/*.key"
    command: str = ""                 # canonical line, "vault read *"


class FieldLabel(msgspec.Struct, frozen=True):
    """A data class on a field of a cluster's objects, and how its values are masked where unmasking is not permitted.
    Values of Secrets have the label `secret` without one of these."""

    label: str                        # "pii.email"
    group: str                        # "" is the core group
    resource: str                     # "configmaps", as in a URL
    path: tuple[str, ...]             # ("spec", "users", "*", "email"): `*` is every item of a list, every key of a map
    mask: str = "redact"              # "redact" | "partial" | "hash" | "constant:TEXT"


class Forward(msgspec.Struct, frozen=True):
    """Pods of a cluster in which a registered target listens: a port-forward to it is a session of that target."""

    target: str
    namespace: str
    pods: str                         # `*` stands for anything: "db-*"
    port: int                         # of the pod


class Target(msgspec.Struct, frozen=True):
    """One registered database, SSH host or cluster."""

    name: str
    protocol: str                     # folder under enforcer/protocols
    hosts: tuple[str, ...]            # names and addresses as configured; the first is used to dial upstream
    port: int
    addresses: tuple[str, ...]        # what the names resolve to now
    tls: str = "verify-full"          # "verify-full" | "verify-ca" | "disable" towards the server
    tls_ca: str = ""                  # PEM text of the roots for the server's certificate; empty: system roots
    leaf_certificate: str = ""        # PEM chain shown to crews (leaf, then Weir's CA of this target)
    leaf_key: str = ""                # PEM, ECDSA P-256
    databases: tuple[str, ...] = ()   # empty: every database
    labels: tuple[ColumnLabel, ...] = ()
    payload: str = "none"             # "none" | "rows": record delivered responses
    payload_limit: int = 1 << 20      # bytes of payload kept an operation; the digest covers all
    options: dict[str, str] = {}      # the protocol's own, e.g. "catalogue_credential"
    content_labels: tuple[ContentLabel, ...] = ()
    detectors: tuple[str, ...] = ()   # of enforcer/policy/detectors.py, over what is no table of values
    host_keys: tuple[str, ...] = ()   # SSH: private keys, OpenSSH's format: what Weir shows crews
    known_hosts: str = ""             # SSH: lines of a known_hosts file, by which the server is verified
    field_labels: tuple[FieldLabel, ...] = ()
    forwards: tuple[Forward, ...] = ()
    socket: str = ""                  # Unix socket that is dialled in place of `addresses`; `tls` is "disable" then


class Egress(msgspec.Struct, frozen=True):
    """Somewhere that crews may talk to as an opaque, recorded flow."""

    name: str
    addresses: tuple[str, ...]        # those that are listed; what names lead to is said of each connection (Owner)
    ports: tuple[int, ...]


class Names(msgspec.Struct, frozen=True):
    """What Weir's resolver may be asked."""

    upstream: tuple[str, int] | None = None     # the DNS server that is asked; None: nothing can be answered
    patterns: tuple[str, ...] = ()    # names and "*.NAME", lower case, without the last dot
