"""The block as fixtures: whole, and with either layer taken away."""
from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from blockhost import DNS, DNS4, HEADERS, NAME, PORT, SINK, Block, entered, namespaces
from escape.sink import Sink
from lab.hosts import wait_until

from agent.block import cgroups, nft
from agent.block.containment import Containment


@pytest.fixture(scope="module")
def block() -> Iterator[Block]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    _take_away_of_killed_runs()
    run = Path("/run") / NAME
    run.mkdir(mode=0o755)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, run)
        crew, server = stack.enter_context(namespaces())
        with entered(server):
            sink = stack.enter_context(Sink(SINK))
            stack.enter_context(Sink(DNS))
        stack.enter_context(entered(crew))
        containment = Containment(NAME, port=PORT, resolver=(DNS4, DNS), redirect=True, run=run, headers=HEADERS)
        made = Block(containment, run, server, sink)
        stack.callback(_take_away, made)
        containment.install()
        yield made


def _take_away_of_killed_runs() -> None:
    for run in Path("/run").glob("wt[0-9]*"):
        if not Path("/proc", run.name.removeprefix("wt")).exists():
            left = Containment(run.name, port=PORT, resolver=None, redirect=False, run=run, headers=run)
            if left.slice.exists():
                cgroups.kill(left.slice)
                wait_until("the slice is empty", lambda slice_=left.slice: not cgroups.populated(slice_))
            left.release()
            shutil.rmtree(run)
            for netns in Path("/run/netns").glob(f"{run.name}-*"):
                subprocess.run(["ip", "netns", "delete", netns.name], check=True)


def _take_away(made: Block) -> None:
    made.end()
    made.containment.release()


@pytest.fixture
def contained(block: Block) -> Iterator[Block]:
    """The block, whole before and after each test."""
    block.containment.remark({})
    assert block.containment.problems() == []
    block.containment.drain()
    yield block
    block.end()
    if block.containment.problems():
        block.containment.repair()
    block.containment.drain()
    assert block.containment.problems() == []


@pytest.fixture
def detached(contained: Block) -> Block:
    """nftables alone: every link is gone."""
    contained.containment.close()
    for pin in contained.containment.bpffs.glob("link_*"):
        pin.unlink()
    return contained


@pytest.fixture
def without_rules(contained: Block) -> Block:
    """The probes alone."""
    nft.delete_table(NAME)
    return contained


