"""Pure: connects of the crews, as the kernel tells of them, for the recording."""
from __future__ import annotations

from collections.abc import Callable, Iterable

from agent.block.kernel import Origin
from agent.contract.journal import HostEvent
from agent.journal import make_event
from agent.workload.owners import Start


def connect_events(
    origins: Iterable[Origin], whose: Callable[[Origin], Start | None],
) -> tuple[list[HostEvent], int]:
    """One event each, and of how many `whose` could not tell.  Those are nobody's, and the ledger asks who accounts for
    them as it does for the others: none is lost because another could not be told."""
    events, untold = [], 0
    for one in origins:
        wrong, start = "", None
        try:
            start = whose(one)
        except Exception as reason:   # whatever it is: it is looked up in what crews make
            wrong, untold = type(reason).__name__, untold + 1
        events.append(make_event("connect", start.workload if start else "", {
            "owner": one.owner, "pid": one.tgid, "destination": f"{one.destination} {one.port}", "hook": one.hook,
            "cookie": f"{one.cookie:x}", "verdict": one.verdict, **({"untold": wrong} if wrong else {})}))
    return events, untold
