"""What agent and credentials process say to each other, in frames as those of agent/contract/identity.py.

The credentials process parses what Vault says, and keeps Vault's tokens and leases.  The agent sends it what a file of
the operator's holds, unread, with each question, and gets a credential in these bounds.
"""
from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from agent.contract.identity import (
    LIMIT,
    Done,
    Message,
    Name,
    Ping,
    Pong,
    Seconds,
    Text,
    parse_length,
    render_frame,
)

SECRET = 64 << 10                     # bytes of a token, a JWT, a secret ID; characters of a bearer token
ROOTS = 128 << 10                     # bytes of a server's roots
VAULTS = 4                            # their sum is that of so many full ones
USER = 256                            # characters of a user's name at the target
PASSWORD = 4096                       # characters
PEM = 1 << 18                         # characters of a certificate's chain, of a key

APPROLE, JWT, KUBERNETES, TOKEN, CERT = "approle", "jwt", "kubernetes", "token", "cert"
METHODS = (APPROLE, JWT, KUBERNETES, TOKEN, CERT)
Method = Literal["approle", "jwt", "kubernetes", "token", "cert"]
Number = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]


class Server(msgspec.Struct, frozen=True):
    """A [[vault]], without anything secret."""

    name: str
    address: str                      # https, without a slash at its end
    ca: str                           # PEM, "": the system's roots
    namespace: str
    auth: Method
    mount: str                        # of that method
    role: str                         # `jwt`, `kubernetes`, `cert`; "": the method's default
    role_id: str                      # `approle`


class Material(msgspec.Struct, frozen=True):
    """What its files hold now: how Weir says there who it is.  Never printed: repr hides it."""

    secret: bytes = b""               # the secret ID, JWT or token
    certificate: str = ""             # PEM
    key: str = ""

    def __repr__(self) -> str:
        return "Material(...)"


class Stored(msgspec.Struct, frozen=True, tag=True):
    """KV version 2: the newest version at `path`.  A name of a field that is "" is not read."""

    mount: str
    path: str
    user: str                         # at the target; "": `user_field` has it
    user_field: str
    password_field: str
    certificate_field: str
    key_field: str
    token_field: str = ""             # bearer token


class Made(msgspec.Struct, frozen=True, tag=True):
    """The database engine: a user that it makes for a lease, or where `static` one whose password it changes."""

    mount: str
    role: str
    static: bool = False


class Signed(msgspec.Struct, frozen=True, tag=True):
    """The SSH engine: a certificate for a key, and for one account."""

    mount: str
    role: str
    public: str                       # "TYPE BASE64"
    user: str                         # no comma in it: Vault takes a list


Source = Stored | Made | Signed

# agent -> credentials process


class Configure(Message, frozen=True):
    """All of them; the first message, and again at reload.  Leases of one that has changed go on until nobody uses
    them.  Answered by Done."""

    number: int
    servers: tuple[Server, ...]


class Fetch(Message, frozen=True):
    """Answered by Fetched."""

    number: int
    server: str
    material: Material
    source: Source


class Revoke(Message, frozen=True):
    """Nobody uses this lease any more; none is being fetched.  Answered by Done."""

    number: int
    lease: int


# credentials process -> agent


class Fetched(Message, frozen=True):
    """Never printed: repr hides what it holds."""

    number: int
    error: Text = ""                  # without anything secret, and without a word of Vault's
    user: Annotated[str, msgspec.Meta(max_length=USER)] = ""
    password: Annotated[str, msgspec.Meta(max_length=PASSWORD)] = ""
    certificate: Annotated[str, msgspec.Meta(max_length=PEM)] = ""
    key: Annotated[str, msgspec.Meta(max_length=PEM)] = ""
    token: Annotated[str, msgspec.Meta(max_length=SECRET)] = ""
    expires: Seconds = 0              # seconds UTC, as far as it is known now; 0: it does not
    lease: Number = 0                 # 0: none

    def __repr__(self) -> str:
        return f"Fetched(number={self.number}, error={self.error!r}, lease={self.lease})"


FromAgent = Configure | Fetch | Revoke | Ping
FromVault = Done | Fetched | Pong

_from_agent: msgspec.msgpack.Decoder[FromAgent] = msgspec.msgpack.Decoder(FromAgent)
_from_vault: msgspec.msgpack.Decoder[FromVault] = msgspec.msgpack.Decoder(FromVault)

__all__ = ["LIMIT", "Done", "Message", "Name", "Ping", "Pong", "parse_length", "render_frame"]


def parse_from_agent(body: bytes) -> FromAgent:
    return _from_agent.decode(body)


def parse_from_vault(body: bytes) -> FromVault:
    return _from_vault.decode(body)
