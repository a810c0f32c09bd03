from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.block.cgroups import NFT_BASE, Slice, find_slice, is_inside, path_of, populated, processes

HYBRID = Slice(NFT_BASE / "unified" / "weir.slice", NFT_BASE / "unified")
UNIFIED = Slice(NFT_BASE / "weir.slice", NFT_BASE)


def test_paths_of_both_layouts() -> None:
    assert (HYBRID.level, HYBRID.nft_path, HYBRID.name) == (1, "unified/weir.slice", "/weir.slice")
    assert (UNIFIED.level, UNIFIED.nft_path, UNIFIED.name) == (1, "weir.slice", "/weir.slice")


@pytest.mark.parametrize(("path", "inside"), [
    ("/weir.slice", True), ("/weir.slice/a", True), ("/weir.slice/a/b (deleted)", True), ("/weir.slicer/a", False),
    ("/", False), ("/a/weir.slice", False), ("", False),
])
def test_inside(path: str, inside: bool) -> None:
    assert is_inside(HYBRID, path) is inside


def test_a_slice_that_is_not_there() -> None:
    one = find_slice(f"wt-none-{os.getpid()}")
    assert not populated(one.path)
    assert processes(one.path) == []
    assert Path("/sys/fs/cgroup") in one.path.parents


def test_my_own_path() -> None:
    assert path_of(os.getpid()).startswith("/")
    with pytest.raises(OSError, match="No such"):
        path_of(1 << 22)
