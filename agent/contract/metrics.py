"""What agent and metrics process say to each other, over an inherited Unix stream socket pair.

Each message is one frame: 4 bytes little-endian length, then msgpack of one tagged struct.  The metrics process parses
what whoever asks sends, and has nothing but the figures that it is given; of what they are, agent.contract.families.
"""
from __future__ import annotations

import msgspec

from agent.contract import frames
from agent.contract.families import Sample
from agent.contract.web import Admit as Admit
from agent.contract.web import Admitted as Admitted

LIMIT = 8 << 20                       # bytes of a frame to the metrics process,
ASKED = 4 << 10                       # and of one from it
REASON = 500                          # characters of what is wrong


class Message(msgspec.Struct, frozen=True, tag=True):
    pass


class Configure(Message, frozen=True):
    """The first message, and again at reload.  Answered by Done."""

    number: int


class Health(msgspec.Struct, frozen=True):
    """As `weir health` says it, too."""

    state: str                        # agent.contract.families.STATES
    reason: str = ""                  # why it is not enforcing, or cannot record; one line
    serving: bool = False             # crews reach targets, however that is contained

    @property
    def healthy(self) -> bool:
        """Enforcing, and recording works."""
        return self.state == "enforcing" and not self.reason


class HealthAnswer(Message, frozen=True):
    number: int
    health: Health


class Figures(Message, frozen=True):
    number: int
    samples: tuple[Sample, ...]


class Ping(Message, frozen=True):
    number: int


class Done(Message, frozen=True):
    number: int
    error: str = ""


class Pong(Message, frozen=True):
    number: int


class AskHealth(Message, frozen=True):
    """Answered by HealthAnswer."""

    number: int


class AskFigures(Message, frozen=True):
    """Answered by Figures."""

    number: int


FromAgent = Configure | Admitted | HealthAnswer | Figures | Ping
Question = Admit | AskHealth | AskFigures
FromMetrics = Done | Pong | Question

_encoder = msgspec.msgpack.Encoder()
_from_agent: msgspec.msgpack.Decoder[FromAgent] = msgspec.msgpack.Decoder(FromAgent)
_from_metrics: msgspec.msgpack.Decoder[FromMetrics] = msgspec.msgpack.Decoder(FromMetrics)


def render_frame(message: msgspec.Struct, limit: int = LIMIT) -> bytes:
    """One frame, length included.  Raises ValueError: it does not fit."""
    return frames.render_frame(_encoder.encode(message), limit)


def parse_length(head: bytes, limit: int = LIMIT) -> int:
    """Length of the body that follows these 4 bytes; ValueError where it is over the limit."""
    return frames.parse_length(head, limit)


def parse_from_agent(body: bytes) -> FromAgent:
    return _from_agent.decode(body)


def parse_from_metrics(body: bytes) -> FromMetrics:
    return _from_metrics.decode(body)
