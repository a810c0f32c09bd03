"""Masks that come back in a write, and writes that would tell what is masked."""
from __future__ import annotations

from typing import Any

from agent.contract.target import Target
from enforcer.protocols.kubernetes.info import Info


def returned_masks(value: Any, info: Info, target: Target) -> list[str]:
    return []
