"""Which mask an answer needs, by its form."""
from __future__ import annotations

from typing import Final, Protocol

from agent.contract.target import Target
from enforcer.http.messages import Answer, value
from enforcer.policy.detectors import labels_of
from enforcer.protocols.kubernetes.bodies.accepting import JSON, PROTOBUF
from enforcer.protocols.kubernetes.info import Info, Query, Unclear
from enforcer.protocols.kubernetes.masking.json_stream import JsonLines, JsonList, JsonWhole
from enforcer.protocols.kubernetes.masking.labels import is_command, is_log
from enforcer.protocols.kubernetes.masking.logs import LogMasker
from enforcer.protocols.kubernetes.masking.messages import ProtobufFrames, ProtobufWhole
from enforcer.protocols.kubernetes.masking.objects import ObjectMask, hide_quoted

_TEXT: Final = (b"text/plain", b"application/octet-stream", b"")
EMPTY: Final = (204, 304)             # have no body (RFC 9110 6.4.1)
ERROR: Final = 64 << 10               # bytes of an error that is text


class Masker(Protocol):
    """Unclear where an answer cannot be read: what was not given yet is not delivered then."""

    def feed(self, data: bytes) -> bytes:
        """What may be delivered of all that was fed."""
        ...

    def end(self) -> bytes:
        """The rest."""
        ...


def make_masker(info: Info, query: Query, target: Target, masked: frozenset[str], answer: Answer) -> Masker:
    """Unclear where an answer in this form cannot be read."""
    if value(answer.headers, b"content-encoding") not in (b"", b"identity"):
        raise Unclear("an answer that is compressed, although it was not asked for so")
    kind, _, parameters = value(answer.headers, b"content-type").partition(b";")
    kind, watch = kind.strip().lower(), b"stream=watch" in parameters.replace(b" ", b"").lower()
    mask = ObjectMask(info, target, masked)
    if (is_log(info) or is_command(info)) and kind in _TEXT:
        return LogMasker(masked & frozenset(labels_of(target.detectors)))
    if answer.status in EMPTY or (answer.status >= 400 and kind in _TEXT):
        return ErrorText()
    if kind == JSON:
        return _json(info, mask, watch, answer.status)
    if kind == PROTOBUF:
        return ProtobufFrames(mask) if watch or _watches(info, answer.status) else ProtobufWhole(mask)
    raise Unclear("an answer in a form that Weir does not read, and something in it is masked: ask for JSON")


def _json(info: Info, mask: ObjectMask, watch: bool, status: int) -> Masker:
    if watch or _watches(info, status):
        return JsonLines(mask)
    return JsonList(mask) if info.verb in ("list", "deletecollection") and status < 300 else JsonWhole(mask)


def _watches(info: Info, status: int) -> bool:
    return info.verb == "watch" and status < 300


class ErrorText:
    """Of who is no API server's handler of objects, as "404 page not found" and what is said of too many requests; in
    it is hidden what is hidden in a Status."""

    def __init__(self) -> None:
        self._kept = b""

    def feed(self, data: bytes) -> bytes:
        self._kept += data
        if len(self._kept) > ERROR:
            raise Unclear(f"an error of more than {ERROR >> 10} KiB in a form that Weir does not read")
        return b""

    def end(self) -> bytes:
        return hide_quoted(self._kept.decode("utf-8", "replace")).encode()
