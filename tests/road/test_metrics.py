"""The figures on the road: what a crew did with a real PostgreSQL stands in them, a crew does not read them, and an
enforcer that is gone is seen."""
from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from clients.test_clients import environment
from lab.hosts import CREW, RUNTIME, wait_until
from lab.lab import Lab
from lab.weir import Installed, configure, weir
from prometheus_client.parser import text_string_to_metric_families

from agent.contract.families import BY_NAME

pytestmark = pytest.mark.lab

URL = "http://127.0.0.1:9464"
METRICS = """
[metrics]
listen = "127.0.0.1:9464"
"""
CONNECT = """
import socket
try:
    one = socket.create_connection(("127.0.0.1", 9464), 5)
    one.settimeout(5)
    one.sendall(b"GET /metrics HTTP/1.1\\r\\nHost: 127.0.0.1:9464\\r\\nConnection: close\\r\\n\\r\\n")
    print(one.recv(100) or "closed")
except OSError as reason:
    print(type(reason).__name__)
"""
Figures = dict[tuple[str, ...], float]


@pytest.fixture(scope="module")
def host(the_lab: Lab) -> Iterator[Installed]:
    with weir(the_lab, configure(the_lab, more=METRICS)) as made:
        wait_until("the metrics", lambda: (made.status().get("metrics") or {}).get("error") == "", 30)  # type: ignore[attr-defined]
        yield made


def get(path: str) -> tuple[int, str]:
    with CREW.entered():
        answer = httpx2.get(URL + path, timeout=30)
    return answer.status_code, answer.text


def figures() -> Figures:
    status, text = get("/metrics")
    assert status == 200
    return {(sample.name, *(sample.labels[one] for one in BY_NAME[sample.name].labels)): sample.value
            for family in text_string_to_metric_families(text) for sample in family.samples}


def grown(before: Figures, *key: str) -> float:
    return figures().get(key, 0) - before.get(key, 0)


def sql(host: Installed, text: str) -> subprocess.CompletedProcess[str]:
    return host.crew("psql", "-X", "-A", "-t", "-w", "-c", text, environment=environment(host.lab, "wrong"))


def test_what_a_crew_did_stands_in_them(host: Installed) -> None:
    target = ("shop", "postgresql")
    before = figures()
    with host.overseen():
        assert sql(host, "SELECT 41").returncode == 0
        assert sql(host, "DROP TABLE orders").returncode != 0
        assert sql(host, "INSERT INTO notes VALUES (990001, 'watched') ON CONFLICT DO NOTHING").returncode in (0, 1)
    assert grown(before, "weir_sessions_total", *target) == 3
    assert grown(before, "weir_operations_total", *target, "permit") >= 1
    assert grown(before, "weir_operations_total", *target, "deny") >= 1
    assert grown(before, "weir_journal_events_total") > 0
    now = figures()
    assert now["weir_sessions_open", *target] == 0
    assert now["weir_state", "enforcing"] == 1
    assert now["weir_layer_in_place", "probes"] == now["weir_layer_in_place", "nftables"] == 1
    assert now["weir_recording_size_bytes",] > 0
    assert now["weir_recording_files",] >= 1
    assert sum(value for key, value in now.items() if key[0] == "weir_ledger_alarms") == 0
    assert get("/healthz") == get("/readyz") == (200, "enforcing\n")
    assert host.weir("health").stdout == "enforcing\n"


def test_a_crew_reads_nothing_of_it(host: Installed) -> None:
    done = host.crew("/usr/bin/python3", "-c", CONNECT, network="host")
    assert "HTTP/1.1" not in done.stdout, done.stdout
    assert done.stdout.strip(), done.stderr
    with host.inside("host") as inside:
        _, out, _ = inside.run_inside(["/usr/bin/python3", "-c", CONNECT])
    assert "HTTP/1.1" not in out


def test_promtool_finds_nothing_to_mend_in_what_is_served(host: Installed) -> None:
    promtool = Path(os.environ.get("WEIR_PREFIX", "/opt/weir")) / "watching" / "promtool"
    if not promtool.exists():
        pytest.skip("promtool is missing: ./bootstrap test installs it")
    done = subprocess.run([promtool, "check", "metrics"], input=get("/metrics")[1], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_an_enforcer_that_is_gone_is_seen(host: Installed) -> None:
    """It is started again at once: so it is frozen first, and then killed, again and again."""
    before = figures()["weir_process_restarts_total", "enforcer"]
    seen: list[str] = []

    def unhealthy() -> bool:
        host.kill("enforcer")
        status, text = get("/healthz")
        seen.append(text)
        return status == 503

    wait_until("503", unhealthy, 60)
    assert "enforcer" in seen[-1], seen
    assert seen[-1].count("\n") == 1
    wait_until("health", lambda: get("/healthz") == (200, "enforcing\n"), 60)
    assert figures()["weir_process_restarts_total", "enforcer"] > before
    assert json.loads(host.weir("health", "--json").stdout)["healthy"] is True
    assert RUNTIME in next(key[2] for key in figures() if key[0] == "weir_build_info")
