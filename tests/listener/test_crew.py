"""The listener in the real crewai: when a tool runs, Weir has been told which; of two at once, both."""
from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from listener.conftest import SOURCE

HERE = Path(__file__).resolve().parent
ENVIRONMENT = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONWARNINGS": "ignore"}


def call(tool: str, task: str = "t1") -> list[str]:
    return ["shop", "Analyst", task, tool]


def run(python: Path, directory: Path, mode: str) -> list[Any]:
    done = subprocess.run(
        [str(python), str(HERE / "crew.py"), str(directory / "socket"), mode], capture_output=True, text=True,
        env={**ENVIRONMENT, "PYTHONPATH": str(SOURCE), "HOME": str(directory)}, cwd=directory, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    [line] = [line for line in done.stdout.splitlines() if line.startswith("TOLD ")]
    return list(json.loads(line.removeprefix("TOLD ")))


@pytest.mark.parametrize(("mode", "task"), [
    ("sync", "t2"), pytest.param("async", "t1", marks=pytest.mark.slow), ("thread", "t1")])
def test_one_and_two_at_once(crew_python: Path, tmp_path: Path, mode: str, task: str) -> None:
    """Also where the bus' own pool has no time (thread): the statement that a tool sends comes after its report."""
    told = run(crew_python, tmp_path, mode)
    assert [who for who, _ in told] == ["alone", "first", "fails", "end"]
    assert told[0][1] == [call("alone")]
    assert sorted(told[1][1]) == [call("first", task), call("second", task)]
    assert told[2][1] == [call("fails", task)]
    assert told[3][1] == []


@pytest.mark.slow
def test_a_model_without_function_calls(crew_python: Path, tmp_path: Path) -> None:
    assert run(crew_python, tmp_path, "text") == [["alone", [call("alone")]], ["end", []]]


@pytest.mark.slow
def test_what_it_costs(crew_python: Path, tmp_path: Path) -> None:
    """Two events and what the other end does here, of a call that waits for a model: well under a millisecond."""
    assert run(crew_python, tmp_path, "speed")[0][1] < 0.005


@pytest.mark.parametrize("module", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_program_that_does_not_know_of_it(crew_python: Path, tmp_path: Path, module: bool) -> None:
    (tmp_path / "program.py").write_text(
        "import sys, weir_crewai\nprint(__name__, sys.argv[1:], len(weir_crewai._attached))\n")
    done = subprocess.run(
        [str(crew_python), "-m", "weir_crewai", *(["-m", "program"] if module else ["program.py"]), "a", "-b"],
        capture_output=True, text=True, cwd=tmp_path, timeout=300,
        env={**ENVIRONMENT, "PYTHONPATH": str(SOURCE), "HOME": str(tmp_path), "CREWAI_DISABLE_TELEMETRY": "true"})
    assert done.stdout.strip() == "__main__ ['a', '-b'] 1", done.stderr


@pytest.mark.slow
def test_it_is_a_distribution_of_its_own(crew_python: Path, tmp_path: Path) -> None:
    """A wheel with one module, in an environment that has crewai and nothing of Weir's."""
    wheel = build(tmp_path)
    venv.create(tmp_path / "clean", with_pip=True)
    python = tmp_path / "clean" / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "-q", "--no-index", "--no-deps", str(wheel)], check=True)
    site = next((tmp_path / "clean" / "lib").glob("python3*/site-packages"))
    mine = {path.name for path in site.iterdir()} - {"pip", "setuptools", "pkg_resources", "_distutils_hack"}
    assert {name for name in mine if "weir" in name and not name.endswith(".dist-info")} == {"weir_crewai.py"}
    assert not any("weir" in path.read_text() for path in site.glob("*.pth"))
    crews = next((crew_python.parents[1] / "lib").glob("python3*/site-packages"))
    (site / "crews.pth").write_text(f"{crews}\n")
    told = json.dumps("import sys, weir_crewai; assert not {'agent', 'enforcer', 'probes'} & set(sys.modules); "
                      "print(len(weir_crewai._attached))")
    done = subprocess.run([str(python), "-c", json.loads(told)], capture_output=True, text=True, cwd=tmp_path,
                          env={**ENVIRONMENT, "HOME": str(tmp_path), "CREWAI_DISABLE_TELEMETRY": "true"}, timeout=300)
    assert done.stdout.strip() == "1", done.stderr


def build(directory: Path) -> Path:
    copy = directory / "source"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "weir_crewai.py"):
        (copy / name).write_bytes((SOURCE / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w",
         str(directory), str(copy)], check=True)
    [wheel] = directory.glob("*.whl")
    return wheel
