"""[metrics]: what is right, and what would show figures to the wrong ones."""
from __future__ import annotations

import pytest

from agent.config import Config, needs_restart, parse_config
from agent.settings.fields import AT_SOCKET
from agent.settings.page_table import Metrics


def right(listen: str = "") -> Config:
    config, report = parse_config(f'[metrics]\nlisten = "{listen}"\n' if listen else "", "weir.toml")
    assert config is not None, report.problems
    assert not report.problems
    return config


def test_without_a_place_nothing_is_served() -> None:
    assert right().metrics == Metrics()
    assert right().metrics.listen is None


@pytest.mark.parametrize(("given", "listen", "place"), [
    ("unix", AT_SOCKET, None), ("127.0.0.1:9464", ("127.0.0.1", 9464), ("127.0.0.1", 9464)),
    ("[::1]:9464", ("::1", 9464), ("::1", 9464)), ("127.9.9.9:1", ("127.9.9.9", 1), ("127.9.9.9", 1))])
def test_places(given: str, listen: tuple[str, int], place: tuple[str, int] | None) -> None:
    found = right(given).metrics
    assert (found.listen, found.place) == (listen, place)
    assert needs_restart(right(), right(given)) == []


@pytest.mark.parametrize(("given", "said"), [
    ("0.0.0.0:9464", "'0.0.0.0:9464' is open to others than this machine; `unix`, or ADDRESS:PORT or [ADDRESS]:PORT of "
     "a loopback address would be right"),
    ("10.77.0.2:9464", "is open to others"), ("[::]:9464", "is open to others"), ("127.0.0.1", "is neither"),
    ("127.0.0.1:0", "out of bounds"), ("localhost:9464", "is neither"),
    ("127.0.0.1:15432", "is another listener of Weir's"), ("127.0.0.1:8443", "is another listener of Weir's")])
def test_what_is_not_right(given: str, said: str) -> None:
    page = '[web]\nurl = "https://weir.lab.example"\nlisten = "127.0.0.1:8443"\n'
    _, report = parse_config(f'{page}[metrics]\nlisten = "{given}"\n', "weir.toml")
    [problem] = map(str, report.problems)
    assert problem.startswith("weir.toml:5: metrics.listen: ")
    assert said in problem


def test_crews_are_led_there_by_no_egress() -> None:
    _, report = parse_config("""
[metrics]
listen = "127.0.0.1:9464"
[[egress]]
name = "figures"
addresses = ["127.0.0.1"]
ports = [9464]
""", "weir.toml")
    assert [str(one) for one in report.problems] == [
        "weir.toml:6: egress[1].addresses: 127.0.0.1 port 9464 is where Weir's figures are ([metrics] listen): no "
        "place for crews"]


def test_who_serves_them_is_no_other_process_user() -> None:
    _, report = parse_config('[runtime]\nweb_user = "weir"\n[metrics]\nlisten = "unix"\n', "weir.toml")
    assert "web_user: is another process' user too" in str(report.problems[0])
