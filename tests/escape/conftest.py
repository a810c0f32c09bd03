"""The server whose word is the verdict."""
from __future__ import annotations

from collections.abc import Iterator

import pytest
from escape.attempts import SINK
from escape.sink import Sink
from lab.hosts import DB
from lab.lab import Lab


@pytest.fixture(scope="module")
def sink(the_lab: Lab) -> Iterator[Sink]:
    with DB.entered():
        opened = Sink(SINK)
    with opened:
        yield opened
