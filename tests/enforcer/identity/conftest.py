"""A provider that lies."""
from __future__ import annotations

from hostile import hostile

__all__ = ["hostile"]
