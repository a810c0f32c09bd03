"""kill -9 of the enforcer while a crew asks an API server one thing after another: whatever the server's audit log says
that it was asked is recorded, and work resumes."""
from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterator

import pytest
from lab.kube import ALL, KubeLab, kube_weir, overseen
from lab.weir import Installed

pytestmark = [pytest.mark.lab, pytest.mark.slow]

KILLS = int(os.environ.get("WEIR_KILLS", "12")) // 4
SEED = int(os.environ.get("WEIR_SEED", "0")) or random.SystemRandom().randrange(1 << 30)

# Reads and writes, on one connection after the other; a line for each answer.
LOAD = """
import http.client, itertools, json, ssl, sys, time
trust = ssl.create_default_context(cafile=sys.argv[2])
SHOP = "/api/v1/namespaces/shop"
for number in itertools.count():
    try:
        one = http.client.HTTPSConnection(sys.argv[1], 6443, context=trust, timeout=20)
        for turn in range(50):
            for method, path, body in (
                    ("GET", f"{SHOP}/pods/web?n={number}", None), ("GET", f"{SHOP}/secrets?n={number}", None),
                    ("PATCH", f"{SHOP}/configmaps/settings", {"data": {"n": f"{number}.{turn}"}})):
                one.request(method, path, body and json.dumps(body), {"Content-Type": "application/merge-patch+json"})
                answer = one.getresponse()
                answer.read()
                print(answer.status, flush=True)
    except (OSError, http.client.HTTPException):
        time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def killed(the_kube: KubeLab) -> Iterator[Installed]:
    with kube_weir(the_kube, ALL) as installed:
        yield installed


def goes_on(load: subprocess.Popen[str]) -> None:
    """Two hundred answers more, or a minute: between them and what was asked before lies a pipe."""
    assert load.stdout is not None
    ends, good = time.monotonic() + 60, 0
    while good < 200:
        assert time.monotonic() < ends, "work did not resume"
        good += load.stdout.readline().strip() in ("200", "201")


def test_nothing_that_the_server_was_asked_is_missing(killed: Installed, the_kube: KubeLab) -> None:
    chance = random.Random(SEED)
    print(f"WEIR_SEED={SEED}")
    command = killed.crew_argv("python3", "-c", LOAD, "kube.lab.example", str(the_kube.lab.home / ".kube/ca.pem"))
    with overseen(the_kube, killed):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=the_kube.lab.home,
                              env=the_kube.lab.client_environment()) as load:
            try:
                for _ in range(KILLS):
                    goes_on(load)
                    time.sleep(chance.uniform(0, 0.3))
                    killed.kill("enforcer")
                    killed.wait()
                goes_on(load)
            finally:
                load.kill()
