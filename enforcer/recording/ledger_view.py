"""`weir ledger --recording`: the ledger from a recording alone, without the agent's word on what is open."""
from __future__ import annotations

from pathlib import Path
from typing import Final

from agent.contract.control import LedgerView
from agent.contract.ledger import UNACCOUNTED, Alarm, Connect
from enforcer.recording import ledger
from enforcer.recording.cli import reading
from enforcer.recording.read import ledger_events
from enforcer.words.events import HOST

ANY: Final = 1 << 63
SETTLED: Final = 120 * 10**9          # nanoseconds in which an agent has judged what its predecessor left
HOUR: Final = 3600 * 10**9


def recorded(place: Path) -> LedgerView:
    """What nobody accounts for is told also where no agent said so: after an hour, or where the agent has started again
    since and has gone on for a while.  Raises click.ClickException."""
    with reading(place, "read", {"what": "ledger"}) as reader:
        book, last, started = ledger.Book(forget=False), 0, 0
        for seq, event in ledger_events(reader.dbs):
            book.see(seq, event)
            last = max(last, event.at)
            if event.kind == HOST and event.name == "agent.started":
                started = event.at
        whole = book.open(ANY)
        before = started if last - started > SETTLED else 0
        late = tuple(one for one in whole if one.at < max(before, last - HOUR))
        alarms = (*book.alarms, *map(_nobody, late), *book.glass)
        counts = dict(book.counts) | {"unaccounted": book.counts["unaccounted"] + len(late)}
        waiting = tuple(one for one in whole if one not in late)
        return LedgerView(True, counts, len(waiting), waiting, alarms)


def _nobody(one: Connect) -> Alarm:
    return Alarm(one.seq, one.at, UNACCOUNTED, one.workload, {
        "cookie": f"{one.cookie:x}", "connect": str(one.seq), "destination": one.destination, "pid": str(one.pid),
        "why": "no event accounts for it", "peer": ""})
