"""What agent and identity process say to each other, over an inherited Unix stream socket pair.

Each message is one frame: 4 bytes little-endian length, then msgpack of one tagged struct.  The identity process holds
tokens and parses what providers say; it tells the agent of a session only `Verified` and `Ended`, in these bounds.  No
token ever travels to the agent; a token file's bytes travel from it, unread.
"""
from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from agent.contract import frames

LIMIT = 1 << 20                       # bytes of a frame
TOKEN = 64 << 10                      # bytes of a token, and of a token file
QUERY = 8 << 10                       # bytes of what comes back to the loopback redirect
FORM = 256 << 10                      # bytes of what a SAML provider has a browser post there
LOGOUT = 128 << 10                   # bytes of what a provider posts where somebody has logged out there
METADATA = 128 << 10                  # bytes of a SAML provider's metadata
GROUPS = 256                          # of one subject
NAME_ID = "NameID"                    # as `subject_claim`: SAML's own name of the subject

CODE, DEVICE, CLIENT, FILE, SAML = "code", "device", "client", "file", "saml"
How = Literal["code", "device", "client", "file", "saml"]
Name = Annotated[str, msgspec.Meta(max_length=64)]
Text = Annotated[str, msgspec.Meta(max_length=1024)]
Url = Annotated[str, msgspec.Meta(max_length=8192)]
Subject = Annotated[str, msgspec.Meta(min_length=3, max_length=300)]       # "PROVIDER:CLAIM"
Groups = Annotated[tuple[Name, ...], msgspec.Meta(max_length=GROUPS)]
Seconds = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]


class ServiceIdentity(msgspec.Struct, frozen=True):
    """Whose a workload's sessions are where no person stands behind it."""

    provider: str
    token_file: str | None = None     # a JWT; None: the provider's client credentials


class Provider(msgspec.Struct, frozen=True):
    """A [[provider]], with what its files hold.  Never printed: repr hides the secret."""

    name: str
    issuer: str
    client_id: str
    client_secret: str                # "": a public client
    audience: str                     # of access tokens and token files
    algorithms: tuple[str, ...]
    ca: str                           # PEM, "": the system's roots
    scopes: tuple[str, ...]
    subject_claim: str
    groups_claim: tuple[str, ...]
    groups: dict[str, str]            # value of the claim -> group
    required: dict[str, str | bool | int]
    refresh: int                      # seconds
    introspect: bool = False          # ask there whether a token that is not refreshed still holds
    hosts: tuple[str, ...] = ()       # besides the issuer's own, that its configuration may name: HOST or HOST:PORT

    def __repr__(self) -> str:
        return f"Provider(name={self.name!r}, ...)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("name", self.name)]


class SamlProvider(msgspec.Struct, frozen=True):
    """A [[saml_provider]], with what its files hold.  Never printed: repr hides the key."""

    name: str
    issuer: str                       # its entity ID
    entity_id: str                    # Weir's own
    metadata: bytes                   # as the file has it, unread; b"": it is at `metadata_url`
    metadata_url: str
    ca: str                           # PEM, "": the system's roots
    key: str                          # PEM, "": requests are not signed, nothing can be decrypted
    subject_claim: str                # NAME_ID, or an attribute
    groups_claim: tuple[str, ...]     # one attribute
    groups: dict[str, str]            # value of that attribute -> group
    required: dict[str, str]          # attribute -> its one value

    def __repr__(self) -> str:
        return f"SamlProvider(name={self.name!r}, ...)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("name", self.name)]


class Message(msgspec.Struct, frozen=True, tag=True):
    pass


# agent -> identity process


class Configure(Message, frozen=True):
    """All providers; the first message, and again at reload.  Sessions of one that has changed end.  Answered by
    Done."""

    number: int
    providers: tuple[Provider, ...]
    saml: tuple[SamlProvider, ...] = ()


class Begin(Message, frozen=True):
    """A session.  Answered by Begun; then Verified and Ended come by themselves.  `file`: again for the same session
    when the file has changed."""

    number: int
    session: str
    provider: str
    how: How
    port: int = 0                     # `code`, `saml`: of the loopback listener
    token: bytes = b""                # `file`: what it holds
    redirect: str = ""                # `code`, `saml`: where the answer goes instead

    def __repr__(self) -> str:
        return f"Begin(session={self.session!r}, how={self.how!r})"


class Finish(Message, frozen=True):
    """What came back to the listener: the query of the redirect, or with SAML the form.  Answered by Done;
    Verified has come before it where `error` is empty."""

    number: int
    session: str
    query: str

    def __repr__(self) -> str:
        return f"Finish(session={self.session!r})"


class Forget(Message, frozen=True):
    """The session is over: its tokens are revoked, where the provider knows how, and forgotten.  Answered by Done."""

    number: int
    session: str


class Logout(Message, frozen=True):
    """What came for this provider's back-channel, unread: anybody may have sent it.  Answered by Done; Ended has come
    before it, of each session that it ends, where `error` is empty."""

    number: int
    provider: str
    body: bytes

    def __repr__(self) -> str:
        return f"Logout(provider={self.provider!r})"


class SamlLogout(Message, frozen=True):
    """What came for single logout, by HTTP-Redirect a query, else a form; `place`: the address that it came to.
    Answered by LoggedOut, as Logout."""

    number: int
    provider: str
    place: str
    query: str = ""
    form: bytes = b""

    def __repr__(self) -> str:
        return f"SamlLogout(provider={self.provider!r})"


class Leave(Message, frozen=True):
    """As Forget, by somebody who may log out at the provider, too.  Answered by LoggedOut."""

    number: int
    session: str


class Ping(Message, frozen=True):
    number: int


# identity process -> agent


class Done(Message, frozen=True):
    number: int
    error: Text = ""


class LoggedOut(Message, frozen=True):
    number: int
    error: Text = ""
    url: Url = ""                     # where a browser goes on, "": nowhere


class Begun(Message, frozen=True):
    number: int
    error: Text = ""
    url: Url = ""                     # where the person goes
    user_code: Name = ""              # `device`: what is typed there
    complete: Url = ""                # `device`: the same address with the code in it, where the provider has one
    seconds: Seconds = 0              # in which it must be done
    relay: Name = ""                  # `saml`: the RelayState that the answer comes with


class Pong(Message, frozen=True):
    number: int


class Verified(Message, frozen=True):
    """Again after each refresh."""

    session: Name
    subject: Subject
    groups: Groups                    # of Weir's, by [provider.groups]
    expires: Seconds                  # seconds UTC


class Ended(Message, frozen=True):
    session: Name
    reason: Text                      # without anything of a token


FromAgent = Configure | Begin | Finish | Forget | Logout | SamlLogout | Leave | Ping
FromIdentity = Done | LoggedOut | Begun | Pong | Verified | Ended

_encoder = msgspec.msgpack.Encoder()
_from_agent: msgspec.msgpack.Decoder[FromAgent] = msgspec.msgpack.Decoder(FromAgent)
_from_identity: msgspec.msgpack.Decoder[FromIdentity] = msgspec.msgpack.Decoder(FromIdentity)


def render_frame(message: Message) -> bytes:
    """One frame, length included.  Raises ValueError: it does not fit."""
    return frames.render_frame(_encoder.encode(message), LIMIT)


def parse_length(head: bytes) -> int:
    """Length of the body that follows these 4 bytes; ValueError where it is over LIMIT."""
    return frames.parse_length(head, LIMIT)


def parse_from_agent(body: bytes) -> FromAgent:
    return _from_agent.decode(body)


def parse_from_identity(body: bytes) -> FromIdentity:
    return _from_identity.decode(body)
