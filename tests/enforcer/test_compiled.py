"""What is installed is compiled, of these very sources, and behaves as they do: the layer's own tests, over it.

Slices that end before they begin, constants of other modules and arguments of classes are where mypyc differs.
"""
from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPILED = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["weir"]["compiled"]
SITE = Path(os.environ.get("WEIR_PREFIX", "/opt/weir")) / "venv/lib/python3.11/site-packages"
TESTS = "tests/enforcer/protocols/postgresql"
# These set another value for a constant, which compiled modules have in them.
CONSTANTS = "not test_names_of_sql_are_forgotten_in_the_end and not test_shapes_are_bounded"


@pytest.mark.parametrize("path", COMPILED)
def test_it_is_installed_compiled(path: str) -> None:
    assert (SITE / path).read_bytes() == (ROOT / path).read_bytes(), "not installed from here: ./bootstrap install"
    assert list((SITE / path).parent.glob(f"{Path(path).stem}.*.so"))


@pytest.mark.parametrize("path", COMPILED)
def test_no_struct_of_msgspec_is_compiled(path: str) -> None:
    """mypyc drops the arguments of a class: array_like and frozen would be lost without a word."""
    assert not re.search(r"(?m)^ *class .*Struct\b", (ROOT / path).read_text("utf-8"))


@pytest.mark.parametrize("tests", [
    ["test_layer.py", "test_layer_empty.py"], ["test_layer_attacks.py"],
    pytest.param(["test_judge_shapes.py", "../test_conformance.py"], marks=pytest.mark.slow),      # half a minute
    ["../../policy/test_policy_masks.py", "../../recording/test_journal.py"],
], ids=lambda tests: Path(tests[0]).stem)
def test_compiled_behaves_as_it_reads(tests: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "pythonpath=tests",
         "-k", CONSTANTS, *(f"{TESTS}/{one}" for one in tests)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(SITE)}, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    which = subprocess.run(
        [sys.executable, "-P", "-c", "from enforcer.protocols.postgresql import conversation as c; print(c.__file__)"],
        cwd="/", env={**os.environ, "PYTHONPATH": str(SITE)}, capture_output=True, text=True, timeout=60, check=True)
    assert which.stdout.strip().endswith(".so")
