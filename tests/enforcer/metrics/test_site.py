"""Which paths there are, for whom, and what they say."""
from __future__ import annotations

from typing import Any

import pytest

from agent.contract.families import Sample
from agent.contract.metrics import AskFigures, Figures, Health, HealthAnswer
from enforcer.frames import NoAnswer
from enforcer.metrics.site import Site

HOST = "127.0.0.1:9464"


class Agent:
    def __init__(self, health: Health | None) -> None:
        self.health = health

    async def ask(self, question: Any, wanted: type[Any]) -> Any:
        if self.health is None:
            raise NoAnswer("the agent does not answer")
        if isinstance(question, AskFigures):
            return Figures(1, (Sample("weir_locks", (), 2),))
        return HealthAnswer(1, self.health)


async def get(path: str, health: Health | None = None, host: str = HOST, method: str = "GET", local: bool = False,
              ) -> tuple[int, str]:
    said: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    await Site(Agent(health).ask, local)(
        {"method": method, "path": path, "headers": [(b"host", host.encode())]}, None, send)
    return said[0]["status"], said[1]["body"].decode()


FINE = Health("enforcing", "", True)


@pytest.mark.parametrize(("health", "healthy", "ready", "line"), [
    (FINE, 200, 200, "enforcing\n"),
    (Health("enforcing", "enforcer: nothing can be recorded", False), 503, 503,
     "enforcing: enforcer: nothing can be recorded\n"),
    (Health("degraded", "a rule is missing", True), 503, 200, "degraded: a rule is missing\n"),
    (Health("blocked", "recorder: ended", False), 503, 503, "blocked: recorder: ended\n"),
    (Health("starting", "crews are cut off until it says enforcing", False), 503, 503,
     "starting: crews are cut off until it says enforcing\n"),
    (None, 503, 503, "the agent does not answer\n"),
])
async def test_health(health: Health | None, healthy: int, ready: int, line: str) -> None:
    assert await get("/healthz", health) == (healthy, line)
    assert await get("/readyz", health) == (ready, line)


async def test_figures() -> None:
    status, text = await get("/metrics", FINE)
    assert (status, "weir_locks 2.0" in text) == (200, True)
    assert await get("/metrics", FINE, method="HEAD") == (200, "")
    assert (await get("/metrics"))[0] == 503


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::1]:9464", "localhost:9464", "LOCALHOST", HOST,
                                  "127.0.0.5:9464"])
async def test_an_address_of_this_host_is_answered(host: str) -> None:
    assert (await get("/metrics", FINE, host))[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9464", "", "127.0.0.1.evil.example:9464", "::1:9464",
                                  "10.0.0.1:9464", "127.1", "2130706433"])
async def test_another_name_is_not(host: str) -> None:
    """Else a page of anybody's in a browser on this host reads it, by a name that leads here."""
    assert (await get("/metrics", FINE, host))[0] == 421
    assert (await get("/metrics", FINE, host, local=True))[0] == 200


async def test_nothing_else_is_there() -> None:
    assert (await get("/", FINE))[0] == 404
    assert (await get("/metrics/", FINE))[0] == 404
    assert (await get("/metrics", FINE, method="POST"))[0] == 405
