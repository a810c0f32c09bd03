"""Requests as bytes (tests/kube/cases/requests.toml): lengths that smuggle, odd chunks, headers that stand twice."""
from __future__ import annotations

import base64
import json
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "kube/cases/requests.toml"
REFUSE, READ, EITHER = "refuse", "read", "either"


@dataclass(frozen=True)
class Case:
    name: str
    raw: bytes                        # all that the client says on its connection
    weir: str                         # REFUSE | READ | EITHER: refused, or read as the server does
    server: int                       # requests that Go's server makes of it


def load() -> list[Case]:
    rows = tomllib.loads(FILE.read_text("utf-8"))["request"]
    return [Case(row["name"], _raw(row), row["weir"], row["server"]) for row in rows]


def _raw(row: dict[str, Any]) -> bytes:
    fill = "".join(row["fill"].replace("#", str(number)) for number in range(row["times"])) if "fill" in row else ""
    return str(row["raw"]).replace("@@", fill).encode("latin-1")


def ask_server(program: Path, cases: list[Case]) -> list[dict[str, Any]]:
    """What Go's own server says of each (tests/kube/requestinfo)."""
    lines = "".join(json.dumps({"raw": base64.b64encode(case.raw).decode()}) + "\n" for case in cases)
    run = subprocess.run([str(program)], input=lines, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in run.stdout.splitlines()]
