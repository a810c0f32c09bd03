"""Everything is in pyproject.toml; here only: with WEIR_COMPILE=1 the hot modules are compiled by mypyc."""
from __future__ import annotations

import os
from pathlib import Path

from setuptools import setup


def hot_modules() -> list[object]:
    if os.environ.get("WEIR_COMPILE") != "1":
        return []
    from mypyc.build import mypycify

    paths = sorted(str(path) for path in Path("enforcer/hot").glob("*.py") if path.name != "__init__.py")
    return list(mypycify(paths, opt_level="3")) if paths else []


setup(ext_modules=hot_modules())
