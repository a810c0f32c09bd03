"""`weir egress suggest`: from events to a draft that `weir check` takes."""
from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli import weir
from agent.config import parse_config
from agent.contract.journal import HostEvent, render_host_event
from agent.init.recorded import recorded_peers
from enforcer.words import events

SECOND = 10**9
CONFIG = """
[[egress]]
name = "model"
addresses = ["model.example", "*.cdn.example"]
ports = [443]
"""


class Story:
    """Flows as an enforcer records them."""

    def __init__(self, scene) -> None:
        self.scene, self.writer, self.number = scene, None, 0

    def start(self) -> Story:
        self.scene.start()
        self.writer = self.scene.writer()
        return self

    def answered(self, name: str, *addresses: str, workload: str = "crew", at: int = 1) -> None:
        path = self.scene.journal / f"agent-{os.urandom(8).hex()}-0.journal"
        path.write_bytes(render_host_event(HostEvent(20, at * SECOND, 1, "dns.answered", workload, {
            "name": name, "addresses": " ".join(addresses)})))
        self.scene.turn(2)

    def flow(self, destination: str, speaks: str = "", name: str = "", rule: str = "address", reason: str = "no entry",
             workload: str = "crew", mode: str = "shadow", at: int = 5, mine: str = "") -> None:
        """`mine`: what the beginning itself would have ended it for."""
        self.number += 1
        flow, when = f"F{self.number}", at * SECOND
        if mode == "record":
            rule = reason = mine = ""
        self.writer.append(events.FlowOpened(
            8, when, 1, flow, "", "local:x", workload, 1, "/bin/x", "", (), destination, "mark"))
        self.writer.append(events.FlowNoted(10, when, 1, flow, mode, "", "", rule, reason))
        if speaks:
            self.writer.append(events.FlowNoted(10, when, 1, flow, mode, speaks, name, "x" if mine else "", mine))
        self.writer.append(events.FlowClosed(9, when, 1, flow, 10, 20, "done"))
        self.writer.flush()
        self.scene.turn(2)

    def refused(self, destination: str, reason: str) -> None:
        self.writer.append(events.Refused(7, SECOND, 1, "crew", "", 1, "", destination, "", reason, ()))
        self.writer.flush()
        self.scene.turn(2)

    def run(self, tmp_path: Path, *more: str):
        """What the command says to an auditor."""
        self.scene.recorder._store.commit()
        (tmp_path / "weir.toml").write_text(CONFIG)
        done = CliRunner().invoke(weir, ["--config", str(tmp_path / "weir.toml"), "egress", "suggest", "--recording",
                                         str(self.scene.recording), *more])
        assert done.exit_code == 0, done.output
        return done.output


@pytest.fixture
def story(scene) -> Story:
    return Story(scene).start()


def test_a_draft(story: Story, tmp_path: Path) -> None:
    story.answered("api.example", "192.0.2.1", "192.0.2.2")
    story.answered("smtp.example", "192.0.2.3", at=2)
    story.answered("model.example", "192.0.2.8")
    story.answered("x.cdn.example", "192.0.2.8")
    story.flow("192.0.2.1 443", "tls", "api.example", mode="record")
    story.flow("192.0.2.2 443", "tls", "api.example", at=9, workload="other")      # not given to this one
    story.flow("192.0.2.1 8080", "http", "api.example", at=7)
    story.flow("192.0.2.3 25")
    story.flow("192.0.2.4 443", "tls", "nobody-asked.example")
    story.flow("192.0.2.1 444", "tls", "")
    story.flow("192.0.2.8 443", "tls", "model.example")                            # permitted by now
    story.flow("192.0.2.8 443", "tls", "x.cdn.example")
    story.flow("192.0.2.1 443", "tls", "api.example", rule="", reason="")          # permitted when it was
    story.flow("fd77::4 5432", "postgresql", mine="postgresql in plaintext")
    story.flow("192.0.2.5 1080", "socks", mode="record")
    story.refused("127.0.0.1 11434", "no target and no egress entry has this address and port, and it is loopback: no "
                  "mode lets it through")
    story.refused("192.0.2.66 1", "no target and no egress entry has this address and port")
    text = story.run(tmp_path)
    entries = tomllib.loads(text)["egress"]
    assert [(one["name"], one["addresses"], one["ports"]) for one in entries] == [
        ("192.0.2.1", ["192.0.2.1"], [444]), ("192.0.2.2", ["192.0.2.2"], [443]), ("192.0.2.4", ["192.0.2.4"], [443]),
        ("api.example", ["api.example"], [443, 8080]), ("smtp.example", ["smtp.example"], [25])]
    made, report = parse_config(CONFIG + text, "weir.toml")
    assert made is not None, report.problems
    assert "# Let this be a [[target]]" in text
    assert "# fd77::4 port 5432 (postgresql)" in text
    assert "# A proxy: no [[egress]]" in text
    assert "# 127.0.0.1 port 11434" in text
    assert "192.0.2.66" not in text
    assert ("# api.example port 443 (tls), at 192.0.2.1: 1 connections of crew, 10 bytes out, 20 in, "
            "1970-01-01T00:00:05.000000000Z to 1970-01-01T00:00:05.000000000Z") in text
    assert "reads" in {path.name for path in story.scene.recording.iterdir()}


