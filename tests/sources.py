"""Weir's packages where any user can read them: a clone may lie where only root can, in root's home for one."""
from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def copy_sources(to: Path) -> Path:
    """`to`, made, with what belongs on a PYTHONPATH."""
    to.mkdir(mode=0o755)
    for package in ("agent", "enforcer"):
        shutil.copytree(ROOT / package, to / package, ignore=shutil.ignore_patterns("__pycache__"))
    return to
