"""Catalogues: what a target's database holds, read by a connection of Weir's own, kept, read again when found wanting.

A reading counts for a session that found its catalogue wanting only if it began after the session asked: an earlier one
may have missed what the session changed.  Readings of one database run one after another, and whoever asks while one
runs shares the next.
"""
from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass
from typing import Final

from agent.contract.credential import Credential
from agent.contract.target import Target
from enforcer import protocols
from enforcer.core.context import Context
from enforcer.edge import clock, upstream
from enforcer.edge.edge import Edge
from enforcer.edge.readings import Readings
from enforcer.edge.upstream import Road
from enforcer.hot.chain import make_digest
from enforcer.words import events
from enforcer.words.decisions import PERMIT
from enforcer.words.errors import RecordingError, UpstreamError

LOG = logging.getLogger("weir.catalogue")

MOST: Final = 256                     # catalogues kept
AGE: Final = 60.0                     # seconds after which a kept one is not given to a new session any more
LIMIT: Final = 30.0                   # seconds that one reading may take

Answer = tuple[object, str]
Key = tuple[str, str, str]            # target, database, session that it is read through ("": dialled)


@dataclass(frozen=True, slots=True)
class _Kept:
    target: Target
    catalogue: object
    read: float                       # the loop's time
    version: int


class Catalogues:
    """Readings run in threads; what they raise becomes a reason."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._kept: dict[Key, _Kept] = {}
        self._running: dict[Key, asyncio.Task[Answer]] = {}
        self._next: dict[Key, asyncio.Task[Answer]] = {}
        self._readings = Readings(edge.loop, "catalogue", 2)
        self._version = 0

    async def load(
        self, context: Context, database: str, credential: Credential, stale: int, road: Road | None = None,
    ) -> Answer:
        """(catalogue, "") or (None, why not)."""
        key = (context.target.name, database, road.through if road is not None else "")
        kept = self._kept.get(_known(context.target, key))
        fresh = kept is not None and self._edge.loop.time() - kept.read < AGE
        if not stale and fresh and kept is not None and kept.target == context.target:
            return kept.catalogue, ""
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = self._start(key, context, credential, road)
        elif stale:
            if key not in self._next:
                self._next[key] = asyncio.create_task(self._after(running, key, context, credential, road))
            running = self._next[key]
        return await asyncio.shield(running)

    def lost_labels(self) -> int:
        """Labels that no database has a column for, of those that are known of their target."""
        lost: dict[str, set[str]] = {}
        targets = self._edge.configuration.targets if self._edge.configuration else {}
        for (target, _, _), kept in self._kept.items():
            if targets.get(target) == kept.target:
                found = set(getattr(kept.catalogue, "warnings", ()))
                lost[target] = lost[target] & found if target in lost else found
        return sum(map(len, lost.values()))

    def _start(
        self, key: Key, context: Context, credential: Credential, road: Road | None,
    ) -> asyncio.Task[Answer]:
        task = asyncio.create_task(self._load(key, context, credential, road))
        task.add_done_callback(lambda done: self._forget(key, done))
        return task

    def _forget(self, key: Key, done: asyncio.Task[Answer]) -> None:
        if self._running.get(key) is done:
            del self._running[key]

    async def _after(
        self, running: asyncio.Task[Answer], key: Key, context: Context, credential: Credential, road: Road | None,
    ) -> Answer:
        await asyncio.wait({running})
        del self._next[key]
        fresh = self._running[key] = self._start(key, context, credential, road)
        return await asyncio.shield(fresh)

    async def _load(self, key: Key, context: Context, credential: Credential, road: Road | None) -> Answer:
        database = key[1]
        wanted = context.target.options.get("catalogue_credential", "")
        if wanted:
            answer = await self._edge.asking.credential(context.target.name, database, wanted, ())
            if isinstance(answer, str):
                return None, answer
            credential = answer
        self._version += 1
        version = self._version
        try:
            found = await self._read(context, database, credential, version, road)
        except TimeoutError:
            return None, f"the catalogue of {database} could not be read within {LIMIT:.0f} seconds"
        except Exception as error:
            LOG.error("a catalogue of target %s could not be read: %s", context.target.name, type(error).__name__)
            return None, f"the catalogue of {database} could not be read: {type(error).__name__}"
        for warning in getattr(found, "warnings", ()):
            LOG.warning("target %s, database %s: %s", context.target.name, database, warning)
        self._keep(_known(context.target, key), _Kept(context.target, found, self._edge.loop.time(), version))
        return found, ""

    def _keep(self, key: Key, read: _Kept) -> None:
        if (before := self._kept.get(key)) is not None and before.version > read.version:
            return                    # what began later, another way, knows more
        while len(self._kept) >= MOST:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = read

    async def _read(
        self, context: Context, database: str, credential: Credential, version: int, road: Road | None,
    ) -> object:
        """One reading, recorded as a session of Weir's own."""
        target = context.target
        read = protocols.find(target.protocol).read_catalogue
        host = place(context, road)
        if read is None or not host:
            raise UpstreamError(f"target {target.name} has no catalogue that can be read")
        secure = None if target.tls == "disable" else self._edge.contexts.towards_server(target, credential)
        diary = Diary(self._edge, context, database, credential, host, "catalogue", road)
        texts = protocols.find(target.protocol).catalogue_statements()
        diary.open(texts or (f"the catalogue of {database}",), bool(texts))
        status = "error"
        try:
            async with asyncio.timeout(LIMIT), upstream.linked(road) as link:
                found = await self._readings.read(target.name, lambda: read(
                    host=host, port=target.port, credential=credential, database=database, ssl_context=secure,
                    labels=target.labels, version=version, link=link,
                ))
            status = "ok"
        finally:
            diary.close(status, f"the catalogue {'was' if status == 'ok' else 'could not be'} read")
        return found


