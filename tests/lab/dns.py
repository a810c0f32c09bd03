"""A DNS server for lab.example: what is in hosts.NAMES; everything else there is NXDOMAIN, every other name REFUSED.

    python -m lab.dns ADDRESS [ADDRESS ...]        UDP and TCP on port 53 of each
"""
from __future__ import annotations

import asyncio
import struct
import sys
from collections.abc import Sequence

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from lab.hosts import NAMES, OTHER

ZONE = dns.name.from_text("lab.example.")
TTL = 30                              # seconds
ADDRESSES = {
    dns.name.from_text(name): {dns.rdatatype.A: host.ipv4, dns.rdatatype.AAAA: host.ipv6}
    for name, host in NAMES.items()
}
# What no name may lead to, and everything below one name.
ADDRESSES[dns.name.from_text("meta.lab.example")] = {dns.rdatatype.A: "169.254.169.254"}
ADDRESSES[dns.name.from_text("loop.lab.example")] = {dns.rdatatype.A: "127.0.0.1", dns.rdatatype.AAAA: "::1"}
BELOW = dns.name.from_text("cdn.lab.example")


def answer(wire: bytes) -> bytes | None:
    """The response to one message; None for what is no query at all."""
    try:
        query = dns.message.from_wire(wire)
    except dns.exception.DNSException:
        return None
    if query.flags & dns.flags.QR:
        return None
    print(*query.question, *query.options, flush=True)      # who tests exfiltration reads it
    response = dns.message.make_response(query)
    if query.opcode() != dns.opcode.QUERY or len(query.question) != 1:
        response.set_rcode(dns.rcode.NOTIMP)
    else:
        _fill(response, query.question[0])
    return response.to_wire()


def _fill(response: dns.message.Message, question: dns.rrset.RRset) -> None:
    if not question.name.is_subdomain(ZONE):
        response.set_rcode(dns.rcode.REFUSED)
        return
    response.flags |= dns.flags.AA
    records = ADDRESSES.get(question.name)
    if question.name.is_subdomain(BELOW) and question.name != BELOW:
        records = {dns.rdatatype.A: OTHER.ipv4, dns.rdatatype.AAAA: OTHER.ipv6}
    if records is None:
        response.set_rcode(dns.rcode.NXDOMAIN)
    elif question.rdtype in records:
        response.answer.append(
            dns.rrset.from_text(question.name, TTL, dns.rdataclass.IN, question.rdtype, records[question.rdtype])
        )


class Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        response = answer(data)
        if response is not None:
            self.transport.sendto(response, addr)  # type: ignore[attr-defined]


async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """RFC 1035 4.2.2: two bytes of length before each message."""
    try:
        while True:
            size = struct.unpack("!H", await reader.readexactly(2))[0]
            response = answer(await reader.readexactly(size))
            if response is None:
                break
            writer.write(struct.pack("!H", len(response)) + response)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def serve(addresses: Sequence[str]) -> None:
    loop = asyncio.get_running_loop()
    for address in addresses:
        await loop.create_datagram_endpoint(Datagrams, local_addr=(address, 53))
        await asyncio.start_server(conversation, address, 53)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1:]))