def test_json_and_one_workload(story: Story, tmp_path: Path) -> None:
    for at in (9, 5, 7):
        story.flow("192.0.2.1 443", "tls", at=at)
    story.flow("192.0.2.2 443", workload="other")
    [found] = json.loads(story.run(tmp_path, "--json", "--workload", "crew"))
    assert found == {
        "kind": "egress", "host": "192.0.2.1", "port": 443, "speaks": ["tls"], "workloads": ["crew"], "count": 3,
        "bytes_out": 30, "bytes_in": 60, "first": 5 * SECOND, "last": 9 * SECOND, "addresses": ["192.0.2.1"],
        "reasons": ["no entry"], "first_utc": "1970-01-01T00:00:05.000000000Z",
        "last_utc": "1970-01-01T00:00:09.000000000Z"}


def test_nothing_to_permit(story: Story, tmp_path: Path) -> None:
    assert story.run(tmp_path) == "# nothing that weir.toml does not permit\n"
    assert json.loads(story.run(tmp_path, "--json")) == []


@pytest.mark.parametrize("name", ['x"]\n[[workload]]\nname = "evil', "a\x1b[2J", "\u202egnp.example", "a" * 255])
def test_what_a_crew_calls_itself_is_no_configuration(story: Story, tmp_path: Path, name: str) -> None:
    story.flow("192.0.2.1 443", "tls", name, mine=f"TLS for {name!r}\n[[x]]")
    text = story.run(tmp_path)
    assert set(tomllib.loads(text)) == {"egress"}
    assert [one["addresses"] for one in tomllib.loads(text)["egress"]] == [["192.0.2.1"]]
    assert all(one.isprintable() or one == "\n" for one in text)


def test_a_name_that_an_entry_has_already(story: Story, tmp_path: Path) -> None:
    story.answered("model", "192.0.2.1")
    story.flow("192.0.2.1 443")
    [entry] = tomllib.loads(story.run(tmp_path))["egress"]
    assert (entry["name"], entry["addresses"]) == ("model-2", ["model"])


def test_what_weir_init_takes_of_it(story: Story) -> None:
    story.answered("api.example", "192.0.2.1")
    story.flow("192.0.2.1 443", "tls", "api.example", mode="record")
    story.flow("10.0.0.4 5433", "postgresql", mode="record", workload="second")
    story.flow("10.0.0.5 3128", "proxy", mode="record")
    story.scene.recorder._store.commit()
    notes: list[str] = []
    found = list(recorded_peers(story.scene.recording, notes))
    assert [(one.protocol, one.hosts, one.port, one.addresses) for one in found] == [
        ("", ("api.example",), 443, ("192.0.2.1",)), ("postgresql", ("10.0.0.4",), 5433, ("10.0.0.4",))]
    assert found[1].why == ("1 recorded connection of second",)
    assert notes == ["recorded and not proposed: 10.0.0.5 port 3128 (proxy); weir egress suggest says more"]


def test_a_recording_that_is_not_there(tmp_path: Path) -> None:
    notes: list[str] = []
    assert list(recorded_peers(tmp_path / "none", notes)) == []
    assert notes == [f"the recording in {tmp_path}/none is not read: who was to read it ended with 1"]
