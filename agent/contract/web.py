"""What agent and web process say to each other, over an inherited Unix stream socket pair.

Each message is one frame: 4 bytes little-endian length, then msgpack of one tagged struct.  The web process parses what
browsers and whoever else dials it send; it has no authority of its own.  Whatever it asks for somebody carries the
`secret` of that person's cookie, which the agent has made, keeps as a hash, and resolves to a subject and its groups.
"""
from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from agent.contract import frames
from agent.contract.messages import HoldView, SessionView

LIMIT = 8 << 20                       # bytes of a frame to the web process,
ASKED = 1 << 19                       # and of one from it
QUERY = 8 << 10                       # bytes of what comes back from a provider in an address
FORM = 256 << 10                      # bytes of a body that is handed on
SECRET = 43                           # characters: 256 bits
HEADERS = 16                          # of what is handed on

Name = Annotated[str, msgspec.Meta(max_length=64)]
Secret = Annotated[str, msgspec.Meta(max_length=SECRET)]
Ticket = Annotated[str, msgspec.Meta(max_length=256)]
Token = Annotated[str, msgspec.Meta(max_length=1024)]
Reason = Annotated[str, msgspec.Meta(max_length=1024)]
Address = Annotated[str, msgspec.Meta(max_length=64)]
Query = Annotated[str, msgspec.Meta(max_length=QUERY)]
Form = Annotated[bytes, msgspec.Meta(max_length=FORM)]
Port = Annotated[int, msgspec.Meta(ge=0, lt=1 << 16)]


class Message(msgspec.Struct, frozen=True, tag=True):
    pass


# agent -> web process


class Way(msgspec.Struct, frozen=True):
    """To log in."""

    name: str                         # of the provider
    saml: bool = False


class Configure(Message, frozen=True):
    """The first message, and again at reload.  Answered by Done.  Never printed: repr hides the key."""

    number: int
    url: str                          # that people use, without a path
    ways: tuple[Way, ...] = ()
    certificate: str = ""             # PEM, "": without TLS
    key: str = ""
    host: str = ""                    # whose Weir this is

    def __repr__(self) -> str:
        return f"Configure(url={self.url!r})"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("url", self.url)]


class Admitted(Message, frozen=True):
    """`reason`: why not, "" where it may go on."""

    number: int
    reason: str = ""


class Begun(Message, frozen=True):
    number: int
    error: str = ""
    secret: str = ""                  # of this login alone, for the browser that began it
    url: str = ""                     # where it goes

    def __repr__(self) -> str:
        return f"Begun(error={self.error!r})"


class Opened(Message, frozen=True):
    number: int
    error: str = ""
    secret: str = ""                  # of the session: a cookie, and known nowhere else
    seconds: int = 0                  # that it lasts at most

    def __repr__(self) -> str:
        return f"Opened(error={self.error!r})"


class Person(msgspec.Struct, frozen=True):
    """Whose a session is."""

    session: str                      # its name, which is no secret
    subject: str
    groups: tuple[str, ...]
    until: int                        # seconds UTC, at the latest
    operator: bool = False            # may end sessions
    auditor: bool = False             # sees sessions


class Who(Message, frozen=True):
    number: int
    person: Person | None = None      # None: there is no such session


class Holds(Message, frozen=True):
    """What this person may see of them."""

    number: int
    holds: tuple[HoldView, ...] = ()
    error: str = ""


class Sessions(Message, frozen=True):
    number: int
    sessions: tuple[SessionView, ...] = ()
    error: str = ""


class Recorded(Message, frozen=True):
    """A page of the recording: msgpack of what enforcer.recording.paged has, unread by the agent."""

    number: int
    content: bytes = b""
    error: str = ""


class Answered(Message, frozen=True):
    """`error` empty: it counts."""

    number: int
    error: str = ""


class Link(Message, frozen=True):
    """What a signed link is for.  `view` None: nothing, or it is over."""

    number: int
    view: HoldView | None = None
    approve: bool = False
    by: str = ""                      # whose it is
    until: int = 0                    # nanoseconds UTC, that it holds


class Replied(Message, frozen=True):
    """What is answered to Came."""

    number: int
    status: int = 404
    media: str = "text/plain; charset=utf-8"
    body: bytes = b""
    location: str = ""                # where a browser goes on: a path of this page, or an address of a provider's


class Changed(Message, frozen=True):
    """Unasked, while it watches: look again."""

    holds: bool = False
    sessions: bool = False


class Over(Message, frozen=True):
    """Unasked: a session has ended."""

    session: str


class Ping(Message, frozen=True):
    number: int


# web process -> agent


class Done(Message, frozen=True):
    number: int
    error: Reason = ""


class Pong(Message, frozen=True):
    number: int


class Admit(Message, frozen=True):
    """Who has connected: by a Unix socket `pid` (SO_PEERCRED; the answer holds if the process is still there when it
    comes), else by the addresses of both ends.  Answered by Admitted."""

    number: int
    pid: int = 0
    address: Address = ""
    port: Port = 0
    own_address: Address = ""
    own_port: Port = 0


