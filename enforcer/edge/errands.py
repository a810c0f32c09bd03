"""What a session does that takes time.  Each ends in telling the layer, or in an end of the session."""
from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from agent.contract.credential import Credential
from agent.contract.logs import about
from enforcer.core.context import Context
from enforcer.edge import clock, tls, upstream
from enforcer.edge.cancel import Key
from enforcer.edge.peer import Peer
from enforcer.words import commands as words
from enforcer.words.commands import CLIENT, SERVER, Record
from enforcer.words.decisions import DENY, PERMIT
from enforcer.words.errors import RecordingError, UpstreamError
from enforcer.words.events import INTENT, Intent
from enforcer.words.inputs import (
    CatalogueReady,
    Connected,
    ConnectFailed,
    CredentialFailed,
    CredentialReady,
    TlsStarted,
)

if TYPE_CHECKING:
    from enforcer.edge.session import Session

LOG = logging.getLogger("weir.session")

CANCEL: Final = 10.0                  # seconds that a real cancel may take
AGAIN: Final = (0.1, 0.4, 0.0)        # seconds after each of those of a session that was ended
_DISTRUST: Final = ("unknown ca", "bad certificate", "certificate unknown")     # alerts, RFC 8446 6.2


async def start_tls(session: Session, peer: Peer, alpn: str) -> None:
    transport, target = peer.transport, session.context.target
    if transport is None:
        return
    try:
        if peer.number == CLIENT:
            context, name = session.edge.contexts.towards_client(target, alpn or "postgresql"), None
        else:
            context = session.edge.contexts.towards_server(target, session.credential, alpn)
            name = target.hosts[0]
        secure = await _Handshake(session.edge.loop.start_tls(
            transport, peer, context, server_side=peer.number == CLIENT, server_hostname=name,
            ssl_handshake_timeout=tls.HANDSHAKE, ssl_shutdown_timeout=tls.SHUTDOWN,
        ), peer, transport)
    except (OSError, UpstreamError) as error:
        _tls_failed(session, peer, transport, error)
        return
    if secure is None or peer.transport is None or peer.closing:
        _drop(peer, transport)
        session.settle()
        return
    peer.started(secure)
    channel = secure.get_extra_info("ssl_object")
    certificate = (channel.getpeercert(True) or b"") if peer.number == SERVER else b""
    hashed = tls.signature_hash(certificate) if certificate else ""
    session.tell(TlsStarted(peer.number, tls.describe(channel), certificate, hashed))
    peer.open()


class _Handshake:
    """What it awaits, and TLS gets what was read before it began: behind the first step, which has taken the transport
    over, and before that is read again.  In a task of its own its failure would be told after the connection's end."""

    def __init__(self, steps: Coroutine[Any, Any, asyncio.Transport | None], peer: Peer,
                 transport: asyncio.Transport) -> None:
        self._steps, self._peer, self._transport = steps, peer, transport

    def __await__(self) -> Generator[Any, Any, asyncio.Transport | None]:
        steps = self._steps.__await__()
        step: Callable[[], Any] = partial(next, steps)
        hello, self._peer.hello = self._peer.hello, b""
        while True:
            try:
                waits = step()
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]
            if hello:
                asyncio.get_running_loop().call_soon(_give, self._transport, hello)
                hello = b""
            try:
                send = yield waits
            except BaseException as error:
                step = partial(steps.throw, error)
            else:
                step = partial(steps.send, send)


def _give(transport: asyncio.Transport, data: bytes) -> None:
    reader: Any = transport.get_protocol()       # asyncio.BufferedProtocol
    while data and not transport.is_closing():
        room = reader.get_buffer(len(data))
        size = min(len(room), len(data))
        room[:size] = data[:size]
        reader.buffer_updated(size)
        data = data[size:]


def _tls_failed(session: Session, peer: Peer, transport: asyncio.Transport, error: Exception) -> None:
    reason = str(error) if isinstance(error, UpstreamError) else tls.explain(error)
    if peer.number == CLIENT and any(alert in reason for alert in _DISTRUST):
        session.edge.count("unknown_ca")
        session.edge.count(f"unknown_ca:{session.context.target.name}")
        session.tally.distrusted += 1
        owner = session.context.principal.owner
        session.edge.refused(
            owner, f"{owner.destination} {owner.port}", "the client does not trust Weir's certificate (unknown CA)"
        )
    elif peer.number == SERVER:
        session.tally.upstream_failures += 1
    _drop(peer, transport)
    session.gone(peer.number, reason)
    session.settle()


def _drop(peer: Peer, transport: asyncio.Transport) -> None:
    """TLS has the transport, and tells the peer nothing of its end."""
    transport.abort()
    peer.abort()


async def dial(session: Session) -> None:
    server = session.peers[SERVER]
    try:
        transport, session.address = await _dial(session)
    except UpstreamError as error:
        session.dialling = False
        session.tally.upstream_failures += 1
        session.tell(ConnectFailed(str(error)))
        session.settle()
        return
    session.dialling = False
    if server.told:                   # closed before it was there
        transport.abort()
        session.settle()
        return
    server.attach(transport)
    session.tell(Connected(session.address))
    server.open()


