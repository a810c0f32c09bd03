"""What other users are given to read: a clone may lie where only root can, in root's home for one."""
from __future__ import annotations

import shutil
import stat
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def open_way(path: Path) -> None:
    """Anybody may come to this directory of pytest's: it and the two above it, which are pytest's as well, or with
    --basetemp /tmp itself: nothing is taken away from it."""
    for one in (path, *path.parents[:2]):
        one.chmod(stat.S_IMODE(one.stat().st_mode) | 0o755)


def copy_sources(to: Path) -> Path:
    """`to`, made, with Weir's packages: what belongs on a PYTHONPATH."""
    to.mkdir(mode=0o755)
    for package in ("agent", "enforcer", "probes"):
        shutil.copytree(ROOT / package, to / package, ignore=shutil.ignore_patterns("__pycache__"))
    return to
