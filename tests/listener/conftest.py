"""weir-crewai as it is, and the environment of the real crewai (requirements-crew.lock) to run it in."""
from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from listener.door import Door

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "packaging" / "weir-crewai"


@pytest.fixture(scope="session")
def listener() -> ModuleType:
    """The module, where there is no crewai: it attaches to nothing, and says nothing of it."""
    spec = importlib.util.spec_from_file_location("weir_crewai", SOURCE / "weir_crewai.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with Door(tmp_path / "reports") as made:
        yield made


@pytest.fixture(scope="session")
def crew_python() -> Path:
    python = Path(os.environ.get("WEIR_PREFIX", "/opt/weir")) / "crew" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{python} is not there: `./bootstrap test` makes it from requirements-crew.lock")
    return python


@pytest.fixture
def slow_socket(tmp_path: Path) -> Iterator[socket.socket]:
    """Accepts and never reads."""
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "slow"))
        one.listen()
        yield one
