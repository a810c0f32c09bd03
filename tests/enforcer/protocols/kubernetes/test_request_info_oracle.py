"""Weir's reading against the API server's own function: tests/kube/requestinfo, which ./bootstrap builds."""
from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from kubepaths import accepted

from enforcer.protocols.kubernetes.info import Info

PROGRAM = Path(os.environ.get("WEIR_PREFIX", "/opt/weir")) / "kube/bin/requestinfo"
ASKED = 5_000
def server(asked: list[tuple[str, str]]) -> list[dict[str, Any]]:
    lines = "".join(json.dumps({"method": method, "url": target}) + "\n" for method, target in asked)
    run = subprocess.run([str(PROGRAM)], input=lines, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in run.stdout.splitlines()]


def told(info: Info) -> dict[str, Any]:
    return {
        "IsResourceRequest": info.is_resource, "Path": info.path, "Verb": info.verb, "APIPrefix": info.api_prefix,
        "APIGroup": info.group, "APIVersion": info.version, "Namespace": info.namespace, "Resource": info.resource,
        "Subresource": info.subresource, "Name": info.name, "Parts": list(info.parts) or None,
        "FieldSelector": info.field_selector, "LabelSelector": info.label_selector}


@pytest.mark.skipif(not PROGRAM.exists(), reason=f"no {PROGRAM}: ./bootstrap test builds it")
@pytest.mark.parametrize("seed", range(2))
def test_what_weir_accepts_the_server_reads_alike(seed: int) -> None:
    cases = list(accepted(seed, ASKED))
    assert len(cases) > ASKED / 3
    assert sum(bool(info.name) and info.verb in ("list", "watch") for *_, info in cases) > 50
    answers = server([(method, target) for method, *targets, _ in cases for target in targets])
    for number, (method, *targets, info) in enumerate(cases):
        for target, answer in zip(targets, answers[2 * number:], strict=False):
            assert answer.get("info") == told(info), (method, target)
