"""Framing, rows and shapes compiled by mypyc give what the interpreted ones give: the same bytes, errors and bounds."""
from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from pglast.parser import parse_sql_json

from enforcer.hot import shape

ROOT = Path(__file__).resolve().parents[3]
SOURCES = ROOT / "enforcer/hot"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModuleType]:
    """The project's own way of building (setup.py), in a copy; the modules are loaded beside the interpreted ones."""
    place = tmp_path_factory.mktemp("compiled")
    shutil.copytree(SOURCES, place / "enforcer/hot", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (place / "enforcer/__init__.py").touch()
    shutil.copy(ROOT / "setup.py", place)
    named = ", ".join(f'"enforcer/hot/{name}.py"' for name in ("chain", "rows", "shape", "wire"))
    (place / "pyproject.toml").write_text(f"[tool.weir]\ncompiled = [{named}]\n", "utf-8")
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=place, check=True, capture_output=True,
        env={**os.environ, "WEIR_COMPILE": "1", "CFLAGS": "-O0"})
    modules = {}
    for name in ("wire", "rows", "shape"):
        (library,) = (place / "enforcer/hot").glob(f"{name}.*.so")
        modules[name] = _load(library, f"enforcer.hot.{name}", place)
    return modules


def _load(library: Path, name: str, place: Path) -> ModuleType:
    """Under its own name, for as long as it takes to load: mypyc looks its group's library up by name."""
    kept = {one: module for one, module in sys.modules.items() if one == "enforcer" or one.startswith("enforcer.hot")}
    for one in kept:
        del sys.modules[one]
    sys.path.insert(0, str(place))
    try:
        spec = importlib.util.spec_from_file_location(name, library)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(place))
        for one in [one for one in sys.modules if one == "enforcer" or one.startswith("enforcer.hot")]:
            del sys.modules[one]
        sys.modules.update(kept)


def streams(seed: int, count: int) -> list[list[bytes]]:
    """Conversations in pieces, some of them damaged."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        stream = bytearray()
        for _ in range(chance.randrange(12)):
            body = chance.randbytes(chance.choice((0, 1, 9, 60, 400)))
            stream += bytes([chance.choice(b"DDDQTdZ")]) + struct.pack("!I", len(body) + 4) + body
        if stream and chance.random() < 0.4:
            stream[chance.randrange(len(stream))] = chance.randrange(256)
        parts, at = [], 0
        while at < len(stream):
            size = chance.choice((1, 2, 5, 7, 64, 1000))
            parts.append(bytes(stream[at:at + size]))
            at += size
        found.append(parts)
    return found


def seen(framing: object, parts: list[bytes], back: bool) -> list[object]:
    told: list[object] = []
    for part in parts:
        data, places = framing.feed(part)  # type: ignore[attr-defined]
        told.append((data, places))
        if back and framing.owed and places and places[-1] and places[-4] == 0x44:  # type: ignore[attr-defined]
            framing.give_back(data)  # type: ignore[attr-defined]
        told.append((framing.owed, framing.owing, framing.tail, framing.error, framing.waiting))  # type: ignore[attr-defined]
    return told


@pytest.mark.parametrize("back", [False, True])
def test_framing(compiled: dict[str, ModuleType], back: bool) -> None:
    from enforcer.hot import wire

    assert compiled["wire"].__file__.endswith(".so")  # type: ignore[union-attr]
    assert wire.__file__ != compiled["wire"].__file__
    for parts in streams(1, 1500):
        for streamed in (b"", b"Dd"):
            one, other = (module.Framing(300, streamed, b"DQTdZ") for module in (wire, compiled["wire"]))
            assert seen(one, parts, back) == seen(other, parts, back)


def test_rows(compiled: dict[str, ModuleType]) -> None:
    from enforcer.hot import rows

    chance = random.Random(2)
    masks = [None, lambda value: b"hidden", lambda value: None, lambda value: value * 2]
    for _ in range(3000):
        chosen = chance.choices(masks, k=chance.randrange(5))
        data = bytearray()
        for _ in range(chance.randrange(4)):
            body = struct.pack("!H", len(chosen))
            for _ in chosen:
                value = chance.randbytes(chance.randrange(9))
                body += b"\xff\xff\xff\xff" if chance.random() < 0.2 else struct.pack("!I", len(value)) + value
            data += b"D" + struct.pack("!I", len(body) + 4) + body
        if data and chance.random() < 0.5:
            data[chance.randrange(len(data))] = chance.randrange(256)
        arguments = (bytes(data), 0, len(data), chosen)
        assert rows.rewrite(*arguments) == compiled["rows"].rewrite(*arguments)


def test_shapes(compiled: dict[str, ModuleType]) -> None:
    for text in ("SELECT a FROM t WHERE id = 5 LIMIT 1", "UPDATE t SET n = n + 5", "SELECT f(1)",
                 "SELECT " + "- " * 200 + "a", "INSERT INTO t VALUES (1 + 1, 'x')", "SET ROLE a",
                 "SELECT 1; SELECT 2", "SELECT count(*) FROM t, u"):
        one, other = (json.loads(parse_sql_json(text)) for _ in range(2))
        assert compiled["shape"].strip(one) == shape.strip(other)
        assert one == other
