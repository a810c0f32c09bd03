"""What the agent knows, as samples: each family has its figures, and what is not known has none."""
from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from agent.contract import families
from agent.contract import ledger as words
from agent.contract.control import AuthorityView, ConfigurationView, LedgerView, ServiceView, Status, TargetView
from agent.contract.families import BY_NAME, FAMILIES
from agent.contract.ledger import Alarm
from agent.contract.messages import Figures, TargetFigures
from agent.metrics.figures import HOWS, Found, render_figures
from agent.metrics.places import Disk, Usage, look_at_disk, look_at_processes

NANO = 1_000_000_000
RUNS = ServiceView(7, NANO, 2)
STATUS = Status(
    "enforcing", (), "weir", 5 * NANO, 1, "x", True, (), RUNS, RUNS, 2048,
    (TargetView("orders", "postgresql", (), 5432, ()), TargetView("new", "ssh", (), 22, ())), (), (), {}, (),
    modes={"crew": "shadow"}, lsm="on: file_open", configuration=ConfigurationView("x", 6 * NANO, {}))
FOUND = Found(
    STATUS, Figures(1, {"holds": 2, "oldest_hold": 90 * NANO, "refused": 5, "refused_nobody": 2, "syncs": 4,
                        "sync_microseconds": 500_000, "asked": 9, "hold_denied": 3, "dns_failed": 1, "bugs": 1},
                    (TargetFigures("orders", 1, 2, 3, 4, 5, 6, 7, 8), TargetFigures("made up", *[9] * 8))),
    {"alarm": 1}, (), LedgerView(True, {"session": 3, "refused": 1}, 2, (), (
        Alarm(1, 1, words.UNACCOUNTED, "crew", {}), Alarm(2, 1, words.GLASS, "", {}))), 4,
    (AuthorityView("orders", "servers", "1f", "1970-01-01T00:01:00+00:00", False),
     AuthorityView("web", "hosts", "SHA256:x", "", False)),
    {"enforcer": RUNS, "recorder": ServiceView(0, 1, 3, "exit code 1")}, {"enforcer": Usage(4096, 1.5, 9)},
    Disk(100, 2, {"journal": 50, "recording": 60}), {"applied": 1, "refused": 2}, "0.1.0", 100 * NANO, 64, 16)


def rendered(found: Found = FOUND) -> dict[tuple[str, ...], float]:
    samples = render_figures(found)
    assert all(len(one.labels) == len(BY_NAME[one.family].labels) for one in samples)
    made = {(one.family.removeprefix("weir_"), *one.labels): one.value for one in samples}
    assert len(made) == len(samples), "one series twice"
    return made


def test_each_family_has_figures() -> None:
    assert {f"weir_{name}" for name, *_ in rendered()} == {one.name for one in FAMILIES}


def test_figures() -> None:
    found = rendered()
    assert found["sessions_open", "orders", "postgresql"] == 1
    assert [found["operations_total", "orders", "postgresql", one] for one in families.DECISIONS] == [3, 4, 5]
    assert found["hold_oldest_age_seconds",] == 10
    assert (found["connections_refused_total", "crew"], found["connections_refused_total", "nobody"]) == (3, 2)
    assert found["journal_sync_seconds_total",] == 0.5
    assert (found["process_up", "enforcer"], found["process_up", "recorder"]) == (1, 0)
    assert (found["problems", "alarm"], found["problems", "block"]) == (1, 0)
    assert (found["ledger_alarms", "unaccounted"], found["ledger_alarms", "foreign socket"]) == (1, 0)
    assert found["authority_expiry_timestamp_seconds", "orders", "servers"] == 60
    assert found["unenforced_workloads",] == 1
    assert not [key for key in found if "made up" in key or "new" in key]


def test_what_the_enforcer_does_not_say_is_not_zero() -> None:
    found = rendered(msgspec.structs.replace(FOUND, figures=None, ledger=LedgerView()))
    assert not [key for key in found if key[0].startswith(("sessions", "operations", "hold", "ledger", "recording_f"))
                and key[0] != "recording_files"]
    assert found["state", "enforcing"] == 1


@pytest.mark.parametrize(("state", "holes", "lsm", "whole"), [
    ("enforcing", (), "on: x", (1, 1, 1)), ("enforcing", (), "off: the kernel has none", (1, 1, 0)),
    ("degraded", ("nftables: chain x is missing",), "off: x", (1, 0, 0)),
    ("degraded", ("hook connect4: not attached",), "on: x", (0, 1, 1)),
    ("degraded", ("map owners: gone", "nftables: gone"), "on: x", (0, 0, 1)),
    ("starting", ("the probes and rules are not in place yet",), "on: x", (0, 0, 0))])
def test_layers(state: str, holes: tuple[str, ...], lsm: str, whole: tuple[int, ...]) -> None:
    status = msgspec.structs.replace(STATUS, state=state, lsm=lsm)
    found = rendered(msgspec.structs.replace(FOUND, status=status, holes=holes))
    assert tuple(found["layer_in_place", one] for one in families.LAYERS) == whole


def test_a_recorder_makes_no_series_without_end() -> None:
    many = LedgerView(True, {f"way {at}": 1 for at in range(1000)})
    assert sum(key[0] == "ledger_connects_total" for key in rendered(
        msgspec.structs.replace(FOUND, ledger=many))) == HOWS


def test_disk_and_processes_as_the_kernel_has_them(tmp_path: Path) -> None:
    (tmp_path / "recording-20260101T000000Z-1.sqlite").write_bytes(b"x" * 10)
    (tmp_path / "recording-20260101T000000Z-1.sqlite-wal").write_bytes(b"x" * 5)
    disk = look_at_disk(tmp_path / "gone", tmp_path)
    assert (disk.recording, disk.files, list(disk.free)) == (15, 1, ["recording"])
    found = look_at_processes({"this": os.getpid(), "none": 1 << 30})
    assert list(found) == ["this"]
    assert found["this"].memory > 1 << 20
    assert found["this"].seconds > 0
    assert found["this"].descriptors > 2
