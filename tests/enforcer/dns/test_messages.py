"""DNS messages: what is a question, what an answer may carry; cut at every offset, changed at every byte, random."""
from __future__ import annotations

import random
import struct

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from enforcer.dns import messages
from enforcer.dns.messages import AAAA, HTTPS, A, Found, Query, Truncated, parse_answer, parse_query

NAME = "api.example"


def question(name: str = NAME, kind: str = "A", **more: object) -> bytes:
    return dns.message.make_query(name, kind, **more).to_wire()  # type: ignore[arg-type]


def code(wire: bytes | None) -> str:
    assert isinstance(wire, bytes)
    message = dns.message.from_wire(wire)
    assert message.flags & dns.flags.QR
    return dns.rcode.to_text(message.rcode())


def parsed(wire: bytes) -> Query:
    query = parse_query(wire)
    assert isinstance(query, Query)
    return query


def test_a_question() -> None:
    query = parsed(question("API.Example."))
    assert (query.name, query.shown) == (NAME, "A")
    answer = dns.message.from_wire(messages.render_answer(query, Found(dns.rcode.NOERROR, (), ("192.0.2.1",)), 512))
    assert answer.id == query.message.id
    assert str(answer.question[0].name) == "API.Example."          # as it was asked: some clients compare
    assert [str(one) for one in answer.answer] == ["API.Example. 300 IN A 192.0.2.1"]
    assert answer.flags & dns.flags.RA
    assert not answer.flags & (dns.flags.AA | dns.flags.AD)


def test_what_is_no_question() -> None:
    update = dns.message.make_query(NAME, "SOA")
    update.set_opcode(dns.opcode.UPDATE)
    notify = dns.message.make_query(NAME, "SOA")
    notify.set_opcode(dns.opcode.NOTIFY)
    two = dns.message.make_query(NAME, "A")
    two.question.append(dns.rrset.RRset(dns.name.from_text("b.example"), 1, A))
    none = dns.message.Message()
    assert code(parse_query(update.to_wire())) == "NOTIMP"
    assert code(parse_query(notify.to_wire())) == "NOTIMP"
    assert code(parse_query(two.to_wire())) == "FORMERR"
    assert code(parse_query(none.to_wire())) == "FORMERR"
    assert code(parse_query(question(rdclass="CH"))) == "REFUSED"
    assert code(parse_query(question() + b"more")) == "FORMERR"
    assert parse_query(dns.message.make_response(dns.message.make_query(NAME, "A")).to_wire()) is None
    assert parse_query(b"") is None
    assert parse_query(b"short") is None
    assert parse_query(question() + bytes(5000)) is None
    carries = dns.message.make_query(NAME, "A")
    carries.answer.append(dns.rrset.from_text(NAME + ".", 1, "IN", "TXT", "carried away"))
    assert code(parse_query(carries.to_wire())) == "FORMERR"


def test_every_cut_every_change_and_random_bytes() -> None:
    wire = question(use_edns=0, payload=1232)
    draw = random.Random(53)
    ways = [wire[:at] for at in range(len(wire))]
    ways += [wire[:at] + bytes([value]) + wire[at + 1:]
             for at in range(len(wire)) for value in (0, 1, 0x3F, 0xC0, 0xFF)]
    ways += [wire[:12] + draw.randbytes(draw.randrange(80)) for _ in range(3000)]
    ways += [draw.randbytes(draw.randrange(12, 80)) for _ in range(3000)]
    for way in ways:
        found = parse_query(way)
        if isinstance(found, Query):
            dns.message.from_wire(messages.render_refusal(found, dns.rcode.REFUSED))
        elif found is not None:
            assert len(found) == 12
            assert found[:2] == way[:2]


def test_pointers_that_go_round() -> None:
    wire = struct.pack("!HHHHHH", 1, 0x100, 1, 0, 0, 0) + b"\xc0\x0c\x00\x01\x00\x01"
    assert code(parse_query(wire)) == "FORMERR"


def test_nothing_of_the_crews_goes_on() -> None:
    subnet = dns.edns.ECSOption("203.0.113.7", 32)
    asked = parsed(question("ApI.eXample", use_edns=0, options=[subnet, dns.edns.GenericOption(65001, b"secret")]))
    sent = messages.render_question(asked.name, asked.kind, 77)
    assert b"secret" not in sent
    message = dns.message.from_wire(sent)
    assert (message.id, message.options, message.payload) == (77, (), messages.PAYLOAD)
    assert not message.ednsflags
    assert str(message.question[0]) == "api.example. IN A"
    assert message.flags == dns.flags.RD


def test_limits_of_a_datagram() -> None:
    many = Found(dns.rcode.NOERROR, (), tuple(f"2001:db8::{number:x}" for number in range(1, 33)))
    plain, large = parsed(question(kind="AAAA")), parsed(question(kind="AAAA", use_edns=0, payload=65000))
    assert (messages.limit_of(plain), messages.limit_of(large)) == (512, messages.PAYLOAD)
    cut = messages.render_answer(plain, many, messages.limit_of(plain))
    assert len(cut) <= 512
    assert dns.message.from_wire(cut).flags & dns.flags.TC
    assert not dns.message.from_wire(cut).answer
    whole = dns.message.from_wire(messages.render_answer(plain, many, 65535))
    assert len(whole.answer[0]) == 32
    assert not whole.flags & dns.flags.TC
    version = dns.message.make_query(NAME, "A", use_edns=1)
    assert code(messages.render_refusal(parsed(version.to_wire()), dns.rcode.NOERROR)) == "BADVERS"


