"""One attempt: a token, and the command that tries to bring it to the sink."""
from __future__ import annotations

import uuid

from lab.hosts import DB
from lab.weir import PORT

SINK = 7007                           # a port of the database's host that no target names


def attempt(technique: str) -> tuple[str, list[str]]:
    token = f"token-{uuid.uuid4().hex}"
    return token, ["/usr/bin/python3", "techniques.py", technique, token, DB.ipv4, DB.ipv6, str(SINK), str(PORT)]
