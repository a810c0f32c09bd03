"""Requests over HTTP from within the host of tests/standin/host.py, by whichever user and cgroup."""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from standin.host import Host

# A browser of few words: what it sends, and one line of JSON with the answer.
ASK = """
import json, socket, sys
place, method, path, headers, body = json.loads(sys.argv[1])
try:
    if isinstance(place, str):
        one = socket.socket(socket.AF_UNIX); one.connect(place)
    else:
        one = socket.create_connection(tuple(place), 10)
    one.settimeout(20)
    lines = [f"{method} {path} HTTP/1.1", "Connection: close", *headers, f"Content-Length: {len(body)}", "", body]
    one.sendall("\\r\\n".join(lines).encode())
    raw = b""
    while piece := one.recv(65536):
        raw += piece
    head, _, text = raw.partition(b"\\r\\n\\r\\n")
    print(json.dumps([head.decode(), text.decode()]))
except OSError as reason:
    print(json.dumps([type(reason).__name__, ""]))
"""


def ask(host: Host, place: Any, method: str, path: str, *headers: str, body: str = "", user: int = 1000,
        cgroup: Path | None = None) -> tuple[str, str]:
    """Head and body of the answer, or what went wrong.  `place`: of a Unix socket, or address and port; `cgroup`: that
    the process which asks is in."""
    def enter() -> None:
        if cgroup is not None:
            (cgroup / "cgroup.procs").write_text("0")

    command = host.inside("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", sys.executable, "-c", ASK,
                          json.dumps([place, method, path, headers, body]))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, preexec_fn=enter, cwd="/")
    assert done.stdout, done.stderr
    head, text = json.loads(done.stdout)
    return head, text
