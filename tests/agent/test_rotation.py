"""`weir key` and `weir ca rotate`, asked of an agent that runs (the stand-ins of tests/standin)."""
from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from standin.crew import Crew
from standin.host import CONFIG, Host

from agent.ssh.keys import fingerprint

pytestmark = pytest.mark.kernel

ISSUE = CONFIG.replace('password_file = "{base}/etc/secret"', 'certificate = "issue"')


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    host = Host(f"wk-{os.getpid() % 10000}")
    try:
        host.write(ISSUE)
        host.start()
        yield host
    finally:
        host.close()


def bundle(host: Host) -> int:
    return (host.base / "run" / "trust" / "weir.pem").read_text().count("BEGIN CERTIFICATE")


def test_keys(host: Host) -> None:
    before = {one["name"]: one["id"] for one in host.json("key")["keys"]}
    assert sorted(before) == ["approval", "forwarded", "link", "mask"]
    (host.base / "state" / "tickets" / "abcdefgh").write_bytes(b"kept")
    for name in before:
        said = host.json("key", "rotate", name, "--reason", "it is time")
        assert (said["before"], said["after"] != said["before"]) == (before[name], True)
    after = {one["name"]: one["id"] for one in host.json("key")["keys"]}
    assert not set(after.values()) & set(before.values())
    events = host.until(lambda: len(host.events("key.rotated")) == 4 and host.events("key.rotated"), "events")
    assert {(one["key"], one["before"], one["after"], one["by"], one["reason"]) for one in events} == {
        (name, before[name], after[name], "local:root", "it is time") for name in before}
    assert host.weir("key", "rotate", "approval", user=5).returncode == 1
    assert "only root" in host.weir("key", "rotate", "approval", user=5).stderr
    assert host.weir("key", "rotate", "nothing").returncode == 2
    assert "one line" in host.weir("key", "rotate", "mask", "--reason", "a\nb").stderr
    assert host.status()["state"] == "enforcing"


@pytest.mark.slow
def test_the_authority_of_servers_waits_for_what_runs(host: Host) -> None:
    assert bundle(host) == 1
    with Crew(host) as crew:
        crew.whose()
        done = host.weir("ca", "rotate", "orders")
        assert (done.returncode, "signs once 1 older start of a workload has ended" in done.stdout) == (0, True), done
        assert bundle(host) == 2
        assert any("its new authority is trusted" in one for one in host.status()["hints"])
        serial = host.json("key")["authorities"][0]["serial"]
        assert host.json("key")["authorities"][0]["next"]
    host.until(lambda: host.json("key")["authorities"][0]["serial"] != serial, "the successor")
    host.until(lambda: bundle(host) == 1, "the old one gone")
    assert [one["step"] for one in host.until(lambda: host.events("authority.rotated")[1:] and host.events(
        "authority.rotated"), "events")] == ["prepared", "in force"]
    done = host.weir("ca", "rotate", "orders")
    assert done.stdout == "the successor signs from now on\n", "nothing runs"
    with Crew(host) as crew:
        crew.whose()
        assert host.json("ca", "rotate", "orders", "--now")["in_force"]
    assert "there is no target" in host.weir("ca", "rotate", "other").stderr
    assert host.weir("ca", "rotate", "orders", "--prepare").returncode == 2


@pytest.mark.slow
def test_the_authority_of_clients_in_two_steps(host: Host) -> None:
    old = host.weir("ca", "orders").stdout
    assert old.count("BEGIN CERTIFICATE") == 1
    assert "--prepare first" in host.weir("ca", "rotate", "orders", "--clients").stderr
    both = host.weir("ca", "rotate", "orders", "--clients", "--prepare").stdout
    assert both.startswith(old)
    assert both.count("BEGIN CERTIFICATE") == 2
    assert host.weir("ca", "orders").stdout == both == host.weir("ca", "show", "orders").stdout
    assert host.weir("ca", "rotate", "orders", "--clients").returncode == 0
    assert host.weir("ca", "orders").stdout == both.removeprefix(old)
    host.until(lambda: sum(one["of"] == "clients" for one in host.events("authority.rotated")) == 3, "events")
    assert host.events("authority.rotated")[-1]["step"] == "in force"


SSH = """
[[target]]
name = "web"
protocol = "ssh"
hosts = ["192.0.2.99"]
host_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG10eEI6aW+ZfURANj2dwOHwSyiuIcF30QoBCZWZmE40"]
[[target.credential]]
certificate = "issue"
"""


@pytest.mark.slow
def test_an_ssh_hosts_keys_and_user_authority(host: Host) -> None:
    host.write(ISSUE + SSH)
    assert host.weir("reload").returncode == 0
    known = host.base / "run" / "trust" / "known_hosts"
    before, inode = known.read_text(), known.stat().st_ino
    assert before.count("192.0.2.99 ") == 3
    line = host.weir("ca", "web").stdout
    shown = {one["of"]: one for one in host.json("key")["authorities"] if one["target"] == "web"}
    assert (shown["users"]["serial"], shown["users"]["next"]) == (fingerprint(line), False)
    assert shown["hosts"]["serial"] == fingerprint(before.split(" ", 1)[1])
    assert f"host key   of hosts of target web, {shown['hosts']['serial']}\n" in host.weir("key").stdout
    both = host.weir("ca", "rotate", "web", "--clients", "--prepare")
    assert (both.stdout.startswith(line), "TrustedUserCAKeys" in both.stderr) == (True, True), both
    assert host.weir("ca", "rotate", "web", "--clients").returncode == 0
    assert line + host.weir("ca", "web").stdout == both.stdout
    with Crew(host) as crew:
        crew.whose()
        assert "clients of what runs (1) know the host keys of now" in host.weir("ca", "rotate", "web").stderr
        assert known.read_text() == before
        assert host.json("ca", "rotate", "web", "--now")["in_force"]
    assert not set(known.read_text().splitlines()) & set(before.splitlines())
    assert known.stat().st_ino == inode
    assert host.weir("ca", "rotate", "web").returncode == 0
    events = host.until(lambda: host.events("authority.rotated")[-4:], "events")
    assert {one["target"] for one in events} == {"web"}
