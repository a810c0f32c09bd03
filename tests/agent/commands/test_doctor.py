"""What `weir doctor` finds of the page, and of what kernels keep from whom."""
from __future__ import annotations

import socket
from pathlib import Path

import pytest

from agent.commands.doctor import FAIL, OK, RESTRICTED, WARN, page, scopes, user_namespaces
from agent.config import Config, parse_config
from agent.workload import landlock

CONFIG = """
[runtime]
name = "no-such-weir"
[web]
url = "http://127.0.0.1:{port}"
listen = "127.0.0.1:{port}"
[[provider]]
name = "corp"
issuer = "https://idp.lab.example"
client_id = "weir"
"""


def config(port: int) -> Config:
    made, report = parse_config(CONFIG.format(port=port), "weir.toml")
    assert made is not None, report.problems
    return made


@pytest.mark.parametrize("at", ["127.0.0.1", "0.0.0.0"])
def test_who_has_the_port_of_the_page_is_found(at: str) -> None:
    with socket.create_server((at, 0)) as other:
        port = other.getsockname()[1]
        found = page(config(port))
        assert (found.state, "another program listens there" in found.advice) == (WARN, True)
    assert page(config(port)).state == OK


def test_a_kernel_without_landlock_is_found_also_where_bpf_lsm_closes_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "version", lambda: 0)
    found = scopes()
    assert found.state == WARN
    assert "see and write whatever files their users may" in found.found


@pytest.mark.parametrize(("restricted", "profiles", "state"), [
    ("0", "", OK), ("1", "bwrap (enforce)\nweir (unconfined)\n", OK), ("1", "weird (enforce)\n", FAIL)])
def test_apparmor_that_keeps_user_namespaces_is_found_unless_weirs_profile_is_loaded(
    tmp_path: Path, restricted: str, profiles: str, state: str,
) -> None:
    (tmp_path / RESTRICTED).parent.mkdir()
    (tmp_path / RESTRICTED).write_text(f"{restricted}\n")
    (tmp_path / "profiles").write_text(profiles)
    found = user_namespaces(tmp_path, tmp_path / "profiles")
    assert found.state == state
    assert ("apparmor_parser -r" in found.advice) == (state == FAIL)
