"""BPF LSM where the kernel has it, and the reason where it has not.  What its programs refuse: tests/vm/lsm.py."""
from __future__ import annotations

from pathlib import Path

import pytest
from blockhost import Block

from probes import btf, lsm
from probes.links import PlatformError


def test_why_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = tmp_path / "lsm"
    monkeypatch.setattr(lsm, "MODULES", modules)
    assert lsm.absent() == f"{modules}: No such file or directory"
    modules.write_text("capability,yama\n")
    assert "not among the kernel's security modules (capability,yama)" in lsm.absent()
    with pytest.raises(PlatformError, match="capability,yama"):
        lsm.flags(Path("/run/weir/control.sock"))
    modules.write_text("capability,bpf\n")
    assert lsm.absent() == ""


def test_offsets_are_the_kernels_own() -> None:
    if not Path("/sys/kernel/btf/vmlinux").exists():
        with pytest.raises(PlatformError, match="does not describe its types"):
            btf.offsets(lsm.MEMBERS)
        return
    found = btf.offsets([("list_head", ("next",)), ("list_head", ("before", "prev"))])
    assert found == {"list_head_next": 0, "list_head_before": 8}
    for wanted in (("list_head", ("other",)), ("no_such_struct", ("next",))):
        with pytest.raises(PlatformError, match=r"list_head has no other|no struct no_such_struct"):
            btf.offsets([wanted])


@pytest.mark.kernel
def test_the_block_says_what_it_has_of_it(block: Block) -> None:
    said = block.containment.lsm
    assert said.startswith(f"off: {lsm.absent()}") if lsm.absent() else said.startswith("on: socket_create")
    assert "not loaded" not in said
