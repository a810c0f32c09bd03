"""What a unit is given, from a configuration and the files of a host; and how those files are kept."""
from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from agent import bound, planning
from agent.adoptable import Unit
from agent.config import Config, parse_config
from agent.planning import Planned, plan_unit

CONFIG = """
[runtime]
state = "{base}/state"
run = "{base}/run"
[[workload]]
name = "crew"
users = ["crew"]
directories = [{directories}]
read_only = [{read_only}]
unit = "crew.service"
[[target]]
name = "orders"
protocol = "postgresql"
hosts = ["10.77.0.4"]
port = 5432
trust = [{trust}]
[[target.credential]]
user = "svc"
password_file = "/x"
"""
UNIT = Unit({"User": "nobody-of-this-name", "Type": "simple", "NotifyAccess": "none"}, ())
PEM = b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"
OURS = b"-----BEGIN CERTIFICATE-----\nBB==\n-----END CERTIFICATE-----\n"
MORE = b"-----BEGIN CERTIFICATE-----\nCC==\n-----END CERTIFICATE-----\n"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: what root alone decides is told by owners")


def configured(base: Path, *, directories: str = "", read_only: str = "", trust: str = "") -> Config:
    config, report = parse_config(CONFIG.format(base=base, directories=directories, read_only=read_only, trust=trust),
                                  "/etc/weir/weir.toml")
    assert config is not None, report.problems
    return config


def planned(base: Path, unit: Unit = UNIT, **how: str) -> Planned:
    config = configured(base, **how)
    return plan_unit(config, config.workloads[0], "crew.service", unit)


@pytest.fixture
def rooted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of which root alone says what its names mean; pytest's own lies below one that anybody writes."""
    base = Path("/var/lib") / f"weir-test-{os.getpid()}"
    base.mkdir(mode=0o755)
    yield base
    import shutil

    shutil.rmtree(base)


def test_directories(tmp_path: Path) -> None:
    for name in ("work", "work/inner", "tools", "led"):
        (tmp_path / name).mkdir()
    (tmp_path / "led" / "to").symlink_to(tmp_path / "tools")
    found = planned(tmp_path, directories=f'"{tmp_path}/work", "{tmp_path}/work/inner", "{tmp_path}/none"',
                    read_only=f'"{tmp_path}/led/to"')
    assert found.plan.writable == (f"{tmp_path}/work",), "what lies within another is not bound by itself"
    assert found.plan.readable == (f"{tmp_path}/tools",), "by the name that it has now"
    assert found.wrong == ()
    assert found.plan.hidden == ("/etc/weir", f"{tmp_path}/run", f"{tmp_path}/state")
    assert found.plan.root == f"{tmp_path}/state/units/crew/root"


@pytest.mark.parametrize(("directories", "read_only", "said"), [
    ("work", "work/inner", "could lead elsewhere at the next start"), ("/", "", "sockets or switches"),
    ("/run", "", "sockets or switches"), ("", "/proc", "sockets or switches"), ("", "/sys/fs", "sockets or switches"),
    ("odd name", "", "what a path in a drop-in is made of"), ("a%h", "", "what a path in a drop-in is made of"),
    ("sock", "", "sockets or switches"),
])
def test_what_is_not_given_to_a_unit(tmp_path: Path, directories: str, read_only: str, said: str) -> None:
    for name in ("work/inner", "odd name", "a%h"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "sock").symlink_to("/run")

    def listed(name: str) -> str:
        return f'"{name if name.startswith("/") else tmp_path / name}"' if name else ""

    found = planned(tmp_path, directories=listed(directories), read_only=listed(read_only))
    assert any(said in one for one in found.wrong), found.wrong


def test_a_slice_that_systemd_would_put_elsewhere(tmp_path: Path) -> None:
    config = configured(tmp_path)
    import msgspec

    config = msgspec.structs.replace(config, runtime=msgspec.structs.replace(config.runtime, name="a-b"))
    found = plan_unit(config, config.workloads[0], "crew.service", UNIT)
    assert any("slice within another" in one for one in found.wrong)


def test_trust(rooted: Path) -> None:
    own = rooted / "db-ca.pem"
    own.write_bytes(PEM)
    found = planned(rooted, trust=f'"{own}"')
    name = str(own).strip("/").replace("/", "_")
    assert found.added == {name: PEM}
    assert (f"{rooted}/state/units/crew/{name}", str(own)) in found.plan.files
    assert ("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt") in found.plan.environment
    assert (f"{rooted}/state/units/crew/resolv.conf", os.path.realpath("/etc/resolv.conf")) in found.plan.files
    assert found.notes == ()


