"""What another folder's conftest.py has, for tests elsewhere that need its hosts and scenes."""
from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent


def conftest_of(folder: str) -> Any:
    """The module, made anew; `folder` is below tests/."""
    name = f"conftest_of_{folder.replace('/', '_')}"
    spec = importlib.util.spec_from_file_location(name, TESTS / folder / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
