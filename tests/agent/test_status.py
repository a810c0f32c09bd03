"""What the agent says of itself, and how often."""
from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from rich.console import Console

from agent.commands.screen import render_status
from agent.config import parse_config
from agent.contract.control import ServiceView, Status
from agent.contract.families import PROBLEMS
from agent.contract.target import ContentLabel, FieldLabel, Forward
from agent.credential.trust import NO_TRUST, HostTrust, Leaf
from agent.network.resolve import Known, Places
from agent.status import DEGRADED, ENFORCING, OTHERWISE, Health, health_of, hints
from agent.supervisor import render_configure


def test_another_state_is_said_at_once_and_other_reasons_once_in_a_while() -> None:
    health = Health(starting=False, holes=(), probe=(), enforcer="", recorder="", launcher="")
    assert health.news(100.0) == (ENFORCING, ())
    assert health.news(100.1) is None
    health.holes = ("a rule is missing",)
    assert health.news(100.2) == (DEGRADED, ("a rule is missing",))
    health.holes = ("another is",)
    assert health.news(100.3) is None
    assert health.news(100.2 + OTHERWISE) == (DEGRADED, ("another is",))
    health.holes = ()
    assert health.news(100.3 + OTHERWISE) == (ENFORCING, ())


def test_a_status_says_loudly_what_is_not_enforced() -> None:
    view = ServiceView(1, 1, 0)
    status = Status("enforcing", (), "weir", 1, 1, "x", True, (), view, view, 0, (), (), (), {}, ())
    shown = _shown(status)
    assert "crews reach targets through the enforcer, and nothing else" in shown
    shown = _shown(msgspec.structs.replace(status, modes={"crew": "record"}))
    assert "and nothing else" not in shown
    assert "egress: record for workload crew: NOT ENFORCED" in shown.splitlines()[1]


def _shown(status: Status) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(render_status(status))
    return captured.get()


def test_a_label_of_no_column_is_a_hint() -> None:
    """Else what was meant passes unmasked, and only the log says so."""
    config, report = parse_config("", "weir.toml")
    assert config is not None, report.problems
    [one] = [hint for hint in hints(config, Places((), (), Known()), {}, {"lost_labels": 1}, (), 0) if "label" in hint]
    assert one.startswith("1 [[target.label]] names a column that no database of the target has")
    assert not any("label" in hint for hint in hints(config, Places((), (), Known()), {}, {"lost_labels": 0}, (), 0))


WEB = """
[[target]]
name = "web"
protocol = "ssh"
hosts = ["192.0.2.9"]
known_hosts = "/etc/weir/known_hosts"
authentication = ["none", "publickey"]
payload = "content"
[[target.credential]]
certificate = "issue"
[[target.label]]
label = "secret"
path = "/etc/app/*.key"
"""


def test_a_client_that_does_not_know_the_host_key_is_a_hint() -> None:
    config, report = parse_config(WEB, "weir.toml")
    assert config is not None, report.problems
    places = Places(config.targets, (), Known())
    for count, said in ((1, "target web: a connection ended"), (3, "target web: 3 connections ended")):
        [one] = [hint for hint in hints(config, places, {}, {"unknown_host_key:web": count}, (), 0) if "key" in hint]
        assert one.startswith(f"{said} because the client does not know Weir's host key: add the file that it reads")
    assert not any("key" in hint for hint in hints(config, places, {}, {"unknown_host_key:else": 1}, (), 0))


def test_what_the_enforcer_is_told_of_an_ssh_host() -> None:
    config, report = parse_config(WEB, "weir.toml")
    assert config is not None, report.problems
    config = msgspec.structs.replace(config, known_hosts={"web": "192.0.2.9 ssh-ed25519 AAAA\n"})
    trust = replace(NO_TRUST, hosts=HostTrust("x", keys={"web": ("one", "two")}))
    [told] = render_configure(1, config, Places(config.targets, (), Known()), trust, b"").targets
    assert (told.protocol, told.port, told.tls, told.leaf_certificate, told.databases) == ("ssh", 22, "disable", "", ())
    assert (told.host_keys, told.known_hosts) == (("one", "two"), "192.0.2.9 ssh-ed25519 AAAA\n")
    assert told.content_labels == (ContentLabel("secret", "/etc/app/*.key"),)
    assert (told.labels, told.payload, "jwt" in told.detectors) == ((), "content", True)
    assert told.options == {"authentication": "none,publickey"}


