"""The edge to libnftables (Debian's python3-nftables), in the calling thread's network namespace."""
from __future__ import annotations

import importlib
import os
import socket
import struct
from typing import Any, Final

from agent.block.ruleset import Ruleset, render_table
from probes.links import PlatformError

_NETLINK_NETFILTER: Final = 12
_GET_GENERATION, _NEW_GENERATION = 0x0A10, 0x0A0F    # NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_{GET,NEW}GEN
_HEADER: Final = struct.Struct("=IHHII")
_GENERATION_AT: Final = 24            # behind both headers and the first attribute's, NFTA_GEN_ID


def generation() -> int:
    """Another number after each change to any rule of the calling thread's network namespace (linux/netfilter/
    nf_tables.h).  Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as link:
        link.settimeout(5.0)
        link.send(_HEADER.pack(20, _GET_GENERATION, 1, 1, 0) + bytes(4))       # NLM_F_REQUEST; struct nfgenmsg
        answer = link.recv(4096)
    if len(answer) < _GENERATION_AT + 4 or _HEADER.unpack_from(answer)[1] != _NEW_GENERATION:
        number = -struct.unpack_from("=i", answer.ljust(20, b"\0"), 16)[0]
        raise OSError(number, f"nftables' generation: {os.strerror(number)}")
    return int(struct.unpack_from("!I", answer, _GENERATION_AT)[0])


def apply_table(rules: Ruleset) -> None:
    """In one transaction: the table is the old one, then the new one, and never none.  Raises PlatformError."""
    name = f"table inet {rules.name}"
    _command(f"{name}\ndelete {name}\n{render_table(rules)}")


def list_table(name: str) -> str:
    """Without counters; empty where it is not there.  Raises PlatformError."""
    return _list("inet", name)


def list_ruleset() -> str:
    """Every table of the network namespace.  Raises PlatformError."""
    return _command("list ruleset")


def delete_table(name: str) -> None:
    """Also where it is not there.  Raises PlatformError."""
    _command(f"table inet {name}\ndelete table inet {name}")


def apply_netdev(name: str, text: str) -> None:
    """A whole table of family netdev, in one transaction.  Raises PlatformError."""
    _command(f"table netdev {name}\ndelete table netdev {name}\n{text}")


def list_netdev(name: str) -> str:
    """Empty where it is not there.  Raises PlatformError."""
    return _list("netdev", name)


def delete_netdev(name: str) -> None:
    """Also where it is not there.  Raises PlatformError."""
    _command(f"table netdev {name}\ndelete table netdev {name}")


def _list(family: str, name: str) -> str:
    there = f"table {family} {name}" in _command("list tables").splitlines()
    return _command(f"list table {family} {name}") if there else ""


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
