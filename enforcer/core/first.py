"""Pure: the first bytes of a flow, or of a stream through a tunnel (raw.py) -> whether it may go on.

Looked at before they are sent on, so that a server never has a whole beginning that was not found right.  Where the
entry permits an address by name, TLS names that name (SNI) and plain HTTP does (Host).  A proxy's greeting and a
registered protocol in plaintext end the flow.  What is none of these is opaque and passes.

What is not told yet need not wait for long, unless it begins as TLS, HTTP or SOCKS do (`waits`): a part of anything
else is no whole beginning of these, and what follows is judged together with it.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from enforcer.core.hello import Malformed, Unfinished, server_name

MOST: Final = 96 << 10                # bytes of a beginning; longer ones end the flow
PIECES: Final = 8192                  # that it may come in: each is looked at with all before it,
LOOKED: Final = 40 << 20              # bytes in all: a tenth of a second or so
FIRST: Final = 16                     # bytes within which a registered protocol's plaintext is known
BANNER: Final = 1024                  # bytes of a server that are looked at for an SSH banner: it may speak first
HOLD: Final = 5.0                     # seconds that a client's first bytes may wait for the rest of their beginning
BRIEF: Final = 0.2                    # where a part of it is no whole beginning of anything that would be refused

UNKNOWN, PASS = None, ""              # not told yet; may go on.  Anything else is why the flow ends.
# Rules that may end a flow, as FlowNoted has them.
ADDRESS, NAME, PROXY, PROTOCOL, BEGINNING = "address", "name", "proxy", "protocol", "beginning"

# No expression here may go back over what it has passed: a crew would hold the whole enforcer up (`++`, `*+`).
_GAP: Final = b" \t\x0b\x0c"           # more than RFC 9112 3 has: what a lenient server takes
_VERSION: Final = re.compile(rb"HTTP/\d++(?:\.\d++)?")
_METHOD_WORD: Final = re.compile(rb"[^\s]{1,64}+(?=[ \t\x0b\x0c])")
_PERHAPS: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}([ \t\x0b\x0c].*)?")
_METHOD: Final = re.compile(rb"(GET|HEAD|POST|PUT|DELETE|OPTIONS|TRACE|PATCH|CONNECT)[ \t\x0b\x0c]")
_PROXY: Final = re.compile(
    rb"(?:CONNECT[ \t]++(?>\S*:)\d++|[A-Z]{3,10}+[ \t]++https?://(?P<there>[^\s/?#]*+)\S*+)[ \t]++HTTP/\d")
_TAIL: Final = 512                    # bytes that are kept for it
_HEADERS_END: Final = re.compile(rb"\r?\n\r?\n")
_AUTHORITY: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")
_NO_PROXY: Final = "a proxy is no way round"


class Beginning:
    """`names`: that the entry permits this address by; none: by itself.  `spoken(first)`: a registered protocol's name.
    `curious`: whom TLS names is looked for where it is of no consequence, too."""

    def __init__(
        self, names: Sequence[str], address: str, spoken: Callable[[bytes], str], curious: bool = False,
    ) -> None:
        self._names, self._address, self._spoken = frozenset(names), address, spoken
        self._client, self._server = b"", b""
        self._pieces = self._looked = 0
        self._tail: bytes | None = None        # of what a plain HTTP client has sent; None: it is no such client
        self._curious = curious
        self._idle = False                     # it is looked at out of curiosity alone
        self.told = False                      # what becomes of the client's bytes
        self.speaks = ""                       # as far as it is known: events.FlowNoted
        self.name = ""                         # that it asks for (SNI, Host)
        self.rule = ""                         # by which it ends

    def client(self, data: bytes) -> str | None:
        """With what the client sends next; UNKNOWN, PASS or why not."""
        if self.told:
            return PASS if self._tail is None else self._later(data)
        self._client += data
        self._pieces += 1
        self._looked += len(self._client)
        verdict = self._judge()
        if verdict is UNKNOWN and (len(self._client) > MOST or self._pieces > PIECES or self._looked > LOOKED):
            verdict = PASS if self._idle else self._no(
                BEGINNING, "its beginning is too long, or in too many pieces, to be told")
        if verdict is not UNKNOWN:
            self.told, self._client = True, b""
        return verdict

    def waits(self) -> bool:
        """Whether what is not told yet may not go on before it is."""
        first = self._client.lstrip(b"\r\n")
        begun = first[:1] in (b"\x04", b"\x05", b"\x14", b"\x15", b"\x16", b"\x17") or _METHOD.match(first)
        return not self.told and not self._idle and bool(begun)

    def late(self) -> str:
        """Why it ends: what waits was not finished in time."""
        return self._no(BEGINNING, "its beginning was not finished in time")

    def server(self, data: bytes) -> str:
        """RFC 4253 4.2: lines may come before the banner."""
        if self.told or len(self._server) >= BANNER:
            return PASS
        self._server += data[:BANNER - len(self._server)]
        return self._plain("ssh") if b"\nSSH-" in b"\n" + self._server else PASS

    def _no(self, rule: str, reason: str) -> str:
        self.rule = rule
        return reason

    def _plain(self, protocol: str) -> str:
        self.speaks = protocol
        return self._no(PROTOCOL, f"{protocol} in plaintext inside a flow: register it as a target")

    def _judge(self) -> str | None:
        data = self._client
        if protocol := self._spoken(data[:FIRST]):
            return self._plain(protocol)
        if data[0] in (4, 5):
            return self._socks(data)
        if data[0] in range(0x14, 0x18) or (data[0] & 0x80 and data[2:3] in (b"", b"\x01")):
            return self._tls(data)
        if data[0] == 0 and len(data) < 8:
            return UNKNOWN            # a length in four bytes: PostgreSQL's, and others'
        return self._http(data.lstrip(b"\r\n"))        # RFC 9112 2.2: empty lines before a request are passed over

    def _socks(self, data: bytes) -> str | None:
        """SOCKS4 (4, command 1 or 2) and SOCKS5 (RFC 1928 3: 5, number of methods)."""
        if len(data) < 2:
            return UNKNOWN
        if data[1] not in ((1, 2) if data[0] == 4 else range(1, 256)):
            return PASS
        self.speaks = "socks"
        return self._no(PROXY, f"SOCKS: {_NO_PROXY}")

    def _tls(self, data: bytes) -> str | None:
        if not self._names and not self._curious:
            return PASS
        try:
            self.name = name = server_name(data)
        except Unfinished:
            self._idle = not self._names
            return UNKNOWN
        except Malformed as error:
            opaque = str(error) == "opaque" or not self._names
            return PASS if opaque else self._no(BEGINNING, f"TLS that cannot be told: {error}")
        self.speaks = "tls"
        if not self._names or name in self._names:
            return PASS
        if not name:
            return self._no(NAME, "TLS without a server name, to an address that is permitted by name only")
        return self._no(NAME, f"TLS for {_shown(name)}, which this address was not given for")

    def _http(self, data: bytes) -> str | None:
        line = data.partition(b"\n")[0]
        if not data or (line == data and _PERHAPS.fullmatch(data)):
            return UNKNOWN
        method, target = _request(line)
        if not method or method == b"PRI":             # HTTP/2 (RFC 9113 3.4): whom it names is not read here
            return PASS
        self.speaks = "http"
        if method.upper() == b"CONNECT":
            self.speaks = "proxy"
            return self._no(PROXY, f"CONNECT: {_NO_PROXY}")
        end = _HEADERS_END.search(data, max(0, len(line) - 1))
        if not end:
            return UNKNOWN
        return self._hosts(target, data[len(line) + 1:end.start()]) or self._later(data[end.end() - 1:])

    def _hosts(self, target: bytes, head: bytes) -> str:
        lines = [line.removesuffix(b"\r") for line in head.split(b"\n")]
        if any(b"\r" in line or b"\0" in line for line in lines):
            return self._no(BEGINNING, "HTTP that cannot be told: a line break of another kind")
        hosts = [value.strip() for name, colon, value in (line.partition(b":") for line in lines)
                 if colon and name.strip().lower() == b"host"]
        self.name = _bare(hosts[0]) if len(hosts) == 1 else ""
        if self._names and len(hosts) != 1:
            return self._no(NAME, "HTTP that names no host, or several")
        elsewhere = _AUTHORITY.match(target)
        if elsewhere:
            hosts.append(elsewhere[1].rpartition(b"@")[2])
        # Without names any host may be named, but an absolute target is a proxy's to follow (RFC 9112 3.2.2).
        permitted = self._names or ({self._address} if elsewhere else set(map(_bare, hosts)))
        wrong = next((one for one in map(_bare, hosts) if one not in permitted), None)
        if wrong is None:
            return PASS
        self.speaks = "proxy" if elsewhere else self.speaks
        return self._no(PROXY if elsewhere else NAME,
                        f"HTTP for {_shown(wrong)}, which this address was not given for")

    def _later(self, data: bytes) -> str:
        """A plain HTTP client may take its server for a proxy in a later request."""
        seen = (self._tail or b"") + data
        self._tail = seen[-_TAIL:]
        for found in _PROXY.finditer(seen):
            there = found["there"]
            if there is None or _bare(there.rpartition(b"@")[2]) not in (self._names or {self._address}):
                self.speaks = "proxy"
                return self._no(PROXY, _NO_PROXY)
        return PASS


def _request(line: bytes) -> tuple[bytes, bytes]:
    """Method and target of a request's first line; empty where it is none (RFC 9112 3)."""
    method = _METHOD_WORD.match(line)
    rest = line.rstrip(_GAP + b"\r")
    at = max(map(rest.rfind, (gap.to_bytes(1, "big") for gap in _GAP)))
    if not method or at < method.end() or not _VERSION.fullmatch(rest, at + 1):
        return b"", b""
    return method[0], rest[method.end():at].strip(_GAP)


def _bare(host: bytes) -> str:
    """Without port, in lower case, without the last dot."""
    text = host.decode("latin-1").lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].removesuffix(".")


def _shown(name: str) -> str:
    return repr(name[:100])
