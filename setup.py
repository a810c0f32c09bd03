"""Everything is in pyproject.toml; here only: with WEIR_COMPILE=1 the modules named there are compiled by mypyc."""
from __future__ import annotations

import os
import tomllib
from pathlib import Path

from setuptools import setup


def compiled_modules() -> list[object]:
    if os.environ.get("WEIR_COMPILE") != "1":
        return []
    from mypyc.build import mypycify

    named = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["tool"]["weir"]["compiled"]
    return list(mypycify(list(named), opt_level="3"))


setup(ext_modules=compiled_modules())
