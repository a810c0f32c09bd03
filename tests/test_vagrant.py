"""The machines of vagrant/: their list, configuration and policies, the box's disk, and their servers without them.
What needs Vagrant was tried by hand: docs/results/vagrant.md."""
from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, combinations
from pathlib import Path

import pytest
from click.testing import CliRunner
from lab import enrol, hosts, serve
from lab.hosts import CREW, DB, SSH, USER
from lab.postgresql import NAME
from lab.servers import python_environment
from vm import box, image

from agent.cli import weir
from agent.config import parse_config
from enforcer.policy.cedar import load_policies
from enforcer.policy.tables import failures, parse_table

VAGRANT = Path(__file__).resolve().parent.parent / "vagrant"
README = (VAGRANT / "README.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.S) for line in block.splitlines()]
HANDED = {
    "db": {"ca.pem": "a root\n", "password": "secret"},
    "ssh": {"known_hosts": "ssh.lab.example a key\n", "key": "private\n"},
    "kube": {"ca.pem": "another root\n", "token": "secret", "config": "{}"},
    "idp": {"ca.pem": "one more root\n", "issuer": "https://10.77.0.9:8443/realms/lab", "people": "ada secret\n"},
}
EXPECTED = """
local:labcrew  data  connect       Target::shop                                permit
local:labcrew  data  sql:select    Table::shop/shop/public/customers           permit
local:labcrew  data  sql:delete    Table::shop/shop/public/orders              hold
local:labcrew  data  sql:ddl       Table::shop/shop/public/orders              deny
local:labcrew  data  connect       Account::build/deploy                       permit
local:labcrew  data  connect       Account::build/ops                          deny
local:labcrew  data  ssh:exec      Command::"build/deploy/cat deploy.env"      permit
local:labcrew  data  ssh:exec      Command::"build/deploy/cat /etc/passwd"     deny
local:labcrew  data  ssh:shell     Account::build/deploy                       hold
local:labcrew  data  connect       Target::prod                                permit
local:labcrew  data  k8s:get       Object::prod/shop/secrets/db                permit
local:labcrew  data  k8s:delete    Object::prod/shop/pods/web                  deny
local:labcrew  data  k8s:patch     Object::prod/shop/deployments.apps/api      deny
local:labcrew  data  k8s:patch     Object::prod/shop/deployments.apps%2Fscale/api  permit
local:labcrew  data  k8s:exec      Object::prod/shop/pods%2Fexec/web           hold
local:ada      -     connect       Target::shop                                deny
"""


def machines() -> dict[str, int]:
    """Role and last part of the address, as the Vagrantfile has them."""
    text = (VAGRANT / "Vagrantfile").read_text()
    (listed,) = re.findall(r"(?m)^MACHINES = \[(.*)\]$", text)
    return {role: int(number) for role, number in re.findall(r'\["(\w+)", (\d+), \d+\]', listed)}


def test_the_vagrantfile_has_the_machines_of_the_lab_and_the_crew_comes_last() -> None:
    listed = machines()
    assert list(listed) == [*enrol.SERVERS, "crew"]
    assert {f"10.77.0.{number}" for number in listed.values()} == {
        CREW.ipv4, *(serve.ROLES[role].host.ipv4 for role in enrol.SERVERS)}
    assert all(f"10.77.0.{listed[role]}" == serve.ROLES[role].host.ipv4 for role in enrol.SERVERS)


@pytest.mark.parametrize("script", ["box", "provision", "crew"])
def test_scripts_parse_and_may_be_run(script: str) -> None:
    path = VAGRANT / script
    shell = path.read_text().splitlines()[0].removeprefix("#!/bin/")
    assert os.access(path, os.X_OK)
    done = subprocess.run([shell, "-n", str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_runs_in_the_machines_starts_where_nothing_but_the_clone_is_there() -> None:
    (path,) = re.findall(r"(?m)^export PYTHONPATH=(\S+)", (VAGRANT / "provision").read_text())
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": path.replace("/weir", str(VAGRANT.parent)),
                   "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-P", "-m", *words], capture_output=True, text=True, env=environment,
                              cwd="/", timeout=120)

    assert f"{DB.ipv4} {NAME}" in run("lab.serve", "--hosts").stdout.splitlines()
    assert run("lab.enrol").stderr == "usage: python -m lab.enrol KEY\n"


def test_whoever_waits_on_a_slow_machine_leaves_its_processor_to_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(hosts, "PATIENCE", 20.0)
    monkeypatch.setattr("time.sleep", slept.append)
    answers = iter((False, False, True))
    hosts.wait_until("a server", lambda: next(answers))
    assert slept == [pytest.approx(0.4)] * 2


def test_the_readme_names_every_machine_and_its_commands_exist() -> None:
    for role in machines():
        assert f"| `{role}` |" in README, role
    for wanted in ("sudo vagrant/box", "vagrant up", "vagrant destroy -f"):
        assert wanted in COMMANDS, wanted
    named = {tuple(re.findall(r"[a-z][a-z-]*", words)[:2 if words.startswith("approvals") else 1])
             for line in COMMANDS for words in re.findall(r"\bweir ([a-z].*)", line)}
    assert ("run",) in named
    assert ("approvals", "list") in named
    for words in named:
        assert CliRunner().invoke(weir, [*words, "--help"]).exit_code == 0, words


def subsets() -> list[tuple[str, ...]]:
    return list(chain.from_iterable(combinations(enrol.SERVERS, size) for size in range(len(enrol.SERVERS) + 1)))


@pytest.mark.parametrize("roles", subsets(), ids="+".join)
def test_weir_is_configured_for_the_machines_that_are_there(roles: tuple[str, ...], tmp_path: Path) -> None:
    enrol.configure(tmp_path / "weir", {role: HANDED[role] for role in roles})
    config, report = parse_config((tmp_path / "weir/weir.toml").read_text(), "weir.toml")
    assert not report.problems, "\n".join(map(str, report.problems))
    assert config is not None
    targets = {"db": "shop", "ssh": "build", "kube": "prod"}
    assert [one.name for one in config.targets] == [targets[role] for role in roles if role in targets]
    policies = {path.name: path.read_text() for path in (tmp_path / "weir/policies").iterdir()}
    assert set(policies) == {f"{role}.cedar" for role in roles if role in targets}


def test_each_file_that_the_configuration_names_is_handed_out_and_secrets_are_roots_alone(tmp_path: Path) -> None:
    enrol.configure(tmp_path, HANDED)
    named = set(re.findall(r'"/etc/weir/(lab/[\w./]+)"', (tmp_path / "weir.toml").read_text()))
    assert named == {f"lab/{role}/{name}" for role, texts in HANDED.items() for name in texts} - {
        "lab/kube/config", "lab/idp/issuer", "lab/idp/people"}
    modes = {str(path.relative_to(tmp_path)): path.stat().st_mode & 0o777 for path in (tmp_path / "lab").glob("*/*")}
    assert {modes[name] for name in ("lab/db/password", "lab/ssh/key", "lab/kube/token", "lab/idp/people")} == {0o600}
    assert {modes[name] for name in ("lab/db/ca.pem", "lab/ssh/known_hosts")} == {0o644}
    assert HANDED["idp"]["issuer"] in (tmp_path / "weir.toml").read_text()


def test_no_two_workloads_run_as_one_user(tmp_path: Path) -> None:
    enrol.configure(tmp_path, HANDED)
    config, _ = parse_config((tmp_path / "weir.toml").read_text(), "weir.toml")
    assert config is not None
    assert [(one.name, one.users) for one in config.workloads] == [("crew", (USER,)), ("personal", (enrol.PERSON,))]


def test_each_home_has_its_own_files_of_the_cluster(tmp_path: Path) -> None:
    enrol.give_home(tmp_path, {"kube": {"ca.pem": "a root\n", "config": f'"certificate-authority": "{serve.CREW_CA}"'}})
    assert (tmp_path / ".kube/config").read_text() == f'"certificate-authority": "{tmp_path}/.kube/ca.pem"'
    assert (tmp_path / ".kube/ca.pem").read_text() == "a root\n"


def test_what_an_earlier_run_configured_is_gone(tmp_path: Path) -> None:
    enrol.configure(tmp_path, HANDED)
    enrol.configure(tmp_path, {"ssh": HANDED["ssh"]})
    assert [path.name for path in (tmp_path / "lab").iterdir()] == ["ssh"]
    assert "shop" not in (tmp_path / "weir.toml").read_text()


def test_the_policies_permit_hold_and_deny_what_the_readme_shows() -> None:
    files = {path.name: path.read_text() for path in (VAGRANT / "etc/policies").glob("*.cedar")}
    assert not list(failures(load_policies(files), parse_table("expected", EXPECTED)))


def test_the_disk_has_a_boot_loader_and_one_partition_with_the_tree(tmp_path: Path) -> None:
    root, to = tmp_path / "root", tmp_path / "disk"
    for name, content in (("usr/lib/grub/i386-pc/boot.img", b"L" * 512), ("boot/grub/core.img", b"C" * 30_000),
                          ("etc/hostname", b"weir-lab\n")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    box.disk(root, to)
    with to.open("rb") as file:
        first = file.read(512)
        assert file.read(30_000) == b"C" * 30_000
    assert first[:440] == b"L" * 440
    assert first[510:] == b"\x55\xaa"
    active, kind, start, sectors = struct.unpack("<B3xB3xII", first[446:462])
    assert (active, kind, start * 512) == (0x80, 0x83, 2**20)
    assert (start + sectors) * 512 == to.stat().st_size
    shown = subprocess.run(["debugfs", "-R", "cat /etc/hostname", f"{to}?offset={start * 512}"], capture_output=True)
    assert shown.stdout == b"weir-lab\n", shown.stderr


def test_a_boot_loader_that_would_reach_into_the_partition_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root/boot/grub").mkdir(parents=True)
    (tmp_path / "root/boot/grub/core.img").write_bytes(bytes(2**20))
    with pytest.raises(image.ImageError, match="too large"):
        box.disk(tmp_path / "root", tmp_path / "disk")


@pytest.fixture
def machine() -> Iterator[list[str]]:
    """The beginning of a command on a host with the addresses of three machines, a network namespace of its own."""
    with subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep infinity"],
                          stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        inside = ["nsenter", f"--net=/proc/{process.pid}/ns/net", "--"]
        batch = "link set lo up\n" + "".join(f"address add {one.ipv4}/24 dev lo\n" for one in (DB, SSH, CREW))
        subprocess.run([*inside, "ip", "-batch", "-"], input=batch, text=True, check=True)
        try:
            yield inside
        finally:
            process.kill()


@contextmanager
def served(machine: list[str], role: str, factory: pytest.TempPathFactory) -> Iterator[Path]:
    """`python -m lab.serve ROLE` while the block runs; the directory with what it handed out, each text in a file."""
    place = factory.mktemp("machine")
    for one in (factory.getbasetemp(), place):
        one.chmod(0o755)              # servers run as other users
    command = [*machine, sys.executable, "-P", "-m", "lab.serve", role, str(place / role)]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, env=python_environment(), cwd="/") as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == f"{role}: it answers\n"
            handed = place / role / "handout.json"
            assert handed.stat().st_mode & 0o777 == 0o600
            for name, text in json.loads(handed.read_text()).items():
                (place / name).touch(0o600)
                (place / name).write_text(text)
            yield place
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0


def query(machine: list[str], place: Path) -> subprocess.CompletedProcess[str]:
    server = f"host={NAME} hostaddr={DB.ipv4} user=crew_svc dbname=shop sslmode=verify-full sslrootcert={place}/ca.pem"
    return subprocess.run([*machine, "psql", "-XAt", server, "-c", "SELECT count(*) FROM orders"], capture_output=True,
                          text=True, env=os.environ | {"PGPASSFILE": f"{place}/pgpass"}, timeout=60)


@pytest.mark.lab
def test_a_database_is_served_on_the_machine_itself(
    machine: list[str], tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with served(machine, "db", tmp_path_factory) as place:
        (place / "pgpass").touch(0o600)
        (place / "pgpass").write_text(f"*:*:*:*:{(place / 'password').read_text()}\n")
        shown = query(machine, place)
        assert shown.stdout == "120\n", shown.stderr
    assert "refused" in query(machine, place).stderr


@pytest.mark.lab
def test_an_ssh_server_is_served_on_the_machine_itself(
    machine: list[str], tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with served(machine, "ssh", tmp_path_factory) as place:
        shown = subprocess.run(
            [*machine, "ssh", "-F", "none", "-b", CREW.ipv4, "-i", f"{place}/key", "-p", str(serve.SSH_PORT), "-o",
             f"UserKnownHostsFile={place}/known_hosts", "-o", "BatchMode=yes", f"{serve.LOGIN}@{SSH.ipv4}",
             "cat app.log"], capture_output=True, text=True, timeout=60)
        assert shown.stdout.splitlines()[:1] == ["2026-01-01 order 7 shipped"], shown.stderr


@pytest.mark.lab
def test_a_machine_without_the_address_is_told_so(tmp_path: Path) -> None:
    done = subprocess.run(["unshare", "--net", sys.executable, "-P", "-m", "lab.serve", "db", str(tmp_path / "db")],
                          capture_output=True, text=True, env=python_environment(), cwd="/", timeout=60)
    assert done.returncode == 1
    assert f"this machine does not have the address {DB.ipv4}" in done.stderr
