"""What `weir doctor` finds of the page."""
from __future__ import annotations

import socket

import pytest

from agent.commands.doctor import OK, WARN, page, scopes
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
