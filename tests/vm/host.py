"""What this host needs to reach package registries, read at run time so that the guest is given the same.

The guest sees this host's loopback as 10.0.2.2 (QEMU's user-mode network), which is where a proxy may listen.
"""
from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

HOST_SEEN_BY_GUEST: Final = "10.0.2.2"
VARIABLES: Final = re.compile(
    r"(?i)(https?_proxy|no_proxy|all_proxy|ssl_cert_(file|dir)|requests_ca_bundle|curl_ca_bundle|git_ssl_cainfo"
    r"|pip_(cert|proxy|index_url|extra_index_url|trusted_host|default_timeout|retries))")
APT: Final = ("Acquire::http", "Acquire::https", "Acquire::Check-Date", "Acquire::Check-Valid-Until",
              "Acquire::Retries")
LOCAL_AUTHORITIES: Final = Path("/usr/local/share/ca-certificates")
PIP: Final = Path("/etc/pip.conf")
_LOOPBACK: Final = re.compile(r"(?<=[/@])(localhost|127\.0\.0\.1|\[::1\])(?=[:/\"\s]|$)")


@dataclass(frozen=True)
class Files:
    """Texts to be written in the guest, as root, mode 0644; `authorities` are certificates beside Debian's own."""
    texts: dict[str, str] = field(default_factory=dict)
    authorities: dict[str, str] = field(default_factory=dict)


def seen_by_guest(text: str) -> str:
    return _LOOPBACK.sub(HOST_SEEN_BY_GUEST, text)


def apt_options() -> list[str]:
    """Lines as `apt-config dump` has them, only those about reaching a mirror."""
    if not Path("/usr/bin/apt-config").exists():
        return []
    done = subprocess.run(["apt-config", "dump", *APT], capture_output=True, text=True, check=True, timeout=60)
    return [line for line in done.stdout.splitlines() if '""' not in line]


def environment(variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    return {name: seen_by_guest(value) for name, value in sorted(variables.items()) if VARIABLES.fullmatch(name)}


def read() -> Files:
    lines = "".join(f"{name}={shlex.quote(value)}\n" for name, value in environment().items())
    texts = {"/etc/environment": lines, "/etc/sudoers.d/host": "Defaults env_file=/etc/environment\n",
             "/etc/apt/apt.conf.d/90host": seen_by_guest("\n".join(apt_options()) + "\n")}
    if PIP.exists():
        texts[str(PIP)] = seen_by_guest(PIP.read_text())
    found = LOCAL_AUTHORITIES.rglob("*.crt") if LOCAL_AUTHORITIES.is_dir() else []
    return Files(texts, {path.name: path.read_text() for path in found})
