"""What a unit is given, from a configuration and the files of a host; and how those files are kept."""
from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.config import Config, parse_config
from agent.credential.trust import SYSTEM_BUNDLE
from agent.unit import bound, planning
from agent.unit.adoptable import Unit
from agent.unit.dropin import render_dropin
from agent.unit.planning import Planned, plan_unit

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

KEY = b"-----BEGIN OPENSSH PRIVATE KEY-----\nU0VDUkVU\n-----END OPENSSH PRIVATE KEY-----\n"
CREW = 12345

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: what root alone decides is told by owners")


def configured(
    base: Path, *, directories: str = "", read_only: str = "", trust: str = "", text: str = CONFIG,
) -> Config:
    config, report = parse_config(text.format(base=base, directories=directories, read_only=read_only, trust=trust),
                                  "/etc/weir/weir.toml")
    assert config is not None, report.problems
    return config


def planned(base: Path, unit: Unit = UNIT, **how: str) -> Planned:
    config = configured(base, **how)
    return plan_unit(config, config.workloads[0], "crew.service", unit)


@pytest.fixture
def rooted() -> Iterator[Path]:
    """A directory of which root alone says what its names mean; pytest's own lies below one that anybody writes."""
    base = Path("/var/lib") / f"weir-test-{os.getpid()}"
    base.mkdir(mode=0o755)
    yield base
    shutil.rmtree(base)


