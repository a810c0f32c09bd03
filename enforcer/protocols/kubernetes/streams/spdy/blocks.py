"""Header blocks of SPDY/3 (draft 3, 2.6.10): names and values, compressed in one zlib stream a direction.

The dictionary that both ends begin with is of the draft: 65 texts, each behind its length, then more of what is often
said.
"""
from __future__ import annotations

import zlib
from collections.abc import Iterable
from struct import Struct
from typing import Final

from enforcer.http.messages import Headers
from enforcer.words.errors import RemoteProtocolError

BLOCK: Final = 64 << 10               # bytes of a block, inflated
FIELDS: Final = 64                    # of one block
_NUMBER: Final = Struct("!I")
_TEXTS: Final = (
    b"options|head|post|put|delete|trace|accept|accept-charset|accept-encoding|accept-language|"
    b"accept-ranges|age|allow|authorization|cache-control|connection|content-base|content-encoding|"
    b"content-language|content-length|content-location|content-md5|content-range|content-type|date|etag|"
    b"expect|expires|from|host|if-match|if-modified-since|if-none-match|if-range|if-unmodified-since|"
    b"last-modified|location|max-forwards|pragma|proxy-authenticate|proxy-authorization|range|referer|"
    b"retry-after|server|te|trailer|transfer-encoding|upgrade|user-agent|vary|via|warning|"
    b"www-authenticate|method|get|status|200 OK|version|HTTP/1.1|url|public|set-cookie|keep-alive|origin"
)
_MORE: Final = (
    b"100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Au"
    b"thoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidd"
    b"en404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr Ma"
    b"y Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,imag"
    b"e/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicpri"
    b"vatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _sized(text: bytes) -> bytes:
    return _NUMBER.pack(len(text)) + text


DICTIONARY: Final = b"".join(_sized(text) for text in _TEXTS.split(b"|")) + _MORE


class Blocks:
    """Of one end of a connection: what it reads and what it writes."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def read(self, block: bytes) -> Headers:
        """RemoteProtocolError for what is none, is too long or names anything twice."""
        try:
            plain = self._inflate.decompress(block, BLOCK + 1)
        except zlib.error as error:
            raise RemoteProtocolError(f"SPDY: a header block that cannot be inflated: {error}") from None
        if len(plain) > BLOCK or self._inflate.unconsumed_tail:
            raise RemoteProtocolError(f"SPDY: a header block of more than {BLOCK} bytes")
        if self._inflate.eof:
            raise RemoteProtocolError("SPDY: the stream of header blocks ends in one")
        return parse_block(plain)

    def write(self, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        return self._deflate.compress(render_block(tuple(headers))) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


def parse_block(plain: bytes) -> Headers:
    count, at = _count(plain, 0)
    if count > FIELDS:
        raise RemoteProtocolError(f"SPDY: more than {FIELDS} headers")
    found: dict[bytes, bytes] = {}
    for _ in range(count):
        name, at = _text(plain, at)
        value, at = _text(plain, at)
        if not name or name != name.lower() or name in found:
            raise RemoteProtocolError("SPDY: a header without a name, in upper case or twice")
        found[name] = value
    if at != len(plain):
        raise RemoteProtocolError("SPDY: something behind the headers of a block")
    return tuple(found.items())


def render_block(headers: Headers) -> bytes:
    return _NUMBER.pack(len(headers)) + b"".join(_sized(name) + _sized(value) for name, value in headers)


def _count(plain: bytes, at: int) -> tuple[int, int]:
    if len(plain) < at + 4:
        raise RemoteProtocolError("SPDY: a header block that breaks off")
    return _NUMBER.unpack_from(plain, at)[0], at + 4


def _text(plain: bytes, at: int) -> tuple[bytes, int]:
    size, at = _count(plain, at)
    if len(plain) < at + size:
        raise RemoteProtocolError("SPDY: a header block that breaks off")
    return plain[at:at + size], at + size
