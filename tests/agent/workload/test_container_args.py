"""What podman or docker is told."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
from lab.containers import parse

from agent.config import Config, parse_config
from agent.workload.container_args import CGROUPFS, DOCKER, PODMAN, SYSTEMD, notes, render_args
from agent.workload.seccomp import render_profile, rules

TEXT = """
[[workload]]
name = "my-crew"
users = ["crew"]
{target}"""
TARGET = """
[[target]]
name = "orders"
protocol = "postgresql"
hosts = ["db.example"]
port = 5432
trust = ["/opt/app/root.crt", "~/.pg/root.crt"]
[[target.credential]]
user = "u"
password_file = "/etc/weir/credentials/orders"
"""


def config(target: str = TARGET) -> Config:
    found, report = parse_config(TEXT.format(target=target), "/etc/weir/weir.toml")
    assert found is not None, report.problems
    return found


def args(target: str = TARGET, manager: str = SYSTEMD, engine: str = DOCKER) -> tuple[str, ...]:
    made = config(target)
    return render_args(made, made.workloads[0], 1001, 1002, manager, engine)


@pytest.mark.parametrize(("manager", "parent"), [
    (SYSTEMD, "weir-my\\x2dcrew.slice"), (CGROUPFS, "/weir.slice/weir-my\\x2dcrew.containers")])
def test_its_cgroup(manager: str, parent: str) -> None:
    assert args(manager=manager)[0] == f"--cgroup-parent={parent}"


def test_what_it_may_do() -> None:
    found = args("")
    assert found == (
        "--cgroup-parent=weir-my\\x2dcrew.slice", "--network=none", "--user=1001:1002", "--cap-drop=all",
        "--security-opt=no-new-privileges", "--security-opt=seccomp=/run/weir/trust/seccomp.json",
        "--volume=/run/weir/trust/resolv.conf:/etc/resolv.conf:ro")
    assert not any(" " in one for one in found)


def test_podmans_monitor_is_no_crew() -> None:
    """It starts the OCI runtime, which loads a program for the container's devices."""
    assert args(engine=PODMAN) == ("--cgroups=no-conmon", *args())


def test_what_it_trusts() -> None:
    found = args()
    assert "--volume=/run/weir/trust/roots.pem:/etc/ssl/certs/ca-certificates.crt:ro" in found
    assert "--volume=/run/weir/trust/weir.pem:/opt/app/root.crt:ro" in found
    assert "--env=SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt" in found
    assert not any("~" in one for one in found)
    [note] = notes(config())
    assert note.startswith("~/.pg/root.crt")


def test_the_profile_says_what_the_filter_does(tmp_path: Path) -> None:
    profile = json.loads(render_profile())
    assert profile["defaultAction"] == "SCMP_ACT_ALLOW"
    said = [(one["names"], one["errnoRet"], len(one["args"])) for one in profile["syscalls"]]
    known = {one[0][0] for one in said}           # some are not on every architecture
    assert said == [([one.call], one.error, len(one.conditions)) for one in rules() if one.call in known]
    assert {"socket", "socketpair", "clone", "clone3", "unshare", "bpf", "io_uring_setup"} <= known
    (tmp_path / "profile").write_text(json.dumps(profile))
    assert parse([f"--security-opt=seccomp={tmp_path}/profile"]).filter == profile


SSH = """
[[target]]
name = "web"
protocol = "ssh"
hosts = ["web.lab"]
host_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG10eEI6aW+ZfURANj2dwOHwSyiuIcF30QoBCZWZmE40"]
trust = ["/opt/app/hosts", "~/hosts"]
[[target.credential]]
certificate = "issue"
"""


def test_weirs_host_keys() -> None:
    own = "/run/weir/trust/known_hosts"
    found = args(SSH)
    assert found[-2:] == (f"--volume={own}:/etc/ssh/ssh_known_hosts:ro", f"--volume={own}:/opt/app/hosts:ro")
    assert not any("roots.pem" in one or "weir.pem" in one for one in found), "nobody is known by a certificate"
    assert notes(config(SSH)) == tuple(
        f"{one}: where the container's home is, is not known here; bind {own} over it"
        for one in ("~/.ssh/known_hosts", "~/hosts"))
    assert set(args(TARGET + SSH)) == {*args(TARGET), *found}
