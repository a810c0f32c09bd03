"""Which protocol a crew's exec, attach or port-forward goes on with: what is offered to the server of what the crew
offers, and what the crew is answered.

Only what Weir reads is offered, without extensions (RFC 6455 9).  A port-forward over WebSocket whose channels are its
ports ("v4.channel.k8s.io") cannot open one more: towards the server it is SPDY, in which each connection is asked for.

Source: k8s.io/apimachinery pkg/util/{httpstream,httpstream/wsstream,remotecommand,portforward}.
"""
from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass
from hashlib import sha1
from typing import Final

from enforcer.http.messages import Answer, Head, Headers, value, values, without
from enforcer.protocols.kubernetes.info import Info, Unclear
from enforcer.words.errors import RemoteProtocolError

WEBSOCKET, SPDY = b"websocket", b"SPDY/3.1"
TUNNEL: Final = b"SPDY/3.1+portforward.k8s.io"
FORWARD: Final = b"portforward.k8s.io"
CHANNELS: Final = (b"v4.channel.k8s.io", b"v4.base64.channel.k8s.io")
# By what the request is for and the protocol that it goes on with.
COMMANDS: Final = {
    WEBSOCKET: (b"v5.channel.k8s.io", *CHANNELS, b"channel.k8s.io", b"base64.channel.k8s.io"),
    SPDY: (b"v4.channel.k8s.io", b"v3.channel.k8s.io", b"v2.channel.k8s.io", b"channel.k8s.io"),
}
FORWARDS: Final = {WEBSOCKET: (TUNNEL, *CHANNELS), SPDY: (FORWARD,)}
_ACCEPTS: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"      # RFC 6455 1.3
_PROTOCOL, _VERSION = b"sec-websocket-protocol", b"x-stream-protocol-version"
_OFFERS: Final = (b"connection", b"upgrade", b"sec-websocket-key", b"sec-websocket-version", _PROTOCOL,
                  b"sec-websocket-extensions", b"sec-websocket-accept", _VERSION,
                  b"x-accepted-stream-protocol-versions")
MOST: Final = 32                      # protocols of one offer


@dataclass(frozen=True, slots=True)
class Offer:
    """Of a crew, as far as it can be taken up."""

    upgrade: bytes                    # WEBSOCKET | SPDY
    protocols: tuple[bytes, ...]      # in the crew's order; none: it names none
    key: bytes = b""                  # of WebSocket


@dataclass(frozen=True, slots=True)
class Spoken:
    """What was agreed on with one side."""

    upgrade: bytes                    # WEBSOCKET | SPDY
    protocol: bytes = b""

    @property
    def tunnel(self) -> bool:
        """SPDY in WebSocket's messages."""
        return self.protocol == TUNNEL

    @property
    def encoded(self) -> bool:
        """In base64."""
        return b"base64." in self.protocol

    @property
    def closes(self) -> bool:
        """Each stream on its own can be ended."""
        return self.upgrade == SPDY or self.protocol.startswith(b"v5.")

    @property
    def states(self) -> bool:
        """How a command ended is said by a Status."""
        return self.protocol.startswith((b"v4.", b"v5."))


def negotiate_offer(headers: Headers, info: Info) -> Headers:
    """Headers of a crew's request -> those of Weir's to the server, with `upgrade`.  Raises Unclear."""
    return (*without(headers, _OFFERS), *_render(_towards_server(read_offer(headers, info), info)))


def read_offer(headers: Headers, info: Info) -> Offer:
    """Raises Unclear where nothing of it can be taken up."""
    known = FORWARDS if info.subresource == "portforward" else COMMANDS
    asked = value(headers, b"upgrade").lower()
    if asked not in (WEBSOCKET, SPDY.lower()):
        raise Unclear(f"{info.subresource} needs an upgrade to WebSocket or SPDY/3.1")
    upgrade = WEBSOCKET if asked == WEBSOCKET else SPDY
    said = [one.strip() for one in value(headers, _PROTOCOL if upgrade == WEBSOCKET else _VERSION).split(b",")]
    named = tuple(dict.fromkeys(one for one in said[:MOST] if one))
    protocols = tuple(one for one in named if one in known[upgrade])
    if named and not protocols:
        raise Unclear(f"none of the protocols that it offers is one that Weir reads: "
                      f"{b', '.join(known[upgrade]).decode()}")
    return Offer(upgrade, protocols, _key(headers) if upgrade == WEBSOCKET else b"")