# answers of the server


def answer(*records: str, name: str = NAME, kind: str = "A", number: int = 7, flags: int = 0, rcode: int = 0) -> bytes:
    query = dns.message.make_query(name, kind)
    query.id = number
    response = dns.message.make_response(query)
    response.flags |= flags
    response.set_rcode(rcode)
    for record in records:
        owner, ttl, rdtype, data = record.split(" ", 3)
        response.answer.append(dns.rrset.from_text(owner, int(ttl), "IN", rdtype, data))
    return response.to_wire()


def heard(wire: bytes, kind: dns.rdatatype.RdataType = A) -> Found | None:
    return parse_answer(wire, NAME, kind, 7)


def test_a_chain_and_nothing_beside_it() -> None:
    found = heard(answer(
        "api.example. 600 CNAME cdn.net.", "evil.example. 600 A 192.0.2.66", "cdn.net. 100 CNAME edge.cdn.net.",
        "edge.cdn.net. 50 A 192.0.2.1", "other.cdn.net. 50 A 192.0.2.67"))
    assert found == Found(dns.rcode.NOERROR, ("cdn.net", "edge.cdn.net"), ("192.0.2.1",), ttl=50)
    query = parsed(question())
    said = dns.message.from_wire(messages.render_answer(query, found, 512))
    assert [str(one) for one in said.answer] == [
        "api.example. 50 IN CNAME cdn.net.", "cdn.net. 50 IN CNAME edge.cdn.net.", "edge.cdn.net. 50 IN A 192.0.2.1"]
    assert not said.authority
    assert [one for one in said.additional if one.rdtype != dns.rdatatype.OPT] == []


def test_a_chain_without_end() -> None:
    found = heard(answer("api.example. 1 CNAME b.example.", "b.example. 1 CNAME api.example."))
    assert found is not None
    assert (len(found.chain), found.addresses) == (messages.CHAIN, ())


@pytest.mark.parametrize("wire", [
    answer("api.example. 1 A 192.0.2.1", number=8), answer("other.example. 1 A 192.0.2.1", name="other.example"),
    answer("api.example. 1 AAAA 2001:db8::1", kind="AAAA"), question(), b"", b"\x00\x07", bytes(20000),
    answer("api.example. 1 A 192.0.2.1")[:-1],
], ids=range(8))
def test_what_does_not_answer_the_question(wire: bytes) -> None:
    assert heard(wire) is None


def test_every_cut_and_change_of_an_answer() -> None:
    wire = answer("api.example. 600 CNAME cdn.net.", "cdn.net. 50 A 192.0.2.1")
    draw = random.Random(54)
    for at in range(len(wire)):
        assert heard(wire[:at]) is None
        for value in (0, 1, 0x3F, 0xC0, 0xFF, draw.randrange(256)):
            try:
                heard(wire[:at] + bytes([value]) + wire[at + 1:])
            except Truncated:
                assert at == 2
    for _ in range(3000):
        try:
            heard(wire[:2] + b"\x81\x80" + draw.randbytes(draw.randrange(120)))
        except Truncated:
            pass


def test_bounds_and_codes() -> None:
    many = [f"api.example. 99999 A 192.0.2.{number}" for number in range(100)]
    found = heard(answer(*many))
    assert found is not None
    assert (len(found.addresses), found.ttl) == (messages.MOST, messages.LONGEST)
    with pytest.raises(Truncated):
        heard(answer(flags=dns.flags.TC))
    assert heard(answer(rcode=dns.rcode.NXDOMAIN)) == Found(dns.rcode.NXDOMAIN)
    assert heard(answer("api.example. 1 A 192.0.2.1", rcode=dns.rcode.SERVFAIL)) == Found(dns.rcode.SERVFAIL)


def test_services_lose_what_could_lead_elsewhere() -> None:
    kept = heard(answer('api.example. 60 HTTPS 1 . alpn="h2,h3" port=8443 ipv4hint=192.0.2.1 ipv6hint=2001:db8::1 '
                        'ech="AAT+DQAA"', kind="HTTPS"), HTTPS)
    assert kept is not None
    said = dns.message.from_wire(messages.render_answer(parsed(question(kind="HTTPS")), kept, 1232))
    assert [str(one) for one in said.answer] == ['api.example. 60 IN HTTPS 1 . alpn="h2,h3" port="8443"']
    for elsewhere in ("0 cdn.net.", "1 cdn.net. alpn=h2", '1 . mandatory="ipv4hint" ipv4hint=192.0.2.1'):
        none = heard(answer(f"api.example. 60 HTTPS {elsewhere}", kind="HTTPS"), HTTPS)
        assert none is not None
        assert none.services == ()
    assert heard(answer("api.example. 60 AAAA 2001:db8::1", kind="AAAA"), AAAA) == Found(
        dns.rcode.NOERROR, (), ("2001:db8::1",), ttl=60)
