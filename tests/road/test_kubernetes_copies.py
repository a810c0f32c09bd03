"""kubectl cp of much, both ways, over WebSocket and SPDY: what arrives is what left, as often as without Weir."""
from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.kube import KUBECTL, OLD_KUBECTL, KubeLab, kube_weir, overseen
from lab.weir import Installed

pytestmark = [pytest.mark.lab, pytest.mark.slow]

SIZE = 50 << 20
TIMES = 5
WAYS = pytest.mark.parametrize("way", ["weir", "direct"])
BOTH = pytest.mark.parametrize("kubectl", [KUBECTL, OLD_KUBECTL], ids=["of today", "1.20"])


@pytest.fixture(scope="module")
def broad(the_kube: KubeLab) -> Iterator[Installed]:
    with kube_weir(the_kube) as installed:
        yield installed


def digest(path: Path) -> str:
    return f"{path.stat().st_size} {hashlib.sha256(path.read_bytes()).hexdigest()}" if path.exists() else "missing"


@pytest.fixture
def given(the_kube: KubeLab) -> Path:
    path = the_kube.lab.home / "much"
    path.write_bytes(os.urandom(SIZE))
    path.chmod(0o644)
    return path


@WAYS
@BOTH
def test_from_the_pod(broad: Installed, the_kube: KubeLab, given: Path, way: str, kubectl: str) -> None:
    there, back = the_kube.cluster.container() / "tmp/much", the_kube.lab.home / "back"
    there.write_bytes(given.read_bytes())
    wrong = []
    for number in range(TIMES):
        back.unlink(missing_ok=True)
        done = run(broad, the_kube, way, kubectl, "cp", "web:/tmp/much", "back")
        if digest(back) != digest(given):
            wrong.append(f"{number}: {done} {digest(back)}")
    assert not wrong, f"of {digest(given)}: " + "\n".join(wrong)


@WAYS
@BOTH
def test_to_the_pod(broad: Installed, the_kube: KubeLab, given: Path, way: str, kubectl: str) -> None:
    there = the_kube.cluster.container() / "tmp/taken"
    wrong = []
    for number in range(TIMES):
        there.unlink(missing_ok=True)
        done = run(broad, the_kube, way, kubectl, "cp", "much", "web:/tmp/taken")
        if digest(there) != digest(given):
            wrong.append(f"{number}: {done} {digest(there)}")
    assert not wrong, f"of {digest(given)}: " + "\n".join(wrong)


def run(installed: Installed, made: KubeLab, way: str, *words: str) -> tuple[int, str]:
    if way == "weir":
        with overseen(made, installed):
            done = installed.crew(*words)
    else:
        done = made.control(*words)
    return done.returncode, done.stderr[-500:]


SLOW = """
import sys, time
size = time.sleep(8) or 0
while data := sys.stdin.buffer.read1(65536):
    size += len(data)
    time.sleep(len(data) / 500_000)
print(size)
"""


def test_a_reader_that_is_late_and_slow_gets_all(broad: Installed, the_kube: KubeLab) -> None:
    """The server is done, and closes, long before its client has read what Weir still has."""
    sizes = [200_000, 1_000_000, 2_500_000, 5_000_000]
    for size in sizes:
        (the_kube.cluster.container() / f"tmp/{size}").write_bytes(os.urandom(size))
    reader = the_kube.lab.home / "slow.py"
    reader.write_text(SLOW)
    one = '{kubectl} exec web -- cat /tmp/{size} | python3 ~/slow.py >~/{name}{size} &'
    lines = [one.format(kubectl=kubectl, size=size, name=name) for size in sizes
             for name, kubectl in (("new", KUBECTL), ("old", OLD_KUBECTL))]
    with overseen(the_kube, broad):
        done = broad.crew("bash", "-c", "\n".join([*lines, "wait"]), timeout=100)
    assert [(name, size, (the_kube.lab.home / f"{name}{size}").read_text().strip()) for name in ("new", "old")
            for size in sizes] == [(name, size, str(size)) for name in ("new", "old") for size in sizes], done.stderr


def test_many_at_once(broad: Installed, the_kube: KubeLab, given: Path) -> None:
    (the_kube.cluster.container() / "tmp/much").write_bytes(given.read_bytes())
    names = [f"back{number}" for number in range(6)]
    with overseen(the_kube, broad):
        broad.crew("bash", "-c", "\n".join(
            [*(f"{KUBECTL} cp web:/tmp/much {name} &" for name in names), "wait"]), timeout=110)
    assert [digest(the_kube.lab.home / name) for name in names] == [digest(given)] * len(names)
