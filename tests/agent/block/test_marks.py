"""Marks after the hook that hands them on was away."""
from __future__ import annotations

import os
from pathlib import Path

from msgspec.structs import replace

from agent.block.marks import TICK, Task, corrections, is_marked, parent_and_began
from agent.workload.container import CONTAINER
from agent.workload.owners import Owners, Start

SINCE = 1000 * TICK
BEFORE, AFTER = SINCE - 5 * TICK, SINCE + 5 * TICK


def test_in_a_workloads_cgroup_it_is_that_workloads() -> None:
    tasks = [Task(10, 1, BEFORE, 0, 5), Task(11, 10, AFTER, 7, 5), Task(12, 11, AFTER, 5, 5)]
    assert corrections(tasks, SINCE) == {10: 5, 11: 5}


def test_what_is_in_the_slice_and_nobodys_is_left_as_it_is() -> None:
    """It is a crew's by its cgroup; a start that is not known yet sets its own mark."""
    assert corrections([Task(10, 1, AFTER, 7, 0)], SINCE) == {}


def test_a_process_of_the_host_is_no_crews() -> None:
    tasks = [Task(1, 0, 0, 0, None), Task(10, 1, AFTER, 7, None), Task(11, 10, AFTER + TICK, 7, None)]
    assert corrections(tasks, SINCE) == {10: 0, 11: 0}


def test_who_was_there_before_keeps_its_mark() -> None:
    assert corrections([Task(1, 0, 0, 0, None), Task(10, 1, BEFORE, 7, None)], SINCE) == {}


def test_a_child_of_a_crews_outside_of_the_slice_is_a_crews() -> None:
    tasks = [Task(10, 1, BEFORE, 7, None), Task(11, 10, AFTER, 0, None), Task(12, 11, AFTER, 9, None)]
    assert corrections(tasks, SINCE) == {11: 7, 12: 7}


def test_what_began_in_the_same_tick_began_since() -> None:
    assert corrections([Task(10, 1, SINCE - TICK // 2, 7, None)], SINCE) == {10: 0}


def test_numbers_that_went_round_in_one_tick() -> None:
    tasks = [Task(900, 1, BEFORE, 7, None), Task(3, 900, AFTER, 0, None), Task(2, 3, AFTER, 0, None)]
    fixed = corrections(tasks, SINCE)
    assert fixed[3] == 7
    again = [Task(900, 1, BEFORE, 7, None), Task(3, 900, AFTER, 7, None), Task(2, 3, AFTER, fixed.get(2, 0), None)]
    assert fixed | corrections(again, SINCE) == {3: 7, 2: 7}


def test_what_the_kernel_says() -> None:
    parent, began = parent_and_began(os.getpid())
    assert parent == os.getppid()
    assert parent_and_began(parent)[1] <= began


def test_units_and_containers_have_none(tmp_path: Path) -> None:
    for name, marked in (("crew-7", True), ("crew-7/below.service", True), ("crew.service", False),
                         ("crew@1.service/below", False), ("weir-crew.slice/libpod-1.scope", False),
                         ("weir-crew.containers/libpod-1", False)):
        assert is_marked(name) is marked
    owners = Owners(tmp_path / "owners.json")
    start = Start(7, "crew", 1000, "ada", (), "/weir.slice/crew-7", 1)
    for one in (start, replace(start, owner=8, cgroup="/weir.slice/crew.service", unit="crew.service"),
                replace(start, owner=9, cgroup="/weir.slice/weir-crew.slice/libpod-1.scope", network=CONTAINER)):
        owners.put(one)
    assert owners.marked() == {"/weir.slice/crew-7": 7}
    tasks = [Task(1, 0, 0, 0, None), Task(10, 1, AFTER, 7, None)]
    assert corrections(tasks, SINCE) == {10: 0}, "it was started by who has none"