class BeginLogin(Message, frozen=True):
    """Answered by Begun."""

    number: int
    provider: Name


class FinishLogin(Message, frozen=True):
    """What came back, in the browser that began it; with SAML nothing more, it has come by FinishSaml.  Answered by
    Opened."""

    number: int
    secret: Secret
    provider: Name
    query: Query

    def __repr__(self) -> str:
        return f"FinishLogin(provider={self.provider!r})"


class FinishSaml(Message, frozen=True):
    """What a provider has a browser post: without a cookie, for it comes from another site.  `relay`: its RelayState.
    Answered by Answered."""

    number: int
    provider: Name
    relay: Name
    form: Form

    def __repr__(self) -> str:
        return f"FinishSaml(provider={self.provider!r})"


class Asked(Message, frozen=True):
    """Of somebody.  Never printed."""

    number: int
    secret: Secret

    def __repr__(self) -> str:
        return f"{type(self).__name__}(number={self.number})"


class AskWho(Asked, frozen=True):
    """Answered by Who.  `used`: somebody has done something, and not only a page that was left open."""

    used: bool = True


class ListHolds(Asked, frozen=True):
    """Answered by Holds; of these the one with `ticket` is whole, however much waits."""

    ticket: Annotated[str, msgspec.Meta(max_length=16)] = ""


class ListSessions(Asked, frozen=True):
    """Answered by Sessions."""


class AskRecorded(Asked, frozen=True):
    """For auditors; what a subject whose hold somebody may answer was told before is for them, too.  Answered by
    Recorded."""

    what: Literal["sessions", "lines", "history", "tape"]
    name: Annotated[str, msgspec.Meta(max_length=300)] = ""
    at: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)] = 0
    operation: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)] = 0


class Decide(Asked, frozen=True):
    """Answered by Answered."""

    ticket: Ticket
    approve: bool
    reason: Reason = ""
    glass: bool = False


class Revoke(Asked, frozen=True):
    """Answered by Answered."""

    ticket: Ticket
    reason: Reason = ""


class Kill(Asked, frozen=True):
    """Answered by Answered."""

    session: Ticket
    reason: Reason = ""


class Logout(Asked, frozen=True):
    """Answered by Answered."""


class Watch(Message, frozen=True):
    """Whether anybody has a page open that is to be told of changes.  Answered by Answered."""

    number: int
    on: bool


class AskLink(Message, frozen=True):
    """Answered by Link.  It changes nothing: links are looked at by whatever stands between."""

    number: int
    token: Token

    def __repr__(self) -> str:
        return f"AskLink(number={self.number})"


class AnswerLink(Message, frozen=True):
    """What it is for is to be done.  Answered by Answered."""

    number: int
    token: Token
    reason: Reason = ""

    def __repr__(self) -> str:
        return f"AnswerLink(number={self.number})"


class Came(Message, frozen=True):
    """What came for a part of the agent, unread, with no session: for a provider, from a chat.  Answered by Replied."""

    number: int
    part: Literal["backchannel", "saml", "slack"]
    name: Annotated[str, msgspec.Meta(max_length=256)]      # rest of the path: a provider, and what is asked of it
    method: Literal["GET", "POST"]
    query: Query = ""
    headers: Annotated[tuple[tuple[Name, Annotated[str, msgspec.Meta(max_length=4096)]], ...],
                       msgspec.Meta(max_length=HEADERS)] = ()      # content-type, and those that begin with x-
    body: Form = b""

    def __repr__(self) -> str:
        return f"Came(part={self.part!r})"


FromAgent = (Configure | Admitted | Begun | Opened | Who | Holds | Sessions | Recorded | Answered | Link | Replied
             | Changed | Over | Ping)
Question = (Admit | BeginLogin | FinishLogin | FinishSaml | AskWho | ListHolds | ListSessions | AskRecorded | Decide
            | Revoke | Kill | Logout | Watch | AskLink | AnswerLink | Came)
FromWeb = Done | Pong | Question

_encoder = msgspec.msgpack.Encoder()
_from_agent: msgspec.msgpack.Decoder[FromAgent] = msgspec.msgpack.Decoder(FromAgent)
_from_web: msgspec.msgpack.Decoder[FromWeb] = msgspec.msgpack.Decoder(FromWeb)


def render_frame(message: Message, limit: int = LIMIT) -> bytes:
    """One frame, length included.  Raises ValueError: it does not fit."""
    return frames.render_frame(_encoder.encode(message), limit)


def parse_length(head: bytes, limit: int = LIMIT) -> int:
    """Length of the body that follows these 4 bytes; ValueError where it is over the limit."""
    return frames.parse_length(head, limit)


def parse_from_agent(body: bytes) -> FromAgent:
    return _from_agent.decode(body)


def parse_from_web(body: bytes) -> FromWeb:
    return _from_web.decode(body)
