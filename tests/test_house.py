"""Imports go one way (STYLE): a name on the left never imports one on the right."""
from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ORDER = [
    "words", "hot", "policy", "recording", "core", "http", "protocols", "identity", "approval", "credentials", "edge",
    "dns", "notify", "web", "metrics", "app",
]
PEERS = {("policy", "recording"), ("recording", "policy")}
EDGE_ONLY = {"asyncio", "socket", "sqlite3", "time", "bcc", "pyroute2", "uvloop", "ssl", "select", "subprocess"}
PURE = ["enforcer/words", "enforcer/hot", "enforcer/core", "enforcer/http", "enforcer/policy", "enforcer/protocols",
        "enforcer/approval", "enforcer/dns"]
# A pure folder's thin edges, each for one reason.
DOORS = {
    "enforcer/dns/service.py": {"asyncio"}, "enforcer/dns/server.py": {"asyncio", "socket"},
    "enforcer/dns/upstream.py": {"asyncio", "socket"},
    "enforcer/protocols/postgresql/connection.py": {"ssl"},
    "enforcer/protocols/ssh/wire.py": {"asyncio"},
}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def test_every_folder_has_its_place() -> None:
    assert {path.parent.name for path in (ROOT / "enforcer").glob("*/__init__.py")} <= set(ORDER)


def part(module: str) -> str:
    pieces = module.split(".")
    return pieces[1] if pieces[0] == "enforcer" and len(pieces) > 1 else ""


@pytest.mark.parametrize("path", sources("enforcer"), ids=lambda path: str(path.relative_to(ROOT)))
def test_enforcer_imports_go_one_way(path: Path) -> None:
    mine = path.relative_to(ROOT / "enforcer").parts[0].removesuffix(".py")
    for module in imported(path):
        other = part(module)
        if mine in ORDER and other in ORDER and (mine, other) not in PEERS:
            assert ORDER.index(other) <= ORDER.index(mine), f"{path.name} imports {module}"
        if module.split(".")[0] == "agent":
            assert module == "agent" or module.startswith("agent.contract"), f"{path.name} imports {module}"
        assert module.split(".")[0] != "probes", f"{path.name} imports {module}"


@pytest.mark.parametrize("path", sources(*PURE), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_pure_parts_do_no_io(path: Path) -> None:
    allowed = DOORS.get(str(path.relative_to(ROOT)), set())
    assert not ({module.split(".")[0] for module in imported(path)} & EDGE_ONLY) - allowed


@pytest.mark.parametrize("path", sources("agent", "probes"), ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_loader_imports_bcc(path: Path) -> None:
    assert path.name == "loader.py" or "bcc" not in {module.split(".")[0] for module in imported(path)}


@pytest.mark.parametrize("path", sources("probes"), ids=lambda path: str(path.relative_to(ROOT)))
def test_probes_know_nothing_of_the_agent(path: Path) -> None:
    assert not [module for module in imported(path) if module.split(".")[0] in ("agent", "enforcer")]


OPERATIONS = ROOT / "enforcer/protocols/postgresql/operations"
ROOMS = re.findall(r"^    (\w+)  ", (OPERATIONS / "__init__.py").read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", sorted(OPERATIONS.glob("[!_]*.py")), ids=lambda path: path.stem)
def test_a_room_imports_only_from_those_before_it(path: Path) -> None:
    """In the order in which the folder's docstring names them."""
    inside = "enforcer.protocols.postgresql.operations."
    others = {module.removeprefix(inside).split(".")[0] for module in imported(path) if module.startswith(inside)}
    assert others <= set(ROOMS[:ROOMS.index(path.stem)])
