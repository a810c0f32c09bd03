"""By which lines an SSH target is verified."""
from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from agent.settings.ssh_kinds import DETECTORS
from agent.settings.target_table import TargetEntry
from agent.ssh.verifying import LIMIT, verifying_lines

A = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG10eEI6aW+ZfURANj2dwOHwSyiuIcF30QoBCZWZmE40"
B = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDDOQm8vGPotmkRjKxiu3wprV2mrFyo5mSkxwJHaY3rz"


def target(**more: Any) -> TargetEntry:
    return TargetEntry(**{"name": "web", "protocol": "ssh", "hosts": ("web.lab", "10.0.0.9"), "port": 22, **more})


def test_pinned_keys_and_authorities() -> None:
    lines = verifying_lines(target(host_keys=(A,), host_ca=(B,)), "")
    assert lines == f"web.lab,10.0.0.9 {A}\n@cert-authority web.lab,10.0.0.9 {B}\n"
    lines = verifying_lines(target(host_keys=(A,), port=2222), "")
    assert lines == f"[web.lab]:2222,[10.0.0.9]:2222 {A}\n"


def test_lines_of_a_file_are_for_every_name_of_the_host() -> None:
    text = (f"# it\nother {B}\n*.lab,!db.lab {A} a comment\n@revoked 10.0.0.9 {B}\nweb.lab ssh-dss AAAA\n"
            f"@cert-authority web.lab {B}\n")
    assert verifying_lines(target(known_hosts="/f"), text) == (
        f"web.lab,10.0.0.9 {A}\n@revoked web.lab,10.0.0.9 {B}\n@cert-authority web.lab,10.0.0.9 {B}\n")


def test_hashed_lines(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"[web.lab]:2222 {A}\nother {B}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", file], check=True, capture_output=True)
    lines = verifying_lines(target(known_hosts="/f", port=2222), file.read_text())
    trusted, authorities, revoked, *_ = asyncssh.import_known_hosts(lines).match("web.lab", "10.0.0.9", 2222)
    assert {one.export_public_key().decode().strip() for one in trusted} == {A}
    assert (list(authorities), list(revoked)) == ([], [])


@pytest.mark.parametrize(("text", "said"), [
    ("", "has no line for web.lab: ssh-keyscan web.lab prints some"), (f"other {A}\n", "has no line"),
    (f"[web.lab]:2222 {A}\n", "has no line"), (f"@revoked web.lab {A}\n", "has no line"),
    ("# one\nweb.lab ssh-ed25519 AAAA\n", "line 2: its base64 is no key"), ("web.lab ssh-dss AAAA\n", "has no line"),
    ("@revoked web.lab ssh-dss AAAA\n", "line 1: it is no public key"),
])
def test_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        verifying_lines(target(known_hosts="/f"), text)


def test_it_is_bounded() -> None:
    hosts = tuple(f"{number}.{'x' * 60}.lab" for number in range(1000))
    assert len(verifying_lines(target(hosts=hosts[:100], host_keys=(A,)), "")) < LIMIT
    with pytest.raises(ValueError, match="more than"):
        verifying_lines(target(hosts=hosts, host_keys=(A, B)), "")


def test_detectors_are_the_enforcers() -> None:
    detectors = pytest.importorskip("enforcer.policy.detectors", reason="the enforcer has no detectors yet")
    assert detectors.LABELS == DETECTORS
