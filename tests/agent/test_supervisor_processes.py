"""The way down from root, and the self-probe's honesty: where nothing contains it, it says so."""
from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.block import selfprobe
from agent.layout import cgroup_root
from agent.network.netns import Namespace
from agent.network.networks import own_descriptor
from agent.processes import python_module, unprivileged
from agent.services import AHEAD, end_all, wait_empty
from agent.supervisor import remove_own

pytestmark = pytest.mark.kernel

FACTS = """
import json, os
facts = {k: v.strip() for k, v in (l.split(":", 1) for l in open("/proc/self/status"))}
print(json.dumps({"facts": facts, "env": sorted(os.environ), "cwd": os.getcwd(),
                  "cgroup": open("/proc/self/cgroup").read()}))
"""


@pytest.fixture
def cgroup() -> Iterator[Path]:
    path = cgroup_root() / f"wp-{os.getpid()}"
    path.mkdir()
    yield path
    end_all(path)
    asyncio.run(wait_empty(path, 10))
    path.rmdir()


def down(*command: str, **keywords: object) -> subprocess.CompletedProcess[str]:
    extra = keywords.pop("pass_fds", ())
    return subprocess.run(
        unprivileged(command, "nobody", **keywords), capture_output=True, text=True, pass_fds=extra,  # type: ignore[arg-type,call-overload]
        env={"PATH": "/usr/bin", "SECRET": "x", "PYTHONPATH": os.getcwd()}, stdin=subprocess.DEVNULL)


def test_cgroups_of_helpers_go_with_the_agents_own(cgroup: Path) -> None:
    own = cgroup / "own"
    for name in ("enforcer", "recorder", "helpers/1", "helpers/7"):
        (own / name).mkdir(parents=True)
    remove_own(own)
    assert not own.exists()


def test_nothing_of_root_is_left(cgroup: Path) -> None:
    done = down("/usr/bin/python3", "-I", "-c", FACTS, cgroup=cgroup)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    facts = said["facts"]
    assert facts["Uid"].split() == ["65534"] * 4
    assert facts["Gid"].split() == ["65534"] * 4
    assert facts["Groups"] == ""
    assert {facts[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert facts["NoNewPrivs"] == "1"
    assert "SECRET" not in said["env"]
    assert said["cwd"] == "/"
    assert f"/{cgroup.name}\n" in said["cgroup"]


def test_only_what_is_kept_is_inherited() -> None:
    code = "import os, sys; print([os.path.exists(f'/proc/self/fd/{n}') for n in map(int, sys.argv[1:])])"
    with open("/etc/shadow") as shadow, open("/etc/passwd") as kept:
        os.dup2(shadow.fileno(), 77)
        try:
            done = down("/usr/bin/python3", "-I", "-c", code, "77", str(kept.fileno()), keep=[kept.fileno()],
                        pass_fds=(77, kept.fileno()))
        finally:
            os.close(77)
    assert done.stdout == "[False, True]\n"


@pytest.mark.parametrize(("user", "cgroup", "wanted"), [
    ("root", None, "root is root"), ("no-such-user", None, "no-such-user"), ("nobody", "/nowhere", "No such file")])
def test_what_cannot_be_done_is_not_half_done(user: str, cgroup: str | None, wanted: str) -> None:
    command = unprivileged(["/usr/bin/id"], user, cgroup=Path(cgroup) if cgroup else None)
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (125, "")
    assert wanted in done.stderr


def test_it_dies_with_its_parent() -> None:
    code = "import subprocess, sys\np = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)\n" \
           "p.stdout.readline(); print(p.pid)"
    child = unprivileged(["/bin/sh", "-c", "echo here; exec sleep 1000"], "nobody", dies_with_parent=True)
    done = subprocess.run([sys.executable, "-c", code, *child], capture_output=True, text=True, timeout=30)
    with pytest.raises(ProcessLookupError):
        while True:
            os.kill(int(done.stdout), 0)


def test_a_module_of_this_code_is_found_with_isolation() -> None:
    done = subprocess.run([*python_module("agent.processes"), "--help"], capture_output=True, text=True, cwd="/",
                          env={"PATH": "/usr/bin"})
    assert done.returncode == 0
    assert "--dies-with-parent" in done.stdout


# the self-probe


@pytest.fixture
def network() -> Iterator[int]:
    fd = own_descriptor()
    yield fd
    os.close(fd)


async def test_without_a_block_the_probe_says_what_got_through(cgroup: Path, network: int) -> None:
    marked: list[int] = []
    child = cgroup / selfprobe.name()
    try:
        found = await selfprobe.probe(child, marked.append, network)
        assert len(marked) == 1
        assert "a process in the slice reached a closed port: TCP to 127.0.0.1" in found
        assert "a process in the slice reached a closed port: UDP to 127.0.0.1" in found
    finally:
        await wait_empty(child, 10)
        child.rmdir()


async def test_the_decoys_are_where_it_tries(cgroup: Path) -> None:
    """A network of its own that nothing guards: what it reaches is in there."""
    child, namespace = cgroup / selfprobe.name(), Namespace.make()
    fd = namespace.descriptor()
    try:
        found = await selfprobe.probe(child, lambda pid: None, fd)
        assert "a process in the slice reached a closed port: TCP to 127.0.0.1" in found
    finally:
        os.close(fd)
        namespace.close()
        await wait_empty(child, 10)
        child.rmdir()


async def test_a_probe_that_cannot_be_run_is_no_good_word(
    cgroup: Path, network: int, monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no(pid: int) -> None:
        raise OSError("no mark")

    child = cgroup / selfprobe.name()
    assert await selfprobe.probe(child, no, network) == ["the self-probe could not be run: no mark"]
    monkeypatch.setattr(selfprobe, "NOBODY", 1 << 40)
    assert (await selfprobe.probe(child, lambda pid: None, network))[0].startswith("the self-probe could not be run")
    await wait_empty(child, 10)
    child.rmdir()


def test_decoys_are_nobodys_ports() -> None:
    with ExitStack() as stack:
        decoys = selfprobe.Decoys(stack)
        assert len(decoys.ports()) == 4
        assert decoys.reached() == []


def test_the_enforcer_goes_before_the_crews() -> None:
    code = "import os; print(os.getpriority(os.PRIO_PROCESS, 0))"
    assert int(down("/usr/bin/python3", "-I", "-c", code).stdout) == os.getpriority(os.PRIO_PROCESS, 0)
    assert int(down("/usr/bin/python3", "-I", "-c", code, nice=AHEAD).stdout) == AHEAD
