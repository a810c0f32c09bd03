"""The collected requests are what they say; what of them is a matter of the target is refused by its reader."""
from __future__ import annotations

import os
from pathlib import Path

import pytest
from rawrequests import EITHER, READ, REFUSE, Case, ask_server, load

from enforcer.protocols.kubernetes.info import Unclear
from enforcer.protocols.kubernetes.request_info import read_info
from enforcer.protocols.kubernetes.target_path import parse_target

PROGRAM = Path(os.environ.get("WEIR_PREFIX", "/opt/weir")) / "kube/bin/requestinfo"
CASES = load()
OF_TARGETS = [case for case in CASES if case.weir == REFUSE and case.name in (
    "absolute form", "absolute form with another host", "authority form", "asterisk form", "a target with a fragment",
    "a target with a byte above 127", "two slashes in front", "an encoded slash", "dot segments",
    "a pair of the query that Go drops", "watch said twice")]


def test_each_has_a_name() -> None:
    assert len({case.name for case in CASES}) == len(CASES) > 100
    assert {case.weir for case in CASES} == {REFUSE, READ, EITHER}
    assert len(OF_TARGETS) == 11


@pytest.mark.skipif(not PROGRAM.exists(), reason=f"no {PROGRAM}: ./bootstrap test builds it")
def test_the_server_reads_them_so() -> None:
    answers = ask_server(PROGRAM, CASES)
    assert [(case.name, len(answer.get("served") or ())) for case, answer in zip(CASES, answers, strict=True)] == [
        (case.name, case.server) for case in CASES]


@pytest.mark.parametrize("case", OF_TARGETS, ids=lambda case: case.name)
def test_targets(case: Case) -> None:
    method, target, _ = case.raw.split(b"\r\n")[0].split(b" ")
    with pytest.raises(Unclear):
        path, query, _ = parse_target(target)
        read_info(method.decode(), path, query)
