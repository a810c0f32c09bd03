"""Where bootstrap puts what rules and dashboard are checked by."""
from __future__ import annotations

import os
from pathlib import Path

import pytest

HOME = Path(os.environ.get("WEIR_PREFIX", "/opt/weir")) / "watching"


@pytest.fixture(scope="session")
def tools() -> Path:
    if not (HOME / "promtool").exists() or not (HOME / "node_modules").exists():
        pytest.skip(f"{HOME} is missing: ./bootstrap test installs it")
    return HOME
