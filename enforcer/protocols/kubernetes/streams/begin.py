"""The Passage of a request that was answered with 101."""
from __future__ import annotations

from agent.contract.target import Target
from enforcer.core.hiding import FirstLine, asks
from enforcer.http.messages import Answer, Head
from enforcer.http.passage import Outlet, Passage
from enforcer.policy.detectors import labels_of
from enforcer.protocols.kubernetes.info import Info, Query
from enforcer.protocols.kubernetes.streams.channels import Channels
from enforcer.protocols.kubernetes.streams.command import CommandPassage
from enforcer.protocols.kubernetes.streams.forward import ForwardPassage
from enforcer.protocols.kubernetes.streams.offers import SPDY, Spoken, read_spoken
from enforcer.protocols.kubernetes.streams.spdy.wire import SpdyWire
from enforcer.protocols.kubernetes.streams.words import NAMES, Wire


def make_passage(
    info: Info, query: Query, head: Head, answer: Answer, outlet: Outlet, number: int, masked: frozenset[str],
    target: Target,
) -> Passage:
    """`head`: the crew's; `answer`: the server's.  `number`: of the operation, which is open on the outlet's desk;
    the passage says its result.  `masked`: labels of what may not be shown.  RemoteProtocolError where the server
    takes up what it was not offered."""
    crew, server = read_spoken(info, head, answer)
    if info.subresource == "portforward":
        return ForwardPassage(outlet, number, (crew, server), info, query, target.forwards)
    labels = masked & frozenset(labels_of(target.detectors))
    line = " ".join(value for name, value in query if name == "command").encode()
    first = FirstLine() if info.subresource == "exec" and asks(line) else None
    return CommandPassage(outlet, number, _wire(crew, False), _wire(server, True), query, labels, crew.states, first)


def _wire(spoken: Spoken, client: bool) -> Wire:
    return SpdyWire(client) if spoken.upgrade == SPDY else Channels(spoken, client, len(NAMES))
