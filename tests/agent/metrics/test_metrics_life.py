"""The metrics as a monitoring system has them: agent and metrics process as processes, real sockets, Prometheus's own
reader of the text, and crews that would read them too."""
from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from standin.host import CONFIG, Host
from standin.web import ask

from agent.contract.families import BY_NAME

pytestmark = pytest.mark.kernel

PLACE = ["127.0.0.1", 9464]


class Place:
    def __init__(self, host: Host) -> None:
        self.host = host

    @property
    def socket(self) -> str:
        return str(self.host.base / "run" / "metrics.sock")

    def ask(self, path: str, place: Any = None, cgroup: Path | None = None, user: int = 1000,
            named: str = "127.0.0.1:9464") -> tuple[str, str]:
        return ask(self.host, place or self.socket, "GET", path, f"Host: {named}", user=user, cgroup=cgroup)

    def figures(self, **how: Any) -> dict[tuple[str, ...], float]:
        head, text = self.ask("/metrics", **how)
        assert head.startswith("HTTP/1.1 200"), head
        assert "text/plain; version=" in head
        return {(sample.name, *(sample.labels[one] for one in BY_NAME[sample.name].labels)): sample.value
                for family in text_string_to_metric_families(text) for sample in family.samples}


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    host = Host(f"wm-{os.getpid() % 10000}")
    made = Place(host)
    try:
        host.write(CONFIG + '[metrics]\nlisten = "unix"\n')
        host.start()
        host.until(lambda: (host.status().get("metrics") or {}).get("error") == "", "the metrics")
        yield made
    finally:
        host.close()


def test_figures_are_of_this_weir(place: Place) -> None:
    found = place.figures()
    assert {name for name, *_ in found} <= set(BY_NAME)
    assert found["weir_state", "enforcing"] == 1
    assert found["weir_state", "degraded"] == 0
    assert found["weir_operations_total", "orders", "postgresql", "deny"] == 3
    assert found["weir_sessions_open", "orders", "postgresql"] == 1
    assert found["weir_connections_refused_total", "crew"] == 3
    assert found["weir_hold_oldest_age_seconds",] > 1e9, "it has waited since 1970"
    for process in ("agent", "enforcer", "recorder", "launcher", "metrics"):
        assert found["weir_process_resident_memory_bytes", process] > 1 << 20
    assert found["weir_process_up", "enforcer"] == 1
    assert found["weir_disk_free_bytes", "journal"] > 0
    assert found["weir_authority_expiry_timestamp_seconds", "orders", "servers"] > time.time()


def test_an_enforcer_makes_up_no_target(place: Place) -> None:
    assert not [one for one in place.figures() if "made up" in one]


def test_it_says_whether_it_works(place: Place) -> None:
    for path in ("/healthz", "/readyz"):
        head, text = place.ask(path)
        assert head.startswith("HTTP/1.1 200")
        assert text == "enforcing\n"
    assert place.host.weir("health").returncode == 0
    assert place.host.json("health") == {"state": "enforcing", "reason": "", "healthy": True, "serving": True}


def test_a_reload_that_came_to_nothing_is_counted(place: Place) -> None:
    before = place.figures()["weir_reloads_total", "refused"]
    right = place.host.file.read_text()
    place.host.file.write_text(right + "[nonsense]\n")
    assert place.host.weir("reload").returncode == 1
    place.host.file.write_text(right)
    assert place.figures()["weir_reloads_total", "refused"] == before + 1


def test_what_else_is_asked_is_said_no_to(place: Place) -> None:
    assert place.ask("/")[0].startswith("HTTP/1.1 404")
    head, _ = place.ask("/metrics", named="evil.example")
    assert head.startswith("HTTP/1.1 200"), "a Unix socket is reached by nobody's name"


def test_a_crew_is_refused_whatever_its_uid(place: Place) -> None:
    crews = place.host.slice / "test"
    crews.mkdir(exist_ok=True)
    weir = place.host.slice.with_name(f"{place.host.name}.weir") / "enforcer"
    for user in (0, 1000):
        assert place.ask("/metrics", cgroup=crews, user=user)[0] in ("ConnectionResetError", "BrokenPipeError", "")
    assert place.ask("/metrics", cgroup=weir, user=0)[0] in ("ConnectionResetError", "BrokenPipeError", ""), (
        "what crews have the enforcer connect to")
    place.host.until(lambda: len(place.host.events("metrics.refused")) >= 2, "refusals")
    assert {one["reason"] for one in place.host.events("metrics.refused")} == {
        "a crew may not speak to Weir's metrics", "what Weir's own processes connect for others ends here"}
    crews.rmdir()


def test_without_an_enforcer_it_is_not_healthy(place: Place) -> None:
    host = place.host
    before = place.figures()["weir_process_restarts_total", "enforcer"]
    codes = set()

    def said() -> str:
        """Again and again: it is started again, and longer waited for each time."""
        if pid := host.status()["enforcer"]["pid"]:
            host.kill(pid)
        codes.add(host.weir("health").returncode)
        head, text = place.ask("/healthz")
        return text if head.startswith("HTTP/1.1 503") and place.ask("/readyz")[0].startswith("HTTP/1.1 503") else ""

    text = host.until(said, "503")
    assert text.count("\n") == 1
    assert "enforcer" in text
    assert "killed by signal 9" in text
    assert codes <= {0, 1}
    assert 1 in codes
    host.until(lambda: host.weir("health").returncode == 0, "health")
    assert place.figures()["weir_process_restarts_total", "enforcer"] > before


def test_the_process_is_nobody_and_is_started_again(place: Place) -> None:
    before = place.host.status()["metrics"]["pid"]
    status = Path(f"/proc/{before}/status").read_text()
    assert "CapEff:\t0000000000000000" in status
    place.host.kill(before)
    place.host.until(lambda: (now := place.host.status()["metrics"])["pid"] not in (0, before) and not now["error"],
                     "another one")
    assert place.figures()["weir_process_restarts_total", "metrics"] >= 1


def test_a_reload_moves_it(place: Place) -> None:
    host = place.host
    host.write(CONFIG + '[metrics]\nlisten = "127.0.0.1:9464"\n')
    assert host.weir("reload").returncode == 0
    host.until(lambda: place.ask("/healthz", place=PLACE)[1] == "enforcing\n", "the address")
    assert not Path(place.socket).exists()
    assert place.figures(place=PLACE)["weir_state", "enforcing"] == 1
    assert place.ask("/metrics", place=PLACE, named="evil.example:9464")[0].startswith("HTTP/1.1 421")
    crews = host.slice / "test"
    crews.mkdir(exist_ok=True)
    assert "HTTP/1.1" not in place.ask("/metrics", place=PLACE, cgroup=crews)[0], "it is led to the enforcer"
    crews.rmdir()
    host.write(CONFIG)
    assert host.weir("reload").returncode == 0
    host.until(lambda: host.status()["metrics"] is None and place.ask("/healthz", place=PLACE)[0] ==
               "ConnectionRefusedError", "nothing")
