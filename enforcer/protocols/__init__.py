"""One folder a protocol, found by name.

A folder's `__init__.py` holds `protocol`, a `Protocol` of this module: all that the edge has to know of it.  Adding a
folder touches nothing else.
"""
from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol as Interface

from agent.contract.credential import Credential
from agent.contract.target import ColumnLabel
from enforcer.core.context import Context
from enforcer.core.layer import Layer
from enforcer.words.commands import Explain
from enforcer.words.errors import ConfigError


class ReadCatalogue(Interface):
    def __call__(
        self, *, host: str, port: int, credential: Credential, database: str, ssl_context: object,
        labels: tuple[ColumnLabel, ...], version: int, link: object,
    ) -> object:
        """The protocol's own Catalogue, read by a connection of Weir's own.  Blocks: called in a thread.

        `host` may be the path of a Unix socket; `link` is a connected socket.socket that leads there,
        or None.  `ssl_context` is an ssl.SSLContext that verifies the target's name,
        or None for a target without TLS."""
        ...


class ReadPlan(Interface):
    def __call__(
        self, *, host: str, port: int, credential: Credential, database: str, ssl_context: object, explain: Explain,
        link: object,
    ) -> tuple[str, int]:
        """(how the target would do it, or why that is not shown; rows that it expects, -1: not known), by a connection
        of Weir's own that runs and changes nothing.  Blocks: called in a thread."""
        ...


@dataclass(frozen=True, slots=True)
class Protocol:
    """`speaks` says of a stream's first bytes (at least 8, or all there will be) that a client of this protocol sends
    them in plaintext; `tls_request` is what asks a server for TLS, answered by b"S"; `render_cancel` is the message
    that cancels (process, secret) on a connection of its own.  `catalogue_statements` gives what `read_catalogue`
    sends, for the recording; `plan_statements` the same of `read_plan`.  `warm` does what the first session would wait
    for, and all others with it; called in a thread."""

    name: str
    layer: Callable[[Context], Layer]
    speaks: Callable[[bytes], bool]
    tls_request: bytes = b""
    render_cancel: Callable[[int, bytes], bytes] | None = None
    read_catalogue: ReadCatalogue | None = None
    catalogue_statements: Callable[[], tuple[str, ...]] = tuple
    read_plan: ReadPlan | None = None
    plan_statements: Callable[[Explain], tuple[str, ...]] = lambda explain: ()
    warm: Callable[[], None] = lambda: None


def names() -> tuple[str, ...]:
    """Every protocol that there is a folder for."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg))


def spoken(first: bytes) -> str:
    """Name of the registered protocol whose plaintext a client's first bytes are, or ""."""
    return next((name for name in names() if find(name).speaks(first)), "")


def find(name: str) -> Protocol:
    """ConfigError where no folder has this name."""
    if name not in names():
        raise ConfigError("", 0, 0, f"no protocol {name!r}; there are: {', '.join(names())}")
    found = importlib.import_module(f"{__name__}.{name}").protocol
    if not isinstance(found, Protocol):
        raise ConfigError("", 0, 0, f"protocol {name!r} has no `protocol` entry")
    return found