@pytest.fixture
def home(rooted: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of the unit's user, and his."""
    path = rooted / "home"
    path.mkdir()
    os.chown(path, CREW, CREW)
    account = pwd.struct_passwd(("crew", "x", CREW, CREW, "", str(path), "/bin/sh"))
    monkeypatch.setattr(planning, "_account", lambda unit: account)
    return path


def test_directories(rooted: Path) -> None:
    for name in ("work", "work/inner", "tools", "led"):
        (rooted / name).mkdir()
    os.chown(rooted / "work", CREW, CREW)
    (rooted / "led" / "to").symlink_to(rooted / "tools")
    found = planned(rooted, directories=f'"{rooted}/work", "{rooted}/work/inner", "{rooted}/none"',
                    read_only=f'"{rooted}/led/to"')
    assert found.plan.writable == (f"{rooted}/work",), "what lies within another is not bound by itself"
    assert found.plan.readable == (f"{rooted}/tools",), "by the name that it has now"
    assert found.wrong == ()
    assert [one for one in found.notes if f"{rooted}/none is left out" in one]
    assert found.plan.hidden == ("/etc/weir", f"{rooted}/run", f"{rooted}/state")
    assert found.plan.root == f"{rooted}/state/units/crew/root"


@pytest.mark.parametrize("listed", ["directories", "read_only"])
@pytest.mark.parametrize("there", [True, False])
def test_no_bind_leads_through_what_the_crew_writes(home: Path, listed: str, there: bool) -> None:
    """What runs still, or what has left it, may put a link to /run in its place before the next start."""
    if there:
        (home / "work").mkdir()
    found = planned(home.parent, **{listed: '"~/work"'})
    [said] = found.wrong
    assert f"not only root may write {home}" in said
    assert "name ~ itself" in said
    assert (found.plan.writable, found.plan.readable) == ((), ())
    whole = planned(home.parent, directories='"~", "~/work"')
    assert (whole.wrong, whole.plan.writable) == ((), (str(home),))


SOCKET = 'port = 5432\nupstream = "{0}/.s.PGSQL.5432"\nsockets = ["/run/postgresql/.s.PGSQL.5432"]\n'


@pytest.mark.parametrize("shown", ["{0}/pg", "{0}/led", "{0}"])
@pytest.mark.parametrize("named", ["{0}/pg", "{0}/led"])
def test_a_databases_own_socket(rooted: Path, shown: str, named: str) -> None:
    """As `weir run`; and by whatever name."""
    (rooted / "pg").mkdir()
    (rooted / "other").mkdir()
    (rooted / "led").symlink_to("pg")
    text = CONFIG.replace("port = 5432\n", SOCKET.format(named.format("{base}")))
    found = planned(rooted, read_only=f'"{shown.format(rooted)}"', text=text)
    [said] = found.wrong
    assert "a registered target's own socket" in said
    found = planned(rooted, read_only=f'"{rooted}/other"', text=text)
    assert found.wrong == ()
    assert {f"{rooted}/pg/.s.PGSQL.5432", "/run/postgresql/.s.PGSQL.5432"} <= set(found.plan.hidden)


@pytest.mark.parametrize(("directories", "read_only", "said"), [
    ("work", "work/inner", "could lead elsewhere at the next start"), ("/", "", "sockets or switches"),
    ("/run", "", "sockets or switches"), ("", "/proc", "sockets or switches"), ("", "/sys/fs", "sockets or switches"),
    ("odd name", "", "what a path in a drop-in is made of"), ("a%h", "", "what a path in a drop-in is made of"),
    ("sock", "", "sockets or switches"),
])
def test_what_is_not_given_to_a_unit(rooted: Path, directories: str, read_only: str, said: str) -> None:
    for name in ("work/inner", "odd name", "a%h"):
        (rooted / name).mkdir(parents=True)
    (rooted / "sock").symlink_to("/run")

    def listed(name: str) -> str:
        return f'"{name if name.startswith("/") else rooted / name}"' if name else ""

    found = planned(rooted, directories=listed(directories), read_only=listed(read_only))
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


@pytest.mark.parametrize("how", ["link of the crew's", "link of root's", "named", "in a directory of root's",
                                 "Weir's own", "by the environment"])
def test_what_only_root_reads_is_not_shown_to_everybody(home: Path, how: str) -> None:
    """Neither as a whole nor in part, whoever names it."""
    base, unit = home.parent, UNIT
    (private := base / "private").mkdir()
    path = named = private / "key.pem"
    path.write_bytes(PEM + KEY)
    if how == "in a directory of root's":
        private.chmod(0o700)
    else:
        path.chmod(0o600)
    if how == "Weir's own":
        path = named = base / "state" / "ca" / "ca.pem"
        path.parent.mkdir(parents=True)
        path.write_bytes(PEM)
    elif how.startswith("link"):
        (named := home / "db-ca.pem").symlink_to(path)
        if how == "link of the crew's":
            os.lchown(named, CREW, CREW)
    elif how == "by the environment":
        unit = Unit({**UNIT.properties, "Environment": (f"SSL_CERT_FILE={path}",)}, ())
    found = planned(base, unit, trust=f'"{named}"' if unit is UNIT else "")
    assert found.added == {}
    assert not [target for _, target in found.plan.files if target in (str(path), str(named))]
    assert any(f"{named} is not covered" in one for one in found.notes)


def test_of_a_root_file_only_certificates_are_taken(rooted: Path) -> None:
    trusted = PEM.replace(b"CERTIFICATE", b"TRUSTED CERTIFICATE")
    for name, content in (("mixed.pem", b"# text\n" + PEM + KEY + trusted + KEY), ("key.pem", KEY),
                          ("odd.pem", PEM.replace(b"AA==", b"AA==\n-----BEGIN X-----\nsecret"))):
        (rooted / name).write_bytes(content)
    found = planned(rooted, trust=", ".join(f'"{rooted}/{name}.pem"' for name in ("mixed", "key", "odd")))
    assert list(found.added.values()) == [PEM + trusted]
    assert [one for one in found.notes if f"{rooted}/key.pem is not covered" in one]


@pytest.mark.parametrize("how", ["the crew's", "others write it", "in the crew's directory", "a link of the crew's",
                                 "a device"])
def test_an_environment_file_that_is_not_roots_alone_is_not_read(home: Path, how: str) -> None:
    """Whoever may write it says which file root reads; what it leads to is not even opened."""
    base = home.parent
    (own := base / "own.pem").write_bytes(PEM)
    (path := base / "environment").write_text(f"SSL_CERT_FILE={own}\n")
    if how == "the crew's":
        os.chown(path, CREW, CREW)
    elif how == "others write it":
        path.chmod(0o666)
    elif how == "in the crew's directory":
        path = path.rename(home / "environment")
    elif how == "a link of the crew's":
        (link := home / "environment").symlink_to(path)
        path = link
    else:
        path = base / "null"
        os.mknod(path, 0o20644, os.makedev(1, 3))
    unit = Unit({**UNIT.properties, "EnvironmentFiles": ((str(path), False),)}, ())
    found = planned(base, unit)
    assert "SSL_CERT_FILE" in dict(found.plan.environment)
    assert str(own) not in {target for _, target in found.plan.files}
    assert [one for one in found.notes if f"EnvironmentFile= {path} is not read" in one]


def in_force(unit: Unit, text: str) -> Unit:
    """What a plan is made from, as systemd says it once this drop-in counts: variables are added to."""
    lines = [(name, value) for name, _, value in (line.partition("=") for line in text.splitlines())]
    given = dict(lines)
    allowed = tuple(sorted(given["RestrictAddressFamilies"].removeprefix("none").split()))
    shown = {**unit.properties, "RestrictAddressFamilies": (True, allowed), "FileDescriptorStoreMax": 0,
             "Environment": (*unit.all("Environment"), *(value for name, value in lines if name == "Environment"))}
    if "NotifyAccess" in given:
        shown["NotifyAccess"] = given["NotifyAccess"]
    elif unit["Type"] == "simple" and unit.properties["FileDescriptorStoreMax"]:
        shown["NotifyAccess"] = "none"
    return Unit(shown, unit.commands)


@pytest.mark.parametrize("own", [
    {}, {"Environment": ("A=b", "SSL_CERT_FILE=/elsewhere.pem")}, {"Environment": (f"CURL_CA_BUNDLE={SYSTEM_BUNDLE}",)},
    {"RestrictAddressFamilies": (True, ("AF_UNIX", "AF_INET"))}, {"RestrictAddressFamilies": (False, ("AF_NETLINK",))},
    {"Type": "notify", "NotifyAccess": "main"}, {"NotifyAccess": "all"},
    {"NotifyAccess": "main", "FileDescriptorStoreMax": 7},
], ids=str)
def test_planned_again_with_the_drop_in_in_force(home: Path, own: dict[str, object]) -> None:
    """The same text: else the state would say that the unit is to be adopted again, for ever."""
    (home / ".postgresql").mkdir()
    (root := home / ".postgresql" / "root.crt").write_bytes(PEM)
    os.chown(root, CREW, CREW)
    unit = Unit({**UNIT.properties, "FileDescriptorStoreMax": 0, **own}, ())
    first = planned(home.parent, unit, directories='"~"')
    text = render_dropin(first.plan)
    assert "PGSSLROOTCERT=/run/trust/postgresql.pem" in text
    again = planned(home.parent, in_force(unit, text), directories='"~"')
    assert render_dropin(again.plan).splitlines() == text.splitlines()
    assert (again.notes, again.wrong, again.added) == (first.notes, first.wrong, first.added)


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


def test_libpqs_own_root_file(home: Path) -> None:
    """By a variable: over a file in the user's home nothing is bound.  Only one that is the user's own is read."""
    (home / ".postgresql").mkdir()
    rooted, root = home.parent, home / ".postgresql" / "root.crt"
    root.write_bytes(PEM + KEY)
    assert "PGSSLROOTCERT" not in dict(planned(rooted).plan.environment), "root's"
    os.chown(root, CREW, CREW)
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
    assert (directory / name).exists(), "the drop-in before may still name it"
    bound.forget_files(fewer, directory)
    assert not (directory / name).exists()
    bound.remove_files(directory)
    bound.remove_files(directory)
    bound.refresh(directory, trust, running=False)
    assert not directory.exists()


# known_hosts

SSH = CONFIG[:CONFIG.index("[[target]]")] + """
[[target]]
name = "web"
protocol = "ssh"
hosts = ["web.lab"]
host_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG10eEI6aW+ZfURANj2dwOHwSyiuIcF30QoBCZWZmE40"]
trust = [{trust}]
[[target.credential]]
certificate = "issue"
"""
WEIRS = b"web.lab ssh-ed25519 AAAA\n"


def test_weirs_host_keys(home: Path) -> None:
    """OpenSSH reads the system's file; over one that the crew may write nothing is bound, and that is said."""
    base = home.parent
    own = base / "hosts"
    own.write_bytes(b"else x y\nweb.lab ssh-rsa AAAA")
    found = planned(base, text=SSH, trust=f'"{own}"')
    directory = base / "state" / "units" / "crew"
    name = f"{str(own).strip('/').replace('/', '_')}.hosts"
    assert [one for one in found.plan.files if one[1] != "/etc/resolv.conf"][-2:] == [
        (f"{directory}/ssh_known_hosts", "/etc/ssh/ssh_known_hosts"), (f"{directory}/{name}", str(own))]
    assert found.plan.environment == (), "nobody is known by a certificate"
    [said] = [one for one in found.notes if ".ssh/known_hosts" in one]
    assert said.startswith(f"{home}/.ssh/known_hosts stays the unit's own: what reads that alone (paramiko, asyncssh)")
    trust = base / "run" / "trust"
    trust.mkdir(parents=True)
    for file in ("resolv.conf", "roots.pem", "weir.pem"):
        (trust / file).write_bytes(b"")
    (trust / "known_hosts").write_bytes(WEIRS)
    (trust / "ssh_known_hosts").write_bytes(b"system x y\n" + WEIRS)
    bound.write_files(found, directory, trust, running=False)
    assert (directory / name).read_bytes() == b"else x y\n" + WEIRS
    inode = (directory / name).stat().st_ino
    (trust / "known_hosts").write_bytes(WEIRS + b"new.lab ssh-ed25519 AAAA\n")
    (trust / "ssh_known_hosts").write_bytes(WEIRS)
    bound.refresh(directory, trust, running=True)
    assert (directory / name).read_bytes() == b"else x y\n" + WEIRS + b"new.lab ssh-ed25519 AAAA\n"
    assert (directory / "ssh_known_hosts").read_bytes() == WEIRS
    assert (directory / name).stat().st_ino == inode, "a unit that runs has it bound"