def place(context: Context, road: Road | None) -> str:
    """Where a connection of Weir's own leads, "" where nothing can be dialled."""
    if road is not None:
        return context.principal.owner.destination
    return next(filter(upstream.dialable, upstream.addresses(context.target, context.principal.owner)), "")


def _known(target: Target, key: Key) -> Key:
    """Under which a reading is kept.  Without TLS nothing says that what is at a tunnel's other end is the target: what
    was read there is for the same session's tunnels only."""
    return key if target.tls == "disable" else (*key[:2], "")


class Diary:
    """What is recorded of a reading: a session of subject "weir", with its operations, before it begins and after."""

    def __init__(
        self, edge: Edge, context: Context, database: str, credential: Credential, host: str, verb: str,
        road: Road | None = None,
    ) -> None:
        self._edge, self._context, self._database, self._verb = edge, context, database, verb
        self._user, self._host, self._road = credential.user, host, road
        self._session, self._began = clock.session_name(), clock.monotonic()
        self._operations = 0

    def open(self, texts: tuple[str, ...], sent: bool) -> None:
        """`sent`: they are what is sent, word for word.  RecordingError where it cannot be recorded: then nothing is
        read."""
        commit, target = self._edge.commit, self._context.target
        if commit is None:
            raise RecordingError("there is no journal")
        commit.append(events.SessionOpened(
            events.SESSION_OPENED, clock.now(), self._began, self._session, target.protocol, target.name,
            self._database, self._user, "weir", (), "weir", os.getuid(), os.getpid(), "", "", (), "", 0,
            f"{self._host} {target.port}",
            "weir", "", f"{self._user}@{upstream.render_address(self._host, target.port)}", "weir", 0,
        ))
        if self._road is not None:
            commit.append(events.SessionNoted(
                events.SESSION_NOTED, clock.now(), clock.monotonic(), self._session, "through", self._road.through))
        for number, text in enumerate(texts, 1):
            self._intend(number, text.encode(), sent)
        commit.write_now()

    def _intend(self, number: int, text: bytes, sent: bool) -> None:
        commit = self._edge.commit
        assert commit is not None
        salt = os.urandom(16)
        named = make_digest(salt, text)
        forwarded = make_digest(self._context.forwarded_key, text) if sent else b""
        commit.append(events.Intent(
            events.INTENT, clock.now(), clock.monotonic(), self._session, number, "weir", self._verb, PERMIT,
            forwarded, named, b"", (), (), (), "", "", False,
        ), ((named, salt, text),))
        self._operations = number

    def close(self, status: str, reason: str) -> None:
        commit = self._edge.commit
        if commit is None:
            return
        took = clock.monotonic() - self._began
        for number in range(1, self._operations + 1):
            commit.append(events.Result(
                events.RESULT, clock.now(), clock.monotonic(), self._session, number, status, "", "", 0, 0, took, b"",
                b"", (), b"",
            ))
        commit.append(events.SessionClosed(
            events.SESSION_CLOSED, clock.now(), clock.monotonic(), self._session,
            reason, self._operations, 0, 0,
        ))
