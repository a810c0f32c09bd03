"""What goes on after 101: exec, attach and port-forward, over WebSocket and SPDY.

    offers     which protocol is agreed on with either side
    channels   streams in WebSocket's messages;  spdy/  streams in SPDY
    words      what exec and attach say, on either
    command    exec and attach
    forward    port-forward: each connection is decided
"""
from __future__ import annotations

from enforcer.protocols.kubernetes.streams.begin import make_passage
from enforcer.protocols.kubernetes.streams.command import wants
from enforcer.protocols.kubernetes.streams.offers import WEBSOCKET, answer_offer, negotiate_offer

__all__ = ["WEBSOCKET", "answer_offer", "make_passage", "negotiate_offer", "wants"]
