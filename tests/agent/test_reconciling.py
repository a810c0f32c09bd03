"""How often the ledger looks at sockets, with a kernel and a clock in the test's hands."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent import reconciling
from agent.contract.ledger import REDIRECTED, Connect, LedgerAnswer
from agent.ledger import SECOND
from agent.reconciling import LONGEST, SHARE, Ledger

HOUR = 3600 * SECOND


class Kernel:
    """One look takes `takes`, nanoseconds."""

    def __init__(self) -> None:
        self.now, self.takes = HOUR, 0
        self.looks = {"foreign": 0, "tcp": 0}

    def uptime(self) -> int:
        return self.now

    def _look(self, what: str) -> list[Any]:
        self.looks[what] += 1
        self.now += self.takes
        return []

    def foreign_sockets(self, end: str) -> list[Any]:
        return self._look("foreign")

    def tcp_sockets(self) -> list[Any]:
        return self._look("tcp")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(reconciling, "uptime", made.uptime)
    return made


async def look(ledger: Ledger, what: str) -> None:
    if what == "foreign":
        await ledger.look("connection")
    else:
        one = Connect(1, 0, 0, 7, "crew", 9, "192.0.2.1 5432", REDIRECTED)
        await ledger.told(LedgerAnswer(1, (one,), 1, {}, {}, ()))


@pytest.mark.parametrize("what", ["foreign", "tcp"])
async def test_who_was_stopped_during_a_look_looks_again_soon(kernel: Kernel, tmp_path: Path, what: str) -> None:
    """Looks take one part of the time, also where a crew makes them long; but a host that was suspended during one, or
    an agent that was stopped, is not blind for so many times as long."""
    ledger: Any = Ledger(kernel, None, tmp_path, 15432, lambda *said: None,  # type: ignore[arg-type]
                         lambda: None, lambda: (0, True))
    kernel.takes = SECOND // 10
    await look(ledger, what)
    await look(ledger, what)
    assert kernel.looks[what] == 1
    kernel.now += SHARE * kernel.takes
    kernel.takes = 8 * HOUR
    await look(ledger, what)
    await look(ledger, what)
    assert kernel.looks[what] == 2
    kernel.now += LONGEST
    await look(ledger, what)
    assert kernel.looks[what] == 3
