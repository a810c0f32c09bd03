"""Whose a cgroup below the crews' slice is."""
from __future__ import annotations

from pathlib import Path

from agent.block.cgroups import cgroup_id
from agent.workload.survey import Survey


def test_a_turn_of_containers_is_their_workloads(tmp_path: Path) -> None:
    """The kernel counts by the cgroup that all of a workload's containers lie in."""
    slice_ = tmp_path / "weir.slice"
    for name in ("weir-my\\x2dcrew.slice", "weir-other.containers", "my-crew-7"):
        (slice_ / name / "libpod-1.scope").mkdir(parents=True)
    survey = Survey(slice_, tmp_path, "weir", ())

    def found(*parts: str) -> str:
        return survey.workload(cgroup_id(slice_.joinpath(*parts)))

    assert found("weir-my\\x2dcrew.slice") == "my-crew"
    assert found("weir-other.containers") == "other"
    assert [found(), found("my-crew-7"), found("weir-other.containers", "libpod-1.scope")] == ["", "", ""]
