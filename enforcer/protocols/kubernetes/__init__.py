"""Kubernetes: the API server's HTTP API."""
from __future__ import annotations

from typing import Final

from enforcer.core.context import Context
from enforcer.core.layer import Layer
from enforcer.protocols import Protocol


def _layer(context: Context) -> Layer:
    from enforcer.protocols.kubernetes.layer import KubernetesLayer

    return KubernetesLayer(context)


def _warm() -> None:
    from enforcer.policy.detectors import LABELS, make_detectors
    from enforcer.protocols.kubernetes.bodies.schema import find_message
    from enforcer.protocols.kubernetes.layer import KubernetesLayer as _KubernetesLayer  # noqa: F401 (all it imports)

    find_message("v1", "Pod")
    make_detectors(frozenset(LABELS.values()))


def _speaks(first: bytes) -> bool:
    """Never in plaintext."""
    return False


protocol: Final = Protocol("kubernetes", _layer, _speaks, warm=_warm)
