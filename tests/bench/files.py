"""Megabytes a second of processor time that the SFTP gate passes, without sockets, ciphers or a journal:

    PYTHONPATH=tests:. python -P -m bench.files [MEBIBYTES]

Both the gate's own SHA-256 of each file and the making of the packets are in it.
"""
from __future__ import annotations

import sys
import time
from struct import pack

from filedesk import FileDesk
from sftptalk import S, Talk, status

from enforcer.protocols.ssh.sftp import messages as m

WINDOW = 64                           # requests under way, as clients have them


class Counting(FileDesk):
    def piece(self, number: int, stream: str, data: bytes, keep: bool = True) -> None:
        """Nothing is kept."""


def exchange(talk: Talk, packets: list[bytes], data: bytes) -> None:
    for packet in packets:
        talk.ask(packet)
    sent, talk.server[:] = list(talk.server), []
    for packet in sent:
        number = int.from_bytes(packet[5:9], "big")
        talk.hear(m.render(m.DATA, number, S(data)) if packet[4] == m.READ else status(number))
    talk.client.clear()


def measure(kind: int, size: int, total: int) -> float:
    talk = Talk(Counting())
    talk.open(flags=m.FLAG_READ | m.FLAG_WRITE)
    data, spent = bytes(size), 0.0
    for begin in range(0, total, size * WINDOW):
        places = [(number, pack(">QI", begin + number * size, size)) for number in range(WINDOW)]
        content = (data,) if kind == m.WRITE else ()
        packets = [m.render(kind, number, S(b"h"), place, *content) for number, place in places]
        began = time.process_time()
        exchange(talk, packets, data)
        spent += time.process_time() - began
    return total / spent / 1e6


def main() -> None:
    total = int(sys.argv[1] if len(sys.argv) > 1 else 256) << 20
    for name, kind in (("upload", m.WRITE), ("download", m.READ)):
        for size in (16384, 32768, 261120):
            print(f"{name} in pieces of {size}: {measure(kind, size, total):.0f} MB/s")


if __name__ == "__main__":
    main()
