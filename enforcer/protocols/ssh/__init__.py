"""SSH 2 (RFC 4251 to 4254)."""
from __future__ import annotations

from typing import Final

from enforcer.core.context import Context
from enforcer.core.layer import Layer
from enforcer.protocols import Protocol


def _layer(context: Context) -> Layer:
    # Reading this folder's name needs no cryptography.
    from enforcer.protocols.ssh.layer import SshLayer

    return SshLayer(context)


def _warm() -> None:
    from enforcer.policy.detectors import LABELS, make_detectors
    from enforcer.protocols.ssh import wire
    from enforcer.protocols.ssh.layer import SshLayer as _SshLayer  # noqa: F401 (all that it imports)
    from enforcer.protocols.ssh.shell.analysis import analyse_line

    analyse_line(b"true")
    make_detectors(frozenset(LABELS.values()))
    wire.quiet()


def _speaks(first: bytes) -> bool:
    return first.startswith(b"SSH-")


protocol: Final = Protocol("ssh", _layer, _speaks, warm=_warm)