def _key(headers: Headers) -> bytes:
    found = values(headers, b"sec-websocket-key")
    if len(found) != 1 or values(headers, b"sec-websocket-version") != [b"13"] or not _is_key(found[0]):
        raise Unclear("a WebSocket is asked for with one key of 16 bytes and version 13 (RFC 6455 4.1)")
    return found[0]


def _is_key(key: bytes) -> bool:
    try:
        return len(b64decode(key, validate=True)) == 16
    except ValueError:
        return False


def _towards_server(offer: Offer, info: Info) -> Offer:
    if info.subresource != "portforward" or offer.upgrade != WEBSOCKET:
        return offer
    return Offer(WEBSOCKET, (TUNNEL,), offer.key) if TUNNEL in offer.protocols else Offer(SPDY, (FORWARD,))


def _render(offer: Offer) -> Headers:
    if offer.upgrade == SPDY:
        return ((b"upgrade", SPDY), *((_VERSION, one) for one in offer.protocols))
    more = ((_PROTOCOL, b", ".join(offer.protocols)),) if offer.protocols else ()
    return ((b"upgrade", WEBSOCKET), (b"sec-websocket-version", b"13"), (b"sec-websocket-key", offer.key), *more)


def read_spoken(info: Info, head: Head, answer: Answer) -> tuple[Spoken, Spoken]:
    """With the crew and with the server, by the crew's request and the server's 101.  RemoteProtocolError where the
    server takes up what it was not offered."""
    asked = read_offer(head.headers, info)
    offered = _towards_server(asked, info)
    server = _spoken(offered, answer.headers)
    if asked.upgrade == offered.upgrade:
        return server, server
    return Spoken(asked.upgrade, next(iter(asked.protocols), b"")), server


def _spoken(offered: Offer, headers: Headers) -> Spoken:
    if value(headers, b"upgrade").lower() != offered.upgrade.lower():
        raise RemoteProtocolError("the server changes to another protocol than it was asked for")
    if offered.upgrade == WEBSOCKET:
        if value(headers, b"sec-websocket-accept") != accept_of(offered.key):
            raise RemoteProtocolError("the server does not answer this WebSocket's key")
        if values(headers, b"sec-websocket-extensions"):
            raise RemoteProtocolError("the server extends WebSocket, which it was not asked for")
    chosen = value(headers, _PROTOCOL if offered.upgrade == WEBSOCKET else _VERSION)
    if chosen and chosen not in offered.protocols:
        raise RemoteProtocolError("the server takes up a protocol that it was not offered")
    if TUNNEL in offered.protocols and not chosen:
        raise RemoteProtocolError("the server does not say what it tunnels")
    return Spoken(offered.upgrade, chosen)


def accept_of(key: bytes) -> bytes:
    return b64encode(sha1(key + _ACCEPTS).digest())            # noqa: S324


def answer_offer(info: Info, head: Head, answer: Answer) -> Headers:
    """Of the 101 that the crew gets, with `upgrade`; the server's other headers stay.  Raises RemoteProtocolError."""
    crew, _ = read_spoken(info, head, answer)
    left = without(answer.headers, _OFFERS)
    if crew.upgrade == SPDY:
        return (*left, (b"upgrade", SPDY), *(((_VERSION, crew.protocol),) if crew.protocol else ()))
    accepts = accept_of(read_offer(head.headers, info).key)
    named = ((_PROTOCOL, crew.protocol),) if crew.protocol else ()
    return (*left, (b"upgrade", WEBSOCKET), (b"sec-websocket-accept", accepts), *named)
