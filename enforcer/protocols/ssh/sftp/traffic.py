"""The requests that name handles.

READ and WRITE pass at once.  What is asked about a handle (FSETSTAT, copy-data) stands at the head of the handle's line
until it is decided; what names the same handle waits behind it, in the client's order.  From open to close is one
operation, whose streams `in` and `out` are what was written and read.
"""
from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final

from enforcer.core.desk import Ask, Verdict
from enforcer.protocols.ssh.sftp.exchange import Exchange, Flight
from enforcer.protocols.ssh.sftp.handles import ANSWERS, EXTENSIONS, Errand, Handle, asks, names_of
from enforcer.protocols.ssh.sftp.messages import (
    ATTRS,
    CLOSE,
    DATA,
    EXTENDED,
    FAILURE,
    FSETSTAT,
    HANDLE_LIMIT,
    HEAD,
    NAME,
    OK,
    PERMISSION_DENIED,
    READ,
    READDIR,
    STATUS,
    WRITE,
    Fields,
    Status,
    parse_attributes,
    parse_names,
    parse_status,
    renumber,
    string,
)
from enforcer.protocols.ssh.sftp.paths import shown, text
from enforcer.protocols.ssh.sftp.pieces import Pieces, Room
from enforcer.words.errors import RemoteProtocolError
from enforcer.words.operations import Request

_READ, _WRITE = Struct(">QI"), Struct(">QI")
_SIZE = Struct(">I")
_MASK: Final = bytes(byte if byte == 0x0A else 0x2A for byte in range(256))
_DATA: Final = (DATA, STATUS)
_STATUS: Final = (STATUS,)


