"""The edge to libnftables (Debian's python3-nftables), in the calling thread's network namespace."""
from __future__ import annotations

import importlib
from typing import Any

from agent.ruleset import Ruleset, render_table
from probes.links import PlatformError


def apply_table(rules: Ruleset) -> None:
    """In one transaction: the table is the old one, then the new one, and never none.  Raises PlatformError."""
    name = f"table inet {rules.name}"
    _command(f"{name}\ndelete {name}\n{render_table(rules)}")


def list_table(name: str) -> str:
    """Without counters; empty where it is not there.  Raises PlatformError."""
    if f"table inet {name}" not in _command("list tables").splitlines():
        return ""
    return _command(f"list table inet {name}")


def list_ruleset() -> str:
    """Every table of the network namespace.  Raises PlatformError."""
    return _command("list ruleset")


def delete_table(name: str) -> None:
    """Also where it is not there.  Raises PlatformError."""
    _command(f"table inet {name}\ndelete table inet {name}")


def _command(text: str) -> str:
    try:
        library: Any = importlib.import_module("nftables").Nftables()
    except (ImportError, OSError) as reason:
        raise PlatformError(f"libnftables cannot be used: {reason}; apt-get install python3-nftables") from None
    library.set_stateless_output(True)
    library.set_numeric_prio_output(True)
    code, output, error = library.cmd(text)
    if code != 0:
        raise PlatformError(f"nftables: {str(error).strip().splitlines()[0] if str(error).strip() else code}")
    return str(output)
