"""Pure: DNS messages in and out (RFC 1035, 6891, 9460).  Nothing of a peer's message is sent on: what goes to the
server that Weir asks, and what comes back to the crew, is made anew from what was understood.
"""
from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.svcbbase as svcb
import dns.rrset

QUESTION: Final = 4096                # bytes of a question; one takes less than 300
ANSWER: Final = 16384                 # bytes of a server's answer
PAYLOAD: Final = 1232                 # bytes of a datagram that no path cuts into fragments (DNS flag day 2020)
CHAIN: Final = 8                      # CNAMEs that are followed
MOST: Final = 32                      # addresses of an answer
SERVICES: Final = 8                   # HTTPS and SVCB records of an answer
LONGEST: Final = 300                  # seconds that an answer may be kept
A, AAAA, SVCB, HTTPS = dns.rdatatype.A, dns.rdatatype.AAAA, dns.rdatatype.SVCB, dns.rdatatype.HTTPS
FORWARDED: Final = frozenset({A, AAAA, SVCB, HTTPS})
# What a service record may say: neither `ech` nor addresses, which would be dialled without having been given.
_PARAMETERS: Final = frozenset({svcb.ParamKey.ALPN, svcb.ParamKey.NO_DEFAULT_ALPN, svcb.ParamKey.PORT})
_HEADER: Final = struct.Struct("!HHHHHH")


@dataclass(frozen=True)
class Query:
    """One question."""

    message: dns.message.Message
    name: str                         # lower case, without the last dot, escaped as in a zone file
    kind: dns.rdatatype.RdataType

    @property
    def shown(self) -> str:
        return dns.rdatatype.to_text(self.kind)


@dataclass(frozen=True)
class Found:
    """What a server said, cut down to what belongs to the question."""

    rcode: dns.rcode.Rcode
    chain: tuple[str, ...] = ()       # targets of CNAMEs, in order
    addresses: tuple[str, ...] = ()
    services: tuple[dns.rdata.Rdata, ...] = ()
    ttl: int = LONGEST                # seconds


class Truncated(Exception):
    """The answer did not fit: ask again over TCP."""


def parse_query(wire: bytes) -> Query | bytes | None:
    """A question, or what is answered to what is none, or None: not a word."""
    if len(wire) < _HEADER.size or wire[2] & 0x80 or len(wire) > QUESTION:
        return None                   # RFC 1035 4.1.1: QR, a response
    try:
        message = dns.message.from_wire(wire)
    except (dns.exception.DNSException, ValueError, KeyError, IndexError, struct.error):
        return _bare(wire, dns.rcode.FORMERR)
    if message.opcode() != dns.opcode.QUERY:
        return _bare(wire, dns.rcode.NOTIMP)
    if len(message.question) != 1 or message.answer or message.authority:
        return _bare(wire, dns.rcode.FORMERR)
    question = message.question[0]
    if question.rdclass != dns.rdataclass.IN:
        return _bare(wire, dns.rcode.REFUSED)
    return Query(message, parse_name(question.name), question.rdtype)


