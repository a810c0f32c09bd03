"""One request to an API server: read, decided, sent on as it was read; its answer masked and recorded."""
from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Final

import msgspec

from enforcer.core.book import Book
from enforcer.core.context import Context
from enforcer.core.desk import Ask, Verdict
from enforcer.core.hiding import hide
from enforcer.http.codec import HOP
from enforcer.http.exchange import Unreadable, Way
from enforcer.http.messages import Answer, Head, Headers, value, without
from enforcer.http.passage import Outlet, Passage
from enforcer.protocols.kubernetes import masking, streams
from enforcer.protocols.kubernetes.bodies import Body, accept, read_body
from enforcer.protocols.kubernetes.errors import read_message, render_status, warning
from enforcer.protocols.kubernetes.info import Info, Query, Unclear
from enforcer.protocols.kubernetes.manner import tell_covered
from enforcer.protocols.kubernetes.request_info import read_info
from enforcer.protocols.kubernetes.second_try import keep_no, take_no
from enforcer.protocols.kubernetes.target_path import parse_target
from enforcer.protocols.kubernetes.wants import read_wants
from enforcer.words.decisions import DENY, HOLD
from enforcer.words.errors import RemoteProtocolError

MOST: Final = 3 << 20                 # bytes of a body that an API server takes (--max-request-body-bytes)
MESSAGE: Final = 64 << 10             # bytes of an error's body that are read for its message
SHOWN: Final = 4096                   # characters of a target that are shown of what is no request
STREAMS: Final = ("exec", "attach", "portforward")
# What a crew says of itself, or of whom it speaks for, is not passed on: who it is, Weir says.  The rest is Weir's to
# say: what it can read, and by which name this request is in the server's audit log.
DROPPED: Final = (b"authorization", b"proxy-authorization", b"cookie", b"audit-id", b"forwarded", b"range", b"accept",
                  b"if-range", b"content-type", b"content-encoding", b"via", b"warning")
NOT_SHOWN: Final = (b"alt-svc", b"www-authenticate")
_DROPPED_PREFIXES: Final = (b"x-remote-", b"x-forwarded-", b"proxy-", b"x-real-", b"x-http-method",
                            b"x-method-override", b"x-original-", b"x-rewrite-")
_SPOKEN: Final = (b"impersonate-", b"accept", b"sec-websocket", b"x-")
_pack = msgspec.msgpack.Encoder().encode


