"""`weir guard`: the block without an agent, and what it takes of a configuration that is wrong."""
from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockhost import NAME, entered, ip

from agent.block import cgroups
from agent.block.containment import Containment
from agent.config import DNS_PORT, parse_block
from agent.settings.check import load_block
from agent.settings.host_table import LISTEN
from agent.unit.units import tell_systemd

RIGHT = '[runtime]\nname = "crews"\n[enforcer]\nport = 16000\n[nftables]\nredirect = false\n'


@pytest.mark.parametrize(("text", "name", "port", "problems"), [
    (RIGHT, "crews", 16000, 0),
    ("", "weir", 15432, 0),
    (RIGHT + "[[target]]\nname = 7\n[more]\n", "crews", 16000, 0),        # no business of the block's
    (RIGHT.replace("16000", '"many"'), "crews", 15432, 1),
    (RIGHT.replace('"crews"', "7"), "weir", 16000, 1),
    (RIGHT.replace("[enforcer]", '[enforcer]\nport = 1\n[enforcer]'), "weir", 15432, 1),
    ("enforcer = 7\n", "weir", 15432, 1),
    ('[runtime]\nrun = "/run/a"\nstate = "/run/a/b"\n', "weir", 15432, 1),
])
def test_the_block_takes_the_sections_that_are_right(text: str, name: str, port: int, problems: int) -> None:
    config, found = parse_block(text, "weir.toml")
    assert (config.runtime.name, config.enforcer.port, len(found)) == (name, port, problems)


def test_of_a_file_that_others_can_write_nothing_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "weir.toml"
    file.write_text(RIGHT)
    file.chmod(0o666)
    config, problems = load_block(file)
    assert config.runtime.name == "weir"
    assert "others than root can write it" in str(problems[0])
    assert load_block(tmp_path / "none.toml")[0].enforcer.port == 15432


def test_systemd_is_told_where_it_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell_systemd("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        tell_systemd("READY=1", "STATUS=enforcing")
        assert one.recv(100) == b"READY=1\nSTATUS=enforcing"
    tell_systemd("STATUS=nobody listens")


def weir(file: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "agent.cli", "--config", str(file), *words], capture_output=True,
                          text=True, timeout=360)


def test_another_slice_than_the_units_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "weir.toml"
    file.write_text(RIGHT)
    done = weir(file, "guard", "--slice", "weir.slice")
    assert done.returncode == 1
    assert "crews.slice" in done.stderr
    file.write_text(RIGHT.replace('"crews"', '"my-crews"'))
    assert weir(file, "guard", "--slice", "my-crews.slice").returncode == 1
    assert not cgroups.find_slice("crews").path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who alone may release without an agent")
def test_what_block_is_meant_must_be_known_to_release_it(tmp_path: Path) -> None:
    file = tmp_path / "weir.toml"
    file.write_text('[runtime]\nname = "Other"\n')
    done = weir(file, "release")
    assert done.returncode == 1
    assert f"{file}:2: runtime.name" in done.stderr


@pytest.fixture
def mistaken(tmp_path: Path) -> Iterator[Path]:
    """In a network namespace of its own: a configuration with a mistake in it."""
    file = tmp_path / "weir.toml"
    file.write_text(f'[runtime]\nname = "{NAME}"\nrun = "/run/{NAME}"\nstate = "{tmp_path}/state/here"\n'
                    "[enforcer]\nport = 16001\n[[target]]\nname = 7\n")
    ip(f"netns add {NAME}")
    try:
        with entered(NAME):
            yield file
            done = weir(file, "release")          # a mistake elsewhere is no reason to keep the block
            assert done.returncode == 0, done.stderr
    finally:
        ip(f"netns delete {NAME}")
        shutil.rmtree(Path("/run", NAME), ignore_errors=True)


@pytest.mark.kernel
def test_the_block_is_in_place_without_an_agent(mistaken: Path) -> None:
    done = weir(mistaken, "guard", "--slice", f"{NAME}.slice")
    assert done.returncode == 0, done.stderr
    assert "cut off until an agent runs" in done.stderr
    hold = Containment(NAME, port=16001, resolver=(LISTEN, DNS_PORT), redirect=True, run=Path("/run", NAME),
                       headers=mistaken.parent / "none")
    assert hold.problems() == []