async def _dial(session: Session) -> tuple[asyncio.Transport, str]:
    target, server = session.context.target, session.peers[SERVER]
    if session.road is not None:
        return await session.road.dial(server)
    choices = upstream.addresses(target, session.context.principal.owner)
    transport, _, address = await upstream.dial(choices, target.port, lambda: server)
    return transport, address


async def fetch_credential(session: Session, command: words.Login) -> None:
    session.asked_by = command
    answer = await _ask_credential(session, command)
    if isinstance(answer, str):
        session.tell(CredentialFailed(answer))
        return
    session.use(answer)
    session.tell(CredentialReady(answer))


async def _ask_credential(session: Session, command: words.Login) -> Credential | str:
    context = session.context
    principal = context.principal
    answer = await session.edge.asking.credential(
        context.target.name, command.database, command.role, principal.groups,
        f"{principal.subject}:{principal.workload}:{context.session}",
    )
    if not isinstance(answer, str) and (elsewhere := session.edge.why_elsewhere(context.target)):
        session.edge.asking.unused(answer)
        answer = elsewhere
    session.tally.credential_failures += isinstance(answer, str)
    return answer


async def load_catalogue(session: Session, command: words.LoadCatalogue) -> None:
    catalogues, credential = session.edge.catalogues, session.credential
    if catalogues is None or credential is None:
        session.tell(CatalogueReady(command.database, None, "there is no credential to read the catalogue with"))
        return
    if not credential.lasts(clock.now() / 1e9) and session.asked_by is not None:
        answer = await _ask_credential(session, session.asked_by)
        if isinstance(answer, str):
            session.tell(CatalogueReady(command.database, None, answer))
            return
        session.use(answer)
        credential = answer
    found, reason = await catalogues.load(
        session.context, command.database, credential, command.stale, session.road)
    session.tell(CatalogueReady(command.database, found, reason))


async def cancel(session: Session, command: words.CancelRequest) -> None:
    """Close the client only after the server has taken the cancel: libpq waits for that."""
    try:
        await _cancel(session, command)
    except RecordingError as error:
        session.recording_failed(str(error))
    session.cancelling = False
    session.peers[CLIENT].close()
    session.settle()


async def _cancel(session: Session, command: words.CancelRequest) -> None:
    context, edge = session.context, session.edge
    owner = context.principal.owner
    found = edge.cancels.find(command.process, command.secret, owner, context.target.name)
    if isinstance(found, str):
        session.record(Record(cancel_intent(context, session.name, DENY, found), (), False))
    else:
        session.record(Record(cancel_intent(context, found.session, PERMIT, ""), (), True))
        if edge.holds is not None and edge.holds.asks(found.session):
            edge.holds.cancel_session(found.session, "cancelled by the client")
        else:
            await _send_cancel(session, found)


def cancel_intent(context: Context, of: str, decision: int, reason: str, actor: str = "crew") -> Intent:
    """`of`: the session whose operation it is about."""
    return Intent(
        INTENT, context.now(), context.monotonic(), of, 0, actor, "cancel", decision, b"", b"", b"", (), (), (),
        reason, "", False,
    )


async def put_down(session: Session) -> None:
    """Of a session that was ended: cancel what its server is at; again, for a cancel that comes between two statements
    stops neither.  The first answer that the server cannot give, to a connection that was reset, is its last."""
    try:
        for pause in AGAIN:
            async with session.edge.cancelling:
                if session.key is not None:
                    await _send_cancel(session, session.key)
            await asyncio.sleep(pause)
    except RecordingError as error:
        LOG.error("session %s: what runs of it is not cancelled: %s", session.name, error, extra=session.about())
    session.put_down()


async def _towards(key: Key) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The server of this session.  Where the session that it was reached through is over, perhaps from here."""
    if key.road is None:
        return await upstream.open_streams(key.address)
    try:
        return await key.road.streams()
    except UpstreamError:
        target = key.target
        address = next(filter(upstream.dialable, (target.socket, *target.addresses)), "")
        if not address:
            raise
        return await upstream.open_streams(upstream.render_address(address, target.port))


async def _send_cancel(session: Session, key: Key) -> None:
    render, request = session.protocol.render_cancel, session.protocol.tls_request
    if render is None or session.edge.commit is None:
        return
    session.edge.commit.write_now()
    try:
        async with asyncio.timeout(CANCEL):
            reader, writer = await _towards(key)
            try:
                if key.target.tls != "disable":
                    writer.write(request)
                    if await reader.readexactly(1) != b"S":
                        raise UpstreamError("the server refuses TLS for a cancel request")
                    # A server checks a certificate that it is shown, and asks for none to take a cancel.
                    lasts = key.credential is not None and key.credential.lasts(clock.now() / 1e9)
                    context = session.edge.contexts.towards_server(key.target, key.credential if lasts else None)
                    await writer.start_tls(context, server_hostname=key.target.hosts[0])
                writer.write(render(key.process, key.secret))
                await reader.read(1)  # the server closes without a word
            finally:
                writer.transport.abort()
    except (OSError, EOFError, UpstreamError) as error:
        LOG.warning("session %s: a cancel request could not be sent: %s", key.session, tls.explain(error),
                    extra=about(session=key.session, target=key.target.name, workload=session.owner.workload))
