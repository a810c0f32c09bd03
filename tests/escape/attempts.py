"""One attempt: a token, and the command that tries to bring it to the server."""
from __future__ import annotations

import uuid
from pathlib import Path

from lab.hosts import CREW, DB, RUNTIME, Host
from lab.weir import PORT

from agent.techniques import Where

HERE = Path(__file__).resolve().parent
TECHNIQUES = HERE.parents[1] / "agent" / "techniques"
SINK = 7007                           # a port of the database's host that no target names
CALLS = 7011                          # which the server dials; and the next one


def where(host: Host, **more: str | int) -> Where:
    """`host`: where the attempt is made."""
    said: dict[str, str | int] = {
        "host4": DB.ipv4, "host6": DB.ipv6, "port": SINK, "listener": PORT, "own4": host.ipv4, "own6": host.ipv6,
        "calls": CALLS, "run": f"/run/{RUNTIME}", "table": RUNTIME}
    return Where(**(said | more))  # type: ignore[arg-type]


def attempt(technique: str) -> tuple[str, list[str]]:
    """For a process whose working directory holds `techniques`."""
    token = f"token-{uuid.uuid4().hex}"
    return token, ["/usr/bin/python3", "-m", "techniques", technique, token, *where(CREW).words()]
