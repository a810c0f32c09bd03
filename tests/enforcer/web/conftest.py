"""The page on a stage."""
from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hostile import Hostile, hostile
from webstage import Stage, staged

__all__ = ["hostile"]


@pytest.fixture
async def stage(hostile: Hostile) -> AsyncIterator[Stage]:
    async with staged(hostile) as made:
        yield made
