"""How the agent that does not run is started on this host."""
from __future__ import annotations

from pathlib import Path

import pytest

from agent.commands import asking, init_cli
from agent.init.proposal import Proposal
from agent.unit import units


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Has a configuration, and systemd; whether Weir's unit is the test's to say."""
    file = tmp_path / "weir.toml"
    file.touch()
    managed = tmp_path / "systemd"
    managed.mkdir()
    for module in (asking, init_cli):
        monkeypatch.setattr(module, "DEFAULT_FILE", str(file))
    monkeypatch.setattr(units, "MANAGED", managed)
    monkeypatch.setattr(units, "PLACES", (tmp_path / "etc", tmp_path / "lib"))
    return tmp_path


@pytest.mark.parametrize("place", ["etc", "lib"])
def test_by_its_unit_whether_the_clone_or_the_package_has_put_it_there(host: Path, place: str) -> None:
    file = str(host / "weir.toml")
    assert asking.how_to_start(file) == "start it with: sudo weir agent"
    (host / place).mkdir()
    (host / place / "weir-agent.service").touch()
    assert asking.how_to_start(file) == "start it with: sudo systemctl start weir-agent"
    assert asking.how_to_start("/etc/other.toml") == "start it with: sudo weir --config /etc/other.toml agent"
    (host / "systemd").rmdir()
    assert asking.how_to_start(file) == "start it with: sudo weir agent"


def test_where_nothing_is_configured(host: Path) -> None:
    file = host / "weir.toml"
    file.unlink()
    assert asking.how_to_start(str(file)) == f"there is no {file} yet: sudo weir init writes one"


def test_the_end_of_init_names_the_packages_unit(host: Path) -> None:
    file = str(host / "weir.toml")
    (host / "lib").mkdir()
    (host / "lib" / "weir-agent.service").touch()
    nothing = Proposal((), (), "enforce")
    assert "sudo systemctl start weir-agent" in list(init_cli._next(file, nothing, ()))
    assert "sudo systemctl start weir-agent" not in list(init_cli._next("/etc/other.toml", nothing, ()))
