"""Completeness: whatever the API server says that it was asked is in the recording, and the other way round."""
from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from lab import kube_oracle
from lab.kube import SERVICE_USER, TARGET, KubeLab, kube_weir
from lab.weir import Installed

pytestmark = pytest.mark.lab

POLICY = """
@id("prod-in") permit (principal in Group::"data", action == Action::"connect", resource in Target::"prod");
@id("prod") permit (principal in Group::"data", action in Action::"k8s", resource in Target::"prod");
@id("not-frozen")
forbid (principal, action in Action::"k8s:write", resource in Target::"prod") when { resource.name == "frozen" };
"""
# 200 requests of ten kinds, twenty at a time; on each connection some.
MIXTURE = """
import concurrent.futures, http.client, json, ssl, sys
trust = ssl.create_default_context(cafile=sys.argv[2])
SHOP = "/api/v1/namespaces/shop"
KINDS = [
    ("GET", SHOP + "/pods?limit={n}", None), ("GET", SHOP + "/pods/web?x={n}", None),
    ("POST", SHOP + "/configmaps", {"metadata": {"name": "mixed-{n}"}}), ("GET", SHOP + "/secrets?limit={n}", None),
    ("PATCH", SHOP + "/configmaps/mixed-{n}", {"data": {"n": "{n}"}}), ("GET", "/version?n={n}", None),
    ("DELETE", SHOP + "/configmaps/mixed-{n}", None), ("DELETE", SHOP + "/configmaps/frozen?n={n}", None),
    ("GET", SHOP + "/pods?watch=1&timeoutSeconds=1&n={n}", None), ("GET", SHOP + "/pods/web/log?tailLines={n}", None)]

def work(n):
    one, said = http.client.HTTPSConnection(sys.argv[1], 6443, context=trust, timeout=60), []
    for method, path, body in KINDS:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        one.request(method, path.replace("{n}", str(n)), body and json.dumps(body).replace("{n}", str(n)),
                    {"Content-Type": kind} if body else {})
        answer = one.getresponse()
        answer.read()
        said.append(answer.status)
    return said

with concurrent.futures.ThreadPoolExecutor(20) as pool:
    print(json.dumps(list(pool.map(work, range(1, 21)))))
"""


@pytest.fixture(scope="module")
def weir(the_kube: KubeLab) -> Iterator[Installed]:
    with kube_weir(the_kube, POLICY) as installed:
        yield installed


def test_a_mixture_is_recorded_and_a_lost_event_is_found(weir: Installed, the_kube: KubeLab) -> None:
    since = the_kube.cluster.mark()
    done = weir.crew("python3", "-c", MIXTURE, "kube.lab.example", str(the_kube.lab.home / ".kube/ca.pem"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[200, 200, 201, 200, 200, 200, 200, 403, 200, 200]] * 20
    weir.settle()
    recorded = kube_oracle.recorded(weir.recording, TARGET)
    events = the_kube.cluster.audited(SERVICE_USER, since=since)
    assert (len(recorded), len(events)) == (180, 180)        # who was denied asked nothing
    assert not kube_oracle.complaints(recorded, events)
    for name in (next(iter(recorded)), next(reversed(recorded))):
        fewer = {one: what for one, what in recorded.items() if one != name}
        assert any("not recorded" in line for line in kube_oracle.complaints(fewer, events))
    assert any("was never asked" in line for line in kube_oracle.complaints(recorded, events[1:]))
