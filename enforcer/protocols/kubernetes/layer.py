"""Kubernetes: what the edge runs."""
from __future__ import annotations

from enforcer.core.context import Context
from enforcer.words.commands import Command
from enforcer.words.inputs import Input


class KubernetesLayer:
    """(being built on this branch by another hand)"""

    def __init__(self, context: Context) -> None:
        raise NotImplementedError

    state = "login"
    operations = 0

    def start(self) -> list[Command]:
        return []

    def receive(self, peer: int, data: bytes) -> list[Command]:
        return []

    def handle(self, event: Input) -> list[Command]:
        return []

    def refuse(self, error: Exception) -> list[Command]:
        return []
