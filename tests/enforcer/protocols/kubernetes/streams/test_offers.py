"""What of an offer goes on, and which answers to it are one."""
from __future__ import annotations

import pytest
from streamtalk import KEY, make_info, upgrade_head, upgraded

from enforcer.http.messages import Answer, Head, Headers, values
from enforcer.protocols.kubernetes.info import Unclear
from enforcer.protocols.kubernetes.streams import answer_offer, negotiate_offer
from enforcer.protocols.kubernetes.streams.offers import SPDY, TUNNEL, WEBSOCKET, Spoken, accept_of, read_spoken
from enforcer.words.errors import RemoteProtocolError

V4, V5 = b"v4.channel.k8s.io", b"v5.channel.k8s.io"


def offered(head: Head, subresource: str = "exec") -> Headers:
    return negotiate_offer(head.headers, make_info(subresource))


def test_only_what_weir_reads_is_offered() -> None:
    head = upgrade_head(b"v6.channel.k8s.io", V5, b"mqtt", V4, V4)
    more = ((b"user-agent", b"kubectl"), (b"sec-websocket-extensions", b"permessage-deflate"),
        (b"connection", b"Upgrade"))
    assert offered(Head("GET", b"/", head.headers + more)) == (
        (b"user-agent", b"kubectl"), (b"upgrade", b"websocket"), (b"sec-websocket-version", b"13"),
        (b"sec-websocket-key", KEY), (b"sec-websocket-protocol", V5 + b", " + V4))


def test_spdy_with_its_versions() -> None:
    head = upgrade_head(V4, b"v3.channel.k8s.io", b"v9.channel.k8s.io", b"channel.k8s.io", spdy=True)
    assert values(offered(head), b"x-stream-protocol-version") == [V4, b"v3.channel.k8s.io", b"channel.k8s.io"]
    assert values(offered(upgrade_head(spdy=True)), b"upgrade") == [SPDY]


@pytest.mark.parametrize(("head", "to", "named"), [
    (upgrade_head(TUNNEL, V4), WEBSOCKET, TUNNEL), (upgrade_head(V4), SPDY, b""), (upgrade_head(), SPDY, b""),
    (upgrade_head(b"v4.base64.channel.k8s.io"), SPDY, b""), (upgrade_head(b"portforward.k8s.io", spdy=True), SPDY, b""),
])
def test_a_port_forward_can_always_be_asked_for_more(head: Head, to: bytes, named: bytes) -> None:
    found = dict(offered(head, "portforward"))
    assert found[b"upgrade"] == to
    assert found.get(b"sec-websocket-protocol", b"") == named
    assert found.get(b"x-stream-protocol-version") == (b"portforward.k8s.io" if to == SPDY else None)


@pytest.mark.parametrize("head", [
    upgrade_head(b"mqtt"), upgrade_head(b"v5.channel.k8s.io", spdy=True), Head("GET", b"/", ()),
    Head("GET", b"/", ((b"upgrade", b"h2c"),)), Head("GET", b"/", ((b"upgrade", b"websocket, SPDY/3.1"),)),
    Head("GET", b"/", ((b"upgrade", b"websocket"),)),
    Head("GET", b"/",
        ((b"upgrade", b"websocket"), (b"sec-websocket-version", b"13"), (b"sec-websocket-key", b"short"))),
    Head("GET", b"/", ((b"upgrade", b"websocket"), (b"sec-websocket-version", b"8"), (b"sec-websocket-key", KEY))),
    Head("GET", b"/", (*upgrade_head(V4).headers, (b"sec-websocket-key", KEY))),
    Head("GET", b"/",
        ((b"upgrade", b"websocket"), (b"sec-websocket-version", b"13"), (b"sec-websocket-key", b"\xff" * 24))),
])
def test_what_cannot_be_taken_up(head: Head) -> None:
    with pytest.raises(Unclear):
        offered(head)


def test_what_was_agreed_on() -> None:
    spoken = read_spoken(make_info(), upgrade_head(V5, V4), upgraded(V5))
    assert spoken == (Spoken(WEBSOCKET, V5), Spoken(WEBSOCKET, V5))
    assert spoken[0].closes
    assert spoken[0].states
    assert not spoken[0].encoded
    assert read_spoken(make_info("portforward"), upgrade_head(b"v4.base64.channel.k8s.io"),
                       upgraded(b"portforward.k8s.io", True)) == (
        Spoken(WEBSOCKET, b"v4.base64.channel.k8s.io"), Spoken(SPDY, b"portforward.k8s.io"))
    assert read_spoken(make_info("portforward"), upgrade_head(TUNNEL), upgraded(TUNNEL))[1].tunnel
    assert not read_spoken(make_info(), upgrade_head(), upgraded())[0].states


@pytest.mark.parametrize(("head", "answer"), [
    (upgrade_head(V4), upgraded(V5)), (upgrade_head(V4), upgraded(V4, True)),
    (upgrade_head(V4, spdy=True), upgraded(V4)),
    (upgrade_head(V4), upgraded(V4, more=((b"sec-websocket-extensions", b"permessage-deflate"),))),
    (upgrade_head(V4), Answer(101, b"", ((b"upgrade", b"websocket"), (b"sec-websocket-accept", b"x")))),
    (upgrade_head(V4), Answer(101, b"", ())), (upgrade_head(V4), upgraded(V4, more=((b"sec-websocket-protocol", V4),))),
    (upgrade_head(V4, spdy=True), upgraded(b"v3.channel.k8s.io", True)),
])
def test_a_server_that_takes_up_something_else(head: Head, answer: Answer) -> None:
    with pytest.raises(RemoteProtocolError):
        read_spoken(make_info(), head, answer)


def test_a_tunnel_is_named() -> None:
    with pytest.raises(RemoteProtocolError):
        read_spoken(make_info("portforward"), upgrade_head(TUNNEL), upgraded())


def test_what_the_crew_is_answered() -> None:
    date = ((b"date", b"today"),)
    assert answer_offer(make_info(), upgrade_head(V4), upgraded(V4, more=date)) == (
        *date, (b"upgrade", b"websocket"), (b"sec-websocket-accept", accept_of(KEY)), (b"sec-websocket-protocol", V4))
    assert answer_offer(make_info(), upgrade_head(V4, spdy=True), upgraded(V4, True)) == (
        (b"upgrade", SPDY), (b"x-stream-protocol-version", V4))
    assert answer_offer(make_info("portforward"), upgrade_head(V4), upgraded(b"portforward.k8s.io", True)) == (
        (b"upgrade", b"websocket"), (b"sec-websocket-accept", accept_of(KEY)), (b"sec-websocket-protocol", V4))


def test_the_rfcs_own_key() -> None:
    assert accept_of(KEY) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="       # RFC 6455 1.3