class Traffic:
    __slots__ = (
        "_account", "_ending", "_exchange", "_keep", "_labels", "_open", "_room", "_target", "queued", "waiting",
    )

    def __init__(self, exchange: Exchange, labels: Callable[[bytes], tuple[str, ...]], keep: bool) -> None:
        self._exchange, self._labels, self._keep = exchange, labels, keep
        self._target, self._account = exchange.desk.target, exchange.desk.account
        self._open: dict[bytes, Handle] = {}
        self._ending: dict[Handle, None] = {}  # the client closed it; not all answers are there
        self._room = Room()
        self.queued = self.waiting = 0         # requests that wait, and their bytes

    def __len__(self) -> int:
        return len(self._open)

    def open(self, packet: memoryview, number: int, path: bytes, directory: bool = False) -> Handle:
        """The server's HANDLE."""
        fields = Fields(packet)
        name = fields.handle()
        fields.end()
        if name in self._open:
            raise RemoteProtocolError("the server gives one handle twice")
        handle = Handle(name, number, path, directory)
        piece, keep = self._exchange.desk.piece, self._keep
        handle.read = Pieces(self._room, lambda data: piece(number, "out", data, keep))
        handle.wrote = Pieces(self._room, lambda data: piece(number, "in", data, keep), waits=False)
        self._open[name] = handle
        return handle

    def drop(self, handle: Handle) -> None:
        """It is not given to the client: close it."""
        del self._open[handle.name]
        done = self._exchange.own("close", b"close " + shown(handle.path))
        self._exchange.ask(CLOSE, string(handle.name), _STATUS, lambda kind, packet: done(_trouble(packet)))

    def close(self) -> None:
        """The session is over."""
        for handle in (*self._open.values(), *self._ending):
            self._finish(handle, "left open")
        self._open.clear()

    # --- requests ---

    def take(self, client: int, packet: memoryview) -> None:
        size = int.from_bytes(packet[9:13], "big")
        handle = self._open.get(bytes(packet[13:13 + size])) if size <= HANDLE_LIMIT else None
        kind = packet[4]
        if handle is not None and not handle.line:
            if kind == WRITE:
                return self._write(client, handle, packet, 13 + size)
            if kind == READ:
                return self._read(client, handle, packet, 13 + size)
        self.line_up(client, packet)

    def line_up(self, client: int, packet: memoryview) -> None:
        names = names_of(packet)
        handles = tuple(self._open[name] for name in dict.fromkeys(names) if name in self._open)
        if len(handles) != len(set(names)):
            self._exchange.refuse(client, FAILURE, "there is no such handle")
            return
        errand = Errand(client, packet, handles)
        busy = any(handle.line for handle in handles)
        if not busy and not asks(packet):
            self._run(errand)
            return
        errand.packet = memoryview(bytes(packet))
        self.queued += 1
        self.waiting += len(packet)
        for handle in handles:
            handle.line.append(errand)
        if not busy:
            self._advance(handles[0])

    def _advance(self, first: Handle) -> None:
        if first.advancing:                    # a loop, not a recursion: a decision may be there at once
            return
        first.advancing = True
        while first.line:
            errand = first.line[0]
            if errand.asked or any(handle.line[0] is not errand for handle in errand.handles):
                break
            errand.asked = True
            if asks(errand.packet):
                self._ask(errand)
            else:
                self._run(errand)
                self._leave(errand)
        first.advancing = False

    def _leave(self, errand: Errand) -> None:
        self.queued -= 1
        self.waiting -= len(errand.packet)
        for handle in errand.handles:
            handle.line.popleft()
        for handle in errand.handles:
            self._advance(handle)

    def _run(self, errand: Errand) -> None:
        client, packet, handle = errand.client, errand.packet, errand.handles[0]
        kind = packet[4]
        if any(one.name not in self._open for one in errand.handles):
            self._exchange.refuse(client, FAILURE, "the handle is closed")
        elif kind == WRITE:
            self._write(client, handle, packet, 13 + len(handle.name))
        elif kind == READ:
            self._read(client, handle, packet, 13 + len(handle.name))
        elif kind == CLOSE:
            self._close(client, handle, packet)
        elif kind == READDIR:
            self._list(client, handle, packet)
        else:
            expects = ANSWERS[kind] if kind != EXTENDED else EXTENSIONS[Fields(packet).string(64)]
            self._exchange.pass_on(client, packet, expects, lambda kind, answer: self._told(client, kind, answer))

    # --- reading and writing ---

    def _read(self, client: int, handle: Handle, packet: memoryview, at: int) -> None:
        if len(packet) != at + 12:
            raise RemoteProtocolError("a READ has a wrong length")
        if not handle.reads:
            self._exchange.refuse(client, PERMISSION_DENIED, "the handle was not opened for reading")
            return
        flight = Flight(client, READ, _DATA)
        flight.handle = handle
        flight.offset, flight.length = _READ.unpack_from(packet, at)
        handle.flying += 1
        handle.read.start(flight.offset)
        self._exchange.send(renumber(packet, self._exchange.fly(flight)))

    def _write(self, client: int, handle: Handle, packet: memoryview, at: int) -> None:
        if len(packet) < at + 12:
            raise RemoteProtocolError("a WRITE has a wrong length")
        offset, size = _WRITE.unpack_from(packet, at)
        if len(packet) != at + 12 + size:
            raise RemoteProtocolError("a WRITE has a wrong length")
        if not handle.writes:
            self._exchange.refuse(client, PERMISSION_DENIED, "the handle was not opened for writing")
            return
        flight = Flight(client, WRITE, _STATUS)
        flight.handle = handle
        handle.flying += 1
        data = bytes(packet[at + 12:])
        if handle.appends:
            handle.wrote.append(data)
        else:
            handle.wrote.add(offset, data)
        self._exchange.send(renumber(packet, self._exchange.fly(flight)))

    def arrived(self, flight: Flight, packet: memoryview) -> None:
        """The answer to a READ or WRITE."""
        handle = flight.handle
        assert handle is not None
        handle.flying -= 1
        if packet[4] == DATA:
            self._data(flight, handle, packet)
        else:
            status = parse_status(packet)
            if status.code > 1 and handle.trouble is None:             # 1 is the end of the file
                handle.trouble = status
            self._exchange.relay(flight.client, packet)
        if handle.closing is not None:
            self._finish(handle)

    def _data(self, flight: Flight, handle: Handle, packet: memoryview) -> None:
        size = _SIZE.unpack_from(packet, HEAD.size)[0] if len(packet) >= 13 else -1
        if len(packet) != 13 + size or size > flight.length:
            raise RemoteProtocolError("the server's DATA has a wrong length")
        data = bytes(packet[13:])
        if handle.masks:
            data = data.translate(_MASK)
            packet = memoryview(b"".join((packet[:13], data)))
        handle.read.add(flight.offset, data)
        self._exchange.relay(flight.client, packet)

    # --- the rest ---

    def _close(self, client: int, handle: Handle, packet: memoryview) -> None:
        del self._open[handle.name]
        self._ending[handle] = None

        def closed(kind: int, answer: memoryview) -> None:
            handle.closing = parse_status(answer)
            self._exchange.relay(client, answer)
            self._finish(handle)

        self._exchange.pass_on(client, packet, _STATUS, closed)

    def _finish(self, handle: Handle, left: str = "") -> None:
        if handle.flying and not left:
            return
        self._ending.pop(handle, None)
        if not handle.directory:
            handle.read.end()
            handle.wrote.end()
        closing = handle.closing if handle.closing is not None and handle.closing.code != OK else None
        tag = "; ".join(filter(None, (handle.tag(), left)))
        self._exchange.finish(handle.number, handle.trouble or closing, tag)

    def _list(self, client: int, handle: Handle, packet: memoryview) -> None:
        if not handle.directory:
            self._exchange.refuse(client, FAILURE, "the handle is not of a directory")
            return
        handle.flying += 1

        def arrived(kind: int, answer: memoryview) -> None:
            handle.flying -= 1
            if kind == NAME:
                names = parse_names(answer)
                if any(not name or b"/" in name or b"\0" in name for name in names):
                    raise RemoteProtocolError("the server lists a name that is none")
                handle.listed += len(names)
            self._told(client, kind, answer)
            if handle.closing is not None:
                self._finish(handle)

        self._exchange.pass_on(client, packet, ANSWERS[READDIR], arrived)

    def _told(self, client: int, kind: int, answer: memoryview) -> None:
        if kind == ATTRS:
            fields = Fields(answer)
            parse_attributes(fields)
            fields.end()
        self._exchange.relay(client, answer)

    # --- what is asked ---

    def _ask(self, errand: Errand) -> None:
        handle, packet = errand.handles[0], errand.packet
        if any(one.name not in self._open for one in errand.handles):
            self._run(errand)
            self._leave(errand)
        elif packet[4] == FSETSTAT:
            self._set(errand, handle)
        else:
            self._copy(errand, errand.handles[0], errand.handles[-1])

    def _set(self, errand: Errand, handle: Handle) -> None:
        fields = Fields(errand.packet)
        fields.handle()
        rest = fields.rest()
        attributes = parse_attributes(fields)
        resizes = attributes.size is not None
        if resizes and not handle.writes:
            self._refuse(errand, "the handle was not opened for writing")
            return
        actions = (("sftp:setstat", handle.path), *((("sftp:write", handle.path),) if resizes else ()))
        labels = self._labels(handle.path) if resizes else ()
        told = b"setstat %s: %s" % (shown(handle.path), str(attributes).encode())
        self._decide(errand, "setstat", told, actions, labels, rest)

    def _copy(self, errand: Errand, source: Handle, sink: Handle) -> None:
        """OpenSSH's PROTOCOL, 4.10."""
        if not source.reads or not sink.writes:
            self._refuse(errand, "a handle was not opened for this")
        elif source.masks:
            self._refuse(errand, "what is copied is masked for you")
        else:
            told = b"copy-data " + shown(source.path) + b" to " + shown(sink.path)
            actions = (("sftp:read", source.path), ("sftp:write", sink.path))
            labels = (*self._labels(source.path), *self._labels(sink.path))
            self._decide(errand, "copy-data", told, actions, labels, _places(errand.packet))

    def _refuse(self, errand: Errand, reason: str) -> None:
        self._exchange.refuse(errand.client, PERMISSION_DENIED, reason)
        self._leave(errand)

    def _decide(self, errand: Errand, verb: str, told: bytes, actions: tuple[tuple[str, bytes], ...],
                labels: tuple[str, ...], rest: bytes) -> None:
        """`rest`: what the packet says besides its handles, which are others in another session."""
        requests = tuple(self.request(action, path) for action, path in actions)
        exact = b"\0".join((verb.encode(), *(path for _, path in actions), rest))

        def decided(verdict: Verdict) -> None:
            if not verdict.permitted:
                self._exchange.refuse(errand.client, PERMISSION_DENIED, verdict.reason)
            elif verdict.masked:
                self._exchange.refuse(errand.client, PERMISSION_DENIED, masked(verdict))
                self._exchange.tell(masked(verdict))
                self._exchange.done(verdict.number, "denied", error=masked(verdict).encode())
            else:
                self._send(errand, verdict.number)
            self._leave(errand)

        self._exchange.decide(Ask(verb, told, requests, exact, tuple(dict.fromkeys(labels)), True), decided)

    def _send(self, errand: Errand, number: int) -> None:
        def arrived(kind: int, answer: memoryview) -> None:
            self._exchange.finish(number, _trouble(answer))
            self._exchange.relay(errand.client, answer)

        self._exchange.pass_on(errand.client, errand.packet, _STATUS, arrived)

    def request(self, action: str, path: bytes) -> Request:
        told = text(path)
        return Request(action, "File", (self._target, self._account, told), (("path", told),))


def masked(verdict: Verdict) -> str:
    return f"this would take or change what is masked for you: {', '.join(verdict.masked)}"


def _places(packet: memoryview) -> bytes:
    """Of copy-data: where it reads, how much, where it writes."""
    fields = Fields(packet)
    fields.view()
    fields.handle()
    places = [fields.u64(), fields.u64()]
    fields.handle()
    return b"".join(place.to_bytes(8, "big") for place in (*places, fields.u64()))


def _trouble(packet: memoryview) -> Status | None:
    status = parse_status(packet)
    return None if status.code == OK else status
