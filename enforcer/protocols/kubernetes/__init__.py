"""Kubernetes: the API server's HTTP API."""
from __future__ import annotations

from typing import Final

from enforcer.core.context import Context
from enforcer.core.layer import Layer
from enforcer.protocols import Protocol


def _layer(context: Context) -> Layer:
    from enforcer.protocols.kubernetes.layer import KubernetesLayer

    return KubernetesLayer(context)


def _speaks(first: bytes) -> bool:
    """Never in plaintext."""
    return False


protocol: Final = Protocol("kubernetes", _layer, _speaks)
