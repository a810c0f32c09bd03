"""How targets would do what is held: asked on connections of Weir's own, at each target one after another.  Each is
recorded as a session.

A crew may hold many operations at once: what waits for a plan is bounded by what is held, and one that is answered
meanwhile is not asked about any more.
"""
from __future__ import annotations

import asyncio
import logging
from typing import Final

from agent.contract.credential import Credential
from enforcer import protocols
from enforcer.core.context import Context
from enforcer.edge import upstream
from enforcer.edge.catalogue import Diary, place
from enforcer.edge.edge import Edge
from enforcer.edge.readings import Readings
from enforcer.edge.upstream import Road
from enforcer.words.commands import Explain
from enforcer.words.errors import RecordingError, UpstreamError

LOG = logging.getLogger("weir.plans")

LIMIT: Final = 10.0                   # seconds that one may take


class Plans:
    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._readings = Readings(edge.loop, "plan", 1)
        self._turns: dict[str, asyncio.Lock] = {}      # of targets: a slow one keeps no other waiting

    async def add(
        self, context: Context, database: str, credential: Credential | None, explain: Explain, ticket: str,
        road: Road | None = None,
    ) -> None:
        """To what approvers see of this ticket: the plan, or why there is none."""
        async with self._turns.setdefault(context.target.name, asyncio.Lock()):
            holds = self._edge.holds
            if holds is None or not holds.is_waiting(ticket):
                return
            try:
                plan, rows = await self._read(context, database, credential, explain, road)
            except TimeoutError:
                plan, rows = f"not shown: the target did not say within {LIMIT:.0f} seconds", -1
            except Exception as error:
                LOG.warning("a plan of target %s could not be read: %s", context.target.name, type(error).__name__)
                plan, rows = f"not shown: it could not be read ({type(error).__name__})", -1
            holds.planned(ticket, plan, rows)
            self._edge.on_holds()

    async def _read(
        self, context: Context, database: str, credential: Credential | None, explain: Explain,
        road: Road | None,
    ) -> tuple[str, int]:
        target = context.target
        protocol = protocols.find(target.protocol)
        read = protocol.read_plan
        host = place(context, road)
        if read is None or not host or credential is None:
            raise UpstreamError(f"target {target.name} cannot be asked")
        if self._edge.commit is None or self._edge.commit.failure:
            raise RecordingError("nothing can be recorded")
        secure = None if target.tls == "disable" else self._edge.contexts.towards_server(target, credential)
        diary = Diary(self._edge, context, database, credential, host, "explain", road)
        diary.open(protocol.plan_statements(explain), True)
        status = "error"
        try:
            async with asyncio.timeout(LIMIT), upstream.linked(road) as link:
                found = await self._readings.read(target.name, lambda: read(
                    host=host, port=target.port, credential=credential, database=database, ssl_context=secure,
                    explain=explain, link=link))
            status = "ok"
        finally:
            diary.close(status, f"the plan of a held operation {'was' if status == 'ok' else 'could not be'} read")
        return found