@pytest.mark.parametrize("how", ["directory of others", "link to there", "writable directory"])
def test_trust_that_somebody_else_could_lead_elsewhere(rooted: Path, how: str) -> None:
    """systemd would follow it as root at each start, and make what is not there."""
    own = rooted / "theirs" / "ca.pem"
    own.parent.mkdir()
    own.write_bytes(PEM)
    named = own
    if how == "writable directory":
        own.parent.chmod(0o777)
    else:
        os.chown(own.parent, 65534, 65534)
    if how == "link to there":
        named = rooted / "link.pem"
        named.symlink_to(own)
    found = planned(rooted, trust=f'"{named}"')
    assert not [target for _, target in found.plan.files if "theirs" in target or "link" in target]
    assert any("not covered" in one for one in found.notes)


def test_what_the_unit_has_chosen_itself(rooted: Path) -> None:
    own = rooted / "own.pem"
    own.write_bytes(PEM)
    (rooted / "environment").write_text(f"# x\nREQUESTS_CA_BUNDLE='{own}'\n")
    unit = Unit({**UNIT.properties, "Environment": ("SSL_CERT_FILE=/elsewhere.pem",),
                 "EnvironmentFiles": ((f"{rooted}/environment", False),)}, ())
    found = planned(rooted, unit)
    names = {name for name, _ in found.plan.environment}
    assert {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"}.isdisjoint(names)
    assert "CURL_CA_BUNDLE" in names
    assert str(own) in {target for _, target in found.plan.files}


def test_libpqs_own_root_file(rooted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a variable: over a file in the user's home nothing is bound.  Only one that is the user's own is read."""
    import pwd

    home = rooted / "home"
    (home / ".postgresql").mkdir(parents=True)
    account = pwd.struct_passwd(("crew", "x", 12345, 12345, "", str(home), "/bin/sh"))
    monkeypatch.setattr(planning, "_account", lambda unit: account)
    root = home / ".postgresql" / "root.crt"
    root.write_bytes(PEM)
    assert "PGSSLROOTCERT" not in dict(planned(rooted).plan.environment), "root's"
    os.chown(root, 12345, 12345)
    found = planned(rooted)
    assert dict(found.plan.environment)["PGSSLROOTCERT"] == "/run/trust/postgresql.pem"
    assert found.added[planning.LIBPQ] == PEM
    assert not [target for _, target in found.plan.files if target.startswith(str(home))]
    root.rename(home / "real")
    root.symlink_to(home / "real")
    assert "PGSSLROOTCERT" not in dict(planned(rooted).plan.environment), "a link"


def test_files_are_kept(rooted: Path) -> None:
    """Added to in place, for a bind shows the very file; replaced only while the unit does not run."""
    own, trust = rooted / "db-ca.pem", rooted / "run" / "trust"
    own.write_bytes(PEM)
    trust.mkdir(parents=True)
    for name, content in (("weir.pem", OURS), ("roots.pem", b"roots\n" + OURS), ("resolv.conf", b"nameserver 1\n")):
        (trust / name).write_bytes(content)
    found = planned(rooted, trust=f'"{own}"')
    directory = planning.directory_of(configured(rooted), "crew")
    bound.write_files(found, directory, trust, running=False)
    name = next(iter(found.added))
    assert (directory / name).read_bytes() == PEM + OURS
    assert (directory / "resolv.conf").read_bytes() == b"nameserver 1\n"
    assert (directory / "root").is_dir()

    inodes = {path.name: path.stat().st_ino for path in directory.iterdir()}
    (trust / "weir.pem").write_bytes(OURS + MORE)
    (trust / "roots.pem").write_bytes(b"other roots\n" + OURS + MORE)
    (trust / "resolv.conf").write_bytes(b"nameserver 22\n")
    bound.refresh(directory, trust, running=True)
    assert (directory / name).read_bytes() == PEM + OURS + MORE
    assert (directory / "roots.pem").read_bytes() == b"roots\n" + OURS + MORE
    assert (directory / "resolv.conf").read_bytes() == b"nameserver 22\n"
    assert {path.name: path.stat().st_ino for path in directory.iterdir()} == inodes
    bound.refresh(directory, trust, running=True)
    assert (directory / name).read_bytes() == PEM + OURS + MORE, "each once"
    bound.refresh(directory, trust, running=False)
    assert (directory / "roots.pem").read_bytes() == b"other roots\n" + OURS + MORE

    fewer = replace(found, plan=replace(found.plan, files=found.plan.files[:1]))
    bound.write_files(fewer, directory, trust, running=False)
    assert not (directory / name).exists()
    bound.remove_files(directory)
    bound.remove_files(directory)
    bound.refresh(directory, trust, running=False)
    assert not directory.exists()
