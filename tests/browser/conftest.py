"""Chromium, as the machine has it, and a stage that it looks at."""
from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser.stage import Served, Stage
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
AXE = Path(os.environ.get("WEIR_PREFIX", "/opt/weir")) / "browser/node_modules/axe-core/axe.min.js"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip("no Chromium: ./bootstrap test installs it")
    with sync_playwright() as playwright:
        # As root Chromium has no sandbox; what it is shown here is ours.
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        found = playwright.chromium.launch(executable_path=str(CHROMIUM), args=options)
        yield found
        found.close()


@pytest.fixture(scope="module")
def served() -> Iterator[Stage]:
    stage = Stage()
    server = Served(stage)
    yield stage
    stage.cut()
    server.close()


@pytest.fixture
def stage(served: Stage) -> Stage:
    """Empty again."""
    port, cuts = served.port, served._cuts
    served.__init__()  # type: ignore[misc]
    served.port, served._cuts = port, cuts + 1
    return served
