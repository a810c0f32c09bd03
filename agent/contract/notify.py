"""What agent and notify process say to each other, over an inherited Unix stream socket pair.

Each message is one frame: 4 bytes little-endian length, then msgpack of one tagged struct.  The notify process holds
Slack's tokens and the webhooks' secrets, and parses what comes from there.  It tells the agent who pressed what; whose
name that is, and whether it counts, is the agent's and the enforcer's to say.
"""
from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from agent.contract import frames
from agent.contract.messages import HoldView

LIMIT = 2 << 20                       # bytes of a frame
REQUEST = 256 << 10                   # bytes of the body of one of Slack's requests
BATCH = 256 << 10                     # bytes of holds in one Put, about
MOST = 1200                           # holds at a time: the enforcer's own bounds, 1000 and 200
PLACES = 32                           # where one hold is told at a time
WEBHOOKS = 16
PEOPLE = 1000                         # Slack users, and channels of groups
SLACK = "slack"                       # how an answer came, and the name of a place that cannot be reached
LINK = "link"
STATEMENT, SUMMARY = "statement", "summary"
SOCKET, REQUEST_URL = "socket", "request-url"
PENDING, CHANGED, OVER = "pending", "changed", "over"
EVENTS = (PENDING, CHANGED, OVER)

Name = Annotated[str, msgspec.Meta(max_length=256)]
Text = Annotated[str, msgspec.Meta(max_length=1024)]
Ticket = Annotated[str, msgspec.Meta(pattern=r"^[a-z2-7]{8}\Z")]


class Slack(msgspec.Struct, frozen=True):
    """[slack], with what its files hold.  Never printed: repr hides the secrets."""

    bot_token: str
    app_token: str                    # "": not in this mode
    signing_secret: str               # "": not in this mode
    mode: str                         # SOCKET | REQUEST_URL
    team: str
    channel: str
    channels: dict[str, str]          # group -> channel
    people: tuple[str, ...]           # user ids that may answer at all
    show: str
    url: str                          # of the Web API, without a slash at the end
    ca: str                           # PEM, "": the system's roots

    def __repr__(self) -> str:
        return f"Slack(mode={self.mode!r}, team={self.team!r}, ...)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("mode", self.mode), ("team", self.team)]


class Webhook(msgspec.Struct, frozen=True):
    """A [[webhook]], with its secret.  Never printed: repr hides that."""

    name: str
    url: str
    secret: bytes
    ca: str
    events: tuple[str, ...]
    show: str

    def __repr__(self) -> str:
        return f"Webhook(name={self.name!r}, ...)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("name", self.name)]


class Place(msgspec.Struct, frozen=True):
    """Where a hold was told, so that it is told there once."""

    way: Name                         # "slack CHANNEL" | "webhook NAME"
    reference: Name                   # the message's timestamp; the last event that was delivered


class Notice(msgspec.Struct, frozen=True):
    """Something that waits, or waited."""

    view: HoldView
    places: tuple[Place, ...] = ()    # where it was told before this process began
    links: dict[str, tuple[str, str]] = {}    # webhook -> where one says yes, and no
    over: str = ""                    # "": it waits; "approved" | "denied" | "expired" | "cancelled"
    by: str = ""                      # who answered
    reason: str = ""
    given: bool = False               # to a process before this one, too, which may have told it and not said so


class Message(msgspec.Struct, frozen=True, tag=True):
    pass


# agent -> notify process


class Configure(Message, frozen=True):
    """Everything; the first message, and again at reload.  Answered by Done."""

    number: int
    host: str                         # which Weir speaks
    slack: Slack | None
    webhooks: tuple[Webhook, ...]


class Put(Message, frozen=True):
    """In place of what was said of the same tickets.  Answered by Done."""

    number: int
    notices: tuple[Notice, ...]


class SlackRequest(Message, frozen=True):
    """What was posted to the page's /slack/actions, unread.  Answered by SlackAnswer."""

    number: int
    timestamp: str                    # X-Slack-Request-Timestamp
    signature: str                    # X-Slack-Signature
    body: bytes


class Answered(Message, frozen=True):
    """The answer to Answer.  `error` empty: it counts."""

    number: int
    error: str = ""


class Try(Message, frozen=True):
    """Send a test to each place.  Answered by Tried."""

    number: int


class Ping(Message, frozen=True):
    number: int


# notify process -> agent


class Done(Message, frozen=True):
    number: int
    error: Text = ""


class SlackAnswer(Message, frozen=True):
    number: int
    status: Annotated[int, msgspec.Meta(ge=200, le=599)]
    body: Annotated[bytes, msgspec.Meta(max_length=16 << 10)] = b""        # JSON, or nothing


class Result(msgspec.Struct, frozen=True):
    way: Name
    error: Text = ""                  # "": it arrived
    said: Text = ""                   # what came back


class Tried(Message, frozen=True):
    number: int
    results: Annotated[tuple[Result, ...], msgspec.Meta(max_length=PEOPLE + WEBHOOKS)]


class Pong(Message, frozen=True):
    number: int


class Answer(Message, frozen=True):
    """Somebody pressed a button.  Answered by Answered."""

    number: int
    user: Name                        # Slack's id, of the team that is configured
    ticket: Ticket
    approve: bool
    reason: Text = ""


class Told(Message, frozen=True):
    """It was told there."""

    ticket: Ticket
    place: Place


class GivenUp(Message, frozen=True):
    """It was not, and will not be."""

    ticket: Ticket
    way: Name
    reason: Text


class Trouble(Message, frozen=True):
    """What is wrong with a place now; `text` empty: nothing any more."""

    way: Name
    text: Text = ""


FromAgent = Configure | Put | SlackRequest | Answered | Try | Ping
FromNotify = Done | SlackAnswer | Tried | Pong | Answer | Told | GivenUp | Trouble
How = Literal["slack", "link"]

_encoder = msgspec.msgpack.Encoder()
_from_agent: msgspec.msgpack.Decoder[FromAgent] = msgspec.msgpack.Decoder(FromAgent)
_from_notify: msgspec.msgpack.Decoder[FromNotify] = msgspec.msgpack.Decoder(FromNotify)


def render_frame(message: Message) -> bytes:
    """One frame, length included.  Raises ValueError: it does not fit."""
    return frames.render_frame(_encoder.encode(message), LIMIT)


def parse_length(head: bytes) -> int:
    """Length of the body that follows these 4 bytes; ValueError where it is over LIMIT."""
    return frames.parse_length(head, LIMIT)


def parse_from_agent(body: bytes) -> FromAgent:
    return _from_agent.decode(body)


def parse_from_notify(body: bytes) -> FromNotify:
    return _from_notify.decode(body)