def test_a_client_that_does_not_know_weir_in_a_clusters_place_is_a_hint() -> None:
    config, report = parse_config('[[target]]\nname = "k"\nprotocol = "kubernetes"\nhosts = ["k"]\n'
                                  '[[target.credential]]\ntoken_file = "/t"\n', "weir.toml")
    assert config is not None, report.problems
    places = Places(config.targets, (), Known())
    [one] = [hint for hint in hints(config, places, {}, {"unknown_ca:k": 2}, (), 0) if "trust" in hint]
    assert "2 TLS handshakes" in one
    assert "the kubeconfig or root file that it reads to `trust`" in one
    assert "`weir kubeconfig k` prints, and start the workload again" in one


def test_what_the_enforcer_is_told_of_a_cluster() -> None:
    config, report = parse_config("""
[[target]]
name = "k"
protocol = "kubernetes"
hosts = ["192.0.2.9"]
payload = "content"
detectors = ["jwt"]
[[target.credential]]
token_file = "/t"
[[target.label]]
label = "pii"
field = "configmaps:data.x"
[[target.forward]]
target = "db"
namespace = "data"
port = 5432
[[target]]
name = "db"
protocol = "postgresql"
hosts = ["192.0.2.8"]
port = 5432
[[target.credential]]
user = "u"
password_file = "/p"
""", "weir.toml")
    assert config is not None, report.problems
    config = msgspec.structs.replace(config, roots={"k": "ROOTS"})
    trust = replace(NO_TRUST, leafs={"k": Leaf("LEAF", "KEY")})
    told, other = render_configure(1, config, Places(config.targets, (), Known()), trust, b"").targets
    assert (told.protocol, told.port, told.tls, told.tls_ca, told.leaf_certificate, told.leaf_key) == (
        "kubernetes", 6443, "verify-full", "ROOTS", "LEAF", "KEY")
    assert told.field_labels == (FieldLabel("pii", "", "configmaps", ("data", "x")),)
    assert told.forwards == (Forward("db", "data", "*", 5432),)
    assert (told.payload, told.detectors, told.labels, told.content_labels) == ("content", ("jwt",), (), ())
    assert (other.field_labels, other.forwards) == ((), ())


RUNS, ENDED = ServiceView(1, 1, 0), ServiceView(0, 1, 3, "killed by signal 9")


@pytest.mark.parametrize(("changed", "healthy", "serving", "reason"), [
    ({}, True, True, ""),
    ({"statistics": {"recording_failed": 1}}, False, False, "enforcer: nothing can be recorded"),
    ({"statistics": {}}, False, False, "enforcer: does not answer"),
    ({"recorder": ENDED}, False, False, "recorder: killed by signal 9"),
    ({"state": "degraded", "reasons": ("a rule is missing", "another\nis")}, False, True,
     "a rule is missing; another is"),
    ({"state": "starting"}, False, False, "crews are cut off until it says enforcing"),
    ({"state": "blocked", "reasons": ("enforcer: ended",), "enforcer": ENDED, "statistics": {}}, False, False,
     "enforcer: ended"),
])
def test_health_is_enforcing_and_recording(
    changed: dict[str, Any], healthy: bool, serving: bool, reason: str,
) -> None:
    status = Status("enforcing", (), "weir", 1, 1, "x", True, (), RUNS, RUNS, 0, (), (), (),
                    {"recording_failed": 0}, ())
    found = health_of(msgspec.structs.replace(status, **changed))
    assert (found.healthy, found.serving, found.reason) == (healthy, serving, reason)


def test_a_reason_is_one_line_and_not_longer_than_it_may_be() -> None:
    status = Status("degraded", ("x\n" * 1000,), "weir", 1, 1, "x", True, (), RUNS, RUNS, 0, (), (), (), {}, ())
    reason = health_of(status).reason
    assert "\n" not in reason
    assert len(reason) == 500


def test_problems_are_counted_by_what_they_are_about() -> None:
    health = Health(holes=("a", "b"), probe=(), enforcer="", recorder="ended", launcher="")
    assert health.problems() == dict.fromkeys(PROBLEMS, 0) | {"block": 2, "recorder": 1}
