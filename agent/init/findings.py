"""What `weir init` has found: crews of this host, and whom they talk to."""
from __future__ import annotations

from typing import Any, Final

import msgspec

from agent.settings.credential_table import KUBERNETES, POSTGRESQL, SSH

OTHER: Final = ""                     # a place of no protocol that Weir speaks: a model's API, say
PORTS: Final = {5432: POSTGRESQL, 22: SSH, 6443: KUBERNETES}
PASSWORD, KEY, TOKEN, CERTIFICATE = "password", "key", "token", "certificate"
UNIT, COMMAND = "unit", "command"


class Secret(msgspec.Struct, frozen=True):
    """Shown by where it was found alone: neither `repr` nor an error has it."""

    kind: str
    value: str
    place: str                        # where it was found, for people

    def __repr__(self) -> str:
        return f"Secret({self.kind!r}, ..., {self.place!r})"

    def __rich_repr__(self) -> Any:   # nor does rich
        yield self.kind
        yield self.place


class Peer(msgspec.Struct, frozen=True):
    """Somewhere that a crew talks to, or is configured to."""

    protocol: str                     # of Weir's, or OTHER
    hosts: tuple[str, ...]            # as it is dialled; a name comes first
    port: int
    why: tuple[str, ...]              # where it was found, for people
    addresses: tuple[str, ...] = ()   # that the names lead to
    user: str = ""
    database: str = ""                # or namespace
    tls: str = ""                     # as its client has it: PostgreSQL's sslmode
    root_file: str = ""               # that its client names
    socket: str = ""                  # Unix socket of a database, in place of `hosts`
    keys: tuple[str, ...] = ()        # public host keys, "TYPE BASE64", by the crew's own word
    authorities: str = ""             # PEM, of a cluster; by the crew's own word
    secrets: tuple[Secret, ...] = ()
    name: str = ""                    # that somebody has given it
    sure: bool = True                 # False: it is only known there, and was maybe never talked to


class Crew(msgspec.Struct, frozen=True):
    """A unit, or what a user runs."""

    kind: str                         # UNIT or COMMAND
    name: str                         # of the unit, or of the user
    user: str                         # empty: systemd makes one (DynamicUser=)
    home: str                         # empty: there is none
    why: str                          # why it looks like a crew
    needs: tuple[str, ...] = ()       # paths that it needs to see
    peers: tuple[Peer, ...] = ()


class Findings(msgspec.Struct, frozen=True):
    crews: tuple[Crew, ...] = ()
    recorded: tuple[Peer, ...] = ()   # of a recording, whoever it was
    notes: tuple[str, ...] = ()