class KubernetesExchange:
    def __init__(self, context: Context, book: Book, head: Head) -> None:
        self._context, self._book, self._head = context, book, head
        self._target = context.target
        self._info: Info | None = None
        self._query: Query = ()
        self._canonical = b""
        self._offer: Headers = ()              # towards the server, of what changes the protocol
        self._body: Body | None = None
        self._way: Way | None = None
        self._then: Callable[[Verdict], None] = self._decided
        self._number, self._warning = 0, ""
        self._labels: tuple[str, ...] = ()     # that its answer may carry,
        self._masked: frozenset[str] = frozenset()       # and what of them is masked
        self._masker: masking.Masker | None = None
        self._status, self._error = 0, b""

    @property
    def most(self) -> int:
        return MOST

    # The request

    def ask(self, body: bytes, way: Way) -> None:
        self._way = way
        try:
            ask = self._read(body)
        except Unclear as error:
            self.refuse(error.status, error.reason, way)
            return
        if self._asks_again(ask):
            return
        self._book.ask(ask, self._then, self._waits)

    def _asks_again(self, ask: Ask) -> bool:
        """Whether it is the second try of what somebody has said no to: it has the same answer."""
        if not self._offer or self._by_websocket or self._book.permits(ask).outcome != HOLD:
            return False
        reason = take_no(self._context, self._canonical)
        if reason:
            self._book.refuse(ask, "denied-before", reason, self._then)
        return bool(reason)

    @property
    def _by_websocket(self) -> bool:
        return value(self._head.headers, b"upgrade").lower() == streams.WEBSOCKET

    def _read(self, data: bytes) -> Ask:
        head, target = self._head, self._target
        path, self._query, self._canonical = parse_target(head.target)
        info = self._info = read_info(head.method, path, self._query)
        if value(head.headers, b"content-encoding") not in (b"", b"identity"):
            raise Unclear("a body that is compressed: send it as it is", 415)
        self._body = body = read_body(value(head.headers, b"content-type"), data, info)
        wants = read_wants(target.name, info, self._query, head.headers, body.value, method=head.method)
        if _streams(info):
            self._offer = streams.negotiate_offer(head.headers, info)
        elif value(head.headers, b"upgrade"):
            raise Unclear("only exec, attach and port-forward are passed on another protocol", 501)
        self._labels = masking.labels_of_answer(info, target)
        ask = Ask(wants.verb, self._text(info, body), wants.requests, self._exact(body), self._labels, wants.writes,
                  shape=wants.shape, covers=tell_covered(wants.requests) if wants.shape else "")
        self._check_masks(ask, info, body)
        return ask

    def _check_masks(self, ask: Ask, info: Info, body: Body) -> None:
        """What policy cannot permit as it stands: whoever may not see something neither writes its mask nor asks about
        it by a write."""
        decision = self._book.permits(ask)
        wrong = masking.returned_masks(body.value, info, self._target, frozenset(decision.masked))
        if wrong and decision.outcome != DENY:
            raise Unclear(f"what Weir has masked would be written as its mask, or told: {', '.join(wrong)}; leave it "
                          "out, or ask for the right to see it", 422)

    def _text(self, info: Info, body: Body) -> bytes:
        if _streams(info):
            return _line(info, self._query).encode()
        text = hide(f"{self._head.method} {self._canonical.decode()}").encode()
        if body.value is None:
            return text
        return text + b"\n\n" + msgspec.json.format(msgspec.json.encode(
            masking.redact_body(body.value, info, self._target)), indent=1)

    def _exact(self, body: Body) -> bytes:
        head = self._head
        spoken = [one for one in head.headers if one[0].startswith(_SPOKEN) or (body.opaque and _tells(one[0]))]
        return _pack((head.method, self._canonical, spoken, body.content_type, body.rendered))

    def _waits(self, line: str) -> None:
        self._warning = line

    def refuse(self, status: int, reason: str, way: Way) -> None:
        self._way, head = way, self._head
        shown = hide(f"{head.method} {head.target[:SHOWN].decode('latin-1')}").encode()

        def then(verdict: Verdict) -> None:
            way.answer(*render_status(status, f"weir: {reason}", self._info))

        self._book.refuse(Ask("request", shown, (), shown), "protocol", reason, then)

    def _decided(self, verdict: Verdict) -> None:
        assert self._way is not None
        assert self._body is not None
        assert self._info is not None
        if not verdict.permitted:
            if self._warning and self._offer and self._by_websocket:
                keep_no(self._context, self._canonical, verdict.reason)
            answer, body = render_status(403, f"weir: {verdict.reason}", self._info)
            self._way.answer(self._warned(answer), body)
            return
        self._number, self._masked = verdict.number, frozenset(verdict.masked)
        head = self._head
        self._way.forward(
            Head(head.method, self._canonical, self._headers(self._info, self._body)), self._body.rendered,
            value(self._offer, b"upgrade"))

    def _headers(self, info: Info, body: Body) -> Headers:
        headers = tuple(one for one in self._offer or self._head.headers if _goes_on(one[0]))
        if self._hides(info):
            headers = without(headers, (b"accept-encoding",))
        more = [(b"accept", accept(self._head.headers, info, self._hides(info))),
                (b"audit-id", f"{self._context.session}-{self._number}".encode())]
        if body.rendered:
            more.append((b"content-type", body.content_type))
        return (*headers, *(one for one in more if one[1]))

    def _hides(self, info: Info) -> bool:
        return bool(self._masked) or masking.never_shown(info)

    # The answer

    def answered(self, answer: Answer) -> Answer:
        assert self._info is not None
        self._status = answer.status
        if answer.status != 101 and self._hides(self._info):
            try:
                self._masker = masking.make_masker(
                    self._info, self._query, self._target, self._masked, answer)
            except Unclear as error:
                raise Unreadable(error.reason) from None
        headers = answer.headers if answer.status != 101 else streams.answer_offer(self._info, self._head, answer)
        return self._warned(Answer(answer.status, answer.reason, without(headers, NOT_SHOWN)))

    def _warned(self, answer: Answer) -> Answer:
        if not self._warning:
            return answer
        return Answer(answer.status, answer.reason, (*answer.headers, warning(self._warning)))

    @property
    def changes(self) -> bool:
        return self._masker is not None

    def piece(self, data: bytes) -> bytes:
        if self._masker is not None:
            try:
                data = self._masker.feed(data)
            except Unclear as error:
                raise Unreadable(error.reason) from None
        return self._delivered(data)

    def _delivered(self, data: bytes) -> bytes:
        if data:
            # What is labelled is not in the recording, whoever may see it; errors quote it.
            plain = self._masked.issuperset(self._labels)
            self._book.piece(self._number, "out", data, plain and self._target.payload == "content")
            if plain and self._status >= 400 and len(self._error) < MESSAGE:
                self._error += data[:MESSAGE]
        return data

    def done(self) -> bytes:
        rest = b""
        if self._masker is not None:
            try:
                rest = self._delivered(self._masker.end())
            except Unclear as error:
                raise Unreadable(error.reason) from None
        failed = self._status >= 400
        said = read_message(self._error).encode()
        self._book.done(self._number, "error" if failed else "ok", str(self._status), said)
        return rest

    def unanswered(self, reason: str) -> None:
        if not self._number:
            self._book.withdraw(self._then)
        self._book.done(self._number, "error", "", reason.encode())

    def lost(self, reason: str) -> None:
        if not self._number:
            self._book.withdraw(self._then)
        self._book.done(self._number, "cancelled", str(self._status or ""), reason.encode())

    def upgrade(self, answer: Answer, outlet: Outlet) -> Passage:
        if self._info is None or not _streams(self._info):
            raise RemoteProtocolError("the server changes the protocol, and was not asked to")
        return streams.make_passage(
            self._info, self._query, self._head, answer, outlet, self._number, self._masked, self._target)


def _goes_on(name: bytes) -> bool:
    """Some servers (CGI's heirs) read _ as -."""
    meant = name.replace(b"_", b"-")
    return meant not in DROPPED and not meant.startswith(_DROPPED_PREFIXES) and (
        meant == name or not meant.startswith(b"impersonate-"))


def _tells(name: bytes) -> bool:
    """Of a proxy's request any header may say what is done; who sends it, and how, says nothing."""
    return _goes_on(name) and name not in (b"user-agent", b"traceparent", *HOP)


def _streams(info: Info) -> bool:
    return info.is_resource and info.resource == "pods" and not info.group and info.subresource in STREAMS


def _line(info: Info, query: Query) -> str:
    """As kubectl has it."""
    verb = "port-forward" if info.subresource == "portforward" else info.subresource
    flags = [flag for flag, name in (("-i", "stdin"), ("-t", "tty")) if streams.wants(query, name)]
    container = [one for name, text in query if name == "container" and text for one in ("-c", text)]
    command = [text for name, text in query if name == "command"]
    return hide(shlex.join((verb, "-n", info.namespace, *flags, info.name, *container)) + (
        f" -- {shlex.join(command)}" if command else ""))
