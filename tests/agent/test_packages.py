"""What the product imports is what bootstrap installs: a machine that has more by chance does not show a lack."""
from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.commands import doctor

ROOT = Path(__file__).resolve().parents[2]
DEBIAN = {"bcc": "python3-bpfcc", "nftables": "python3-nftables", "seccomp": "python3-seccomp"}
NEWER = {"compression"}               # of Python 3.14, tried first
OWN = {"agent", "probes", "enforcer"}


def imported() -> set[str]:
    return {name for folder in OWN for path in (ROOT / folder).rglob("*.py") for name in names(path)} - NEWER - OWN


def names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (one.name.split(".")[0] for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]
        elif (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "import_module"
              and isinstance(node.args[0], ast.Constant)):
            yield str(node.args[0].value).split(".")[0]


def test_every_import_is_locked_or_a_package_of_debians() -> None:
    locked = set(re.findall(r"(?m)^([a-z0-9._-]+)==", (ROOT / "requirements.lock").read_text()))
    listed = re.search(r"RUNTIME_PACKAGES=\(([^)]*)\)", (ROOT / "bootstrap").read_text())
    assert listed
    packages, provides = set(listed[1].split()), importlib.metadata.packages_distributions()
    for name in sorted(imported() - set(sys.stdlib_module_names)):
        if name in DEBIAN:
            assert DEBIAN[name] in packages, f"{name} is imported, and bootstrap does not install {DEBIAN[name]}"
        else:
            found = {one.lower().replace("_", "-") for one in provides.get(name, ())}
            assert found & locked, f"{name} is imported, and requirements.lock does not have it"


def test_doctor_misses_the_binding_of_libseccomp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    found = doctor.libseccomp()
    assert found.state == doctor.FAIL
    assert "python3-seccomp" in found.advice