def parse_name(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()


def _bare(wire: bytes, code: int) -> bytes:
    """A header alone: what could not be read is not repeated."""
    number, flags = struct.unpack_from("!HH", wire)
    return _HEADER.pack(number, 0x8080 | flags & 0x7900 | code, 0, 0, 0, 0)      # QR, RA; opcode and RD as asked


def render_refusal(query: Query, code: dns.rcode.Rcode) -> bytes:
    """REFUSED, SERVFAIL, NXDOMAIN, or NOERROR with nothing in it."""
    return _response(query, code).to_wire()


def render_answer(query: Query, found: Found, limit: int) -> bytes:
    """At most `limit` bytes; where it does not fit, nothing but the word that it did not (TC)."""
    response = _response(query, found.rcode)
    owner = query.message.question[0].name
    for target in found.chain:
        response.answer.append(dns.rrset.from_text(owner, found.ttl, "IN", "CNAME", target + "."))
        owner = dns.name.from_text(target)
    if found.addresses:
        response.answer.append(dns.rrset.from_text(owner, found.ttl, "IN", query.kind, *found.addresses))
    if found.services:
        response.answer.append(dns.rrset.from_rdata_list(owner, found.ttl, list(found.services)))
    try:
        return response.to_wire(max_size=limit)
    except dns.exception.TooBig:
        cut = _response(query, found.rcode)
        cut.flags |= dns.flags.TC
        return cut.to_wire()


def limit_of(query: Query) -> int:
    """Bytes of a datagram that the asker takes (RFC 6891 6.2.5)."""
    return min(max(query.message.payload, 512), PAYLOAD) if query.message.edns >= 0 else 512


def _response(query: Query, code: dns.rcode.Rcode) -> dns.message.Message:
    response = dns.message.make_response(query.message, recursion_available=True, our_payload=PAYLOAD)
    response.set_rcode(dns.rcode.BADVERS if query.message.edns > 0 else code)
    response.request_payload = 0      # else it would bound what goes over TCP
    return response


def render_question(name: str, kind: dns.rdatatype.RdataType, number: int) -> bytes:
    """What the server is asked: nothing of the crew's but a name in lower case and a type."""
    query = dns.message.make_query(name + ".", kind, use_edns=0, payload=PAYLOAD)
    query.id = number
    return query.to_wire()


def parse_answer(wire: bytes, name: str, kind: dns.rdatatype.RdataType, number: int) -> Found | None:
    """None: not an answer to this question, whoever sent it.  Raises Truncated."""
    if len(wire) < _HEADER.size or len(wire) > ANSWER or wire[:2] != struct.pack("!H", number):
        return None
    try:
        message = dns.message.from_wire(wire, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError, KeyError, IndexError, struct.error):
        return None
    if not message.flags & dns.flags.QR or message.opcode() != dns.opcode.QUERY or len(message.question) != 1:
        return None
    asked = message.question[0]
    if (asked.rdtype, asked.rdclass) != (kind, dns.rdataclass.IN) or parse_name(asked.name) != name:
        return None
    if message.flags & dns.flags.TC:
        raise Truncated
    if message.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return Found(message.rcode())
    return _follow(message, asked.name, kind)


def _follow(message: dns.message.Message, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> Found:
    """From the name along its CNAMEs (RFC 1034 3.6.2); what does not lie on the way is nobody's question."""
    records = {(one.name, one.rdtype): one for one in message.answer if one.rdclass == dns.rdataclass.IN}
    chain: list[str] = []
    ttl = LONGEST
    while (name, kind) not in records and (name, dns.rdatatype.CNAME) in records and len(chain) < CHAIN:
        alias = records[name, dns.rdatatype.CNAME]
        chain.append(parse_name(alias[0].target))
        ttl, name = min(ttl, alias.ttl), alias[0].target
    last = records.get((name, kind))
    if last is None:
        return Found(message.rcode(), tuple(chain), ttl=ttl)
    ttl = min(ttl, last.ttl)
    if kind in (A, AAAA):
        return Found(message.rcode(), tuple(chain), tuple(one.address for one in last)[:MOST], ttl=ttl)
    made = [_service(one, name) for one in last]
    return Found(message.rcode(), tuple(chain), services=tuple(one for one in made if one is not None)[:SERVICES],
                 ttl=ttl)


def _service(record: svcb.SVCBBase, owner: dns.name.Name) -> dns.rdata.Rdata | None:
    """RFC 9460: without what could lead elsewhere; None where nothing would be left of its meaning."""
    if record.priority == 0 or record.target not in (dns.name.root, owner):
        return None                   # an alias, or a host of another name: that is not one that may be asked for
    wanted = record.params.get(svcb.ParamKey.MANDATORY)
    if wanted is not None and not set(wanted.keys) <= _PARAMETERS:
        return None
    kept = {key: value for key, value in record.params.items() if key in _PARAMETERS or key == svcb.ParamKey.MANDATORY}
    return record.replace(params=kept, target=dns.name.root)
