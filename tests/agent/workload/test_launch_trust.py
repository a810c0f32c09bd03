"""A real client in a workload and a real PostgreSQL with a leaf of Weir's: verification as the client chose it."""
from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from launchhost import UID, Host

pytestmark = pytest.mark.kernel

PROGRAMS = Path("/usr/lib/postgresql/15/bin")
NAME = "db.shop.example"


class Server:
    """PostgreSQL on loopback, only over TLS, only for user `crew` without a password."""

    def __init__(self, base: Path, certificate: Path, key: Path) -> None:
        self.base, self.data = base, base / "data"
        base.mkdir()
        shutil.chown(base, "postgres")
        self._run(PROGRAMS / "initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "--no-sync")
        for source, name in ((certificate, "server.crt"), (key, "server.key")):
            shutil.copy(source, self.data / name)
            shutil.chown(self.data / name, "postgres")
            (self.data / name).chmod(0o600)
        (self.data / "pg_hba.conf").write_text("local all all trust\nhostssl all all 127.0.0.1/32 trust\n")
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port: int = sock.getsockname()[1]
        options = f"-c ssl=on -c fsync=off -c listen_addresses=127.0.0.1 -c port={self.port} -k {base}"
        self._run(PROGRAMS / "pg_ctl", "-D", self.data, "-l", base / "log", "-w", "-o", options, "start")
        self._run(PROGRAMS / "createuser", "-h", base, "-p", str(self.port), "-U", "postgres", "crew")

    def _run(self, *argv: str | Path) -> None:
        subprocess.run([*map(str, argv)], user="postgres", group="postgres", extra_groups=[], cwd="/", check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={"PATH": os.environ["PATH"]})

    def close(self) -> None:
        self._run(PROGRAMS / "pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    base = tmp_path_factory.mktemp("trust")
    targets = [{"name": "shop", "hosts": [NAME], "files": ["~/own.pem"]}]
    made = Host(base, f"weirtest-trust{os.getpid()}", targets=targets)
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(host: Host) -> Iterator[Server]:
    made = Server(host.base / "pg", host.base / "shop.pem", host.base / "shop.key")
    yield made
    made.close()


@pytest.fixture
def empty(host: Host) -> Iterator[Path]:
    """A home without anything that libpq looks for; `own.pem` is the roots that the client chose."""
    theirs = host.home / "own.pem"
    key, other = host.base / "other.key", host.base / "other.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-subj", "/CN=the database's own authority", "-keyout", key, "-out", other], check=True, capture_output=True)
    shutil.copy(other, theirs)
    yield theirs
    theirs.unlink()
    shutil.rmtree(host.home / ".postgresql", ignore_errors=True)


def psql(made: Host, server: Server, mode: str, **more: str) -> tuple[int, bytes, bytes]:
    given = {"host": NAME, "hostaddr": "127.0.0.1", "port": str(server.port), "user": "crew", "dbname": "postgres",
             "sslmode": mode} | more
    return made.run("psql", "-XAtc", "select 1", " ".join(f"{name}={value}" for name, value in given.items()))


def test_verify_full_with_the_clients_own_root_file(host: Host, server: Server, empty: Path) -> None:
    before = empty.read_bytes()
    assert psql(host, server, "verify-full", sslrootcert=str(empty)) == (0, b"1\n", b"")
    assert empty.read_bytes() == before
    # The file alone, as it is outside Weir, does not do.
    control = subprocess.run(
        ["psql", "-XAtc", "select 1", f"host={NAME} hostaddr=127.0.0.1 port={server.port} user=crew dbname=postgres "
         f"sslmode=verify-full sslrootcert={empty}"], capture_output=True)
    assert b"certificate verify failed" in control.stderr


def test_another_name_is_still_refused(host: Host, server: Server, empty: Path) -> None:
    code, _, err = psql(host, server, "verify-full", sslrootcert=str(empty), host="db.other.example")
    assert code == 2
    assert b"does not match host name" in err


def test_what_the_client_sees_is_its_own_file_and_weirs_authority(host: Host, empty: Path) -> None:
    _, out, _ = host.run("cat", str(empty))
    assert out == empty.read_bytes() + (host.base / "run/trust/weir.pem").read_bytes()
    assert host.run("sh", "-c", "echo x >>~/own.pem")[0] != 0


def test_without_a_postgresql_directory_nothing_is_made(host: Host, server: Server, empty: Path) -> None:
    assert psql(host, server, "require")[:2] == (0, b"1\n")
    code, _, err = psql(host, server, "verify-full")
    assert (code, b"root certificate file" in err) == (2, True)
    assert not (host.home / ".postgresql").exists()


def test_an_absent_root_crt_is_there_inside_and_leaves_nothing_outside(
    host: Host, server: Server, empty: Path,
) -> None:
    directory = host.home / ".postgresql"
    directory.mkdir(mode=0o755)
    (directory / "postgresql.key").write_text("mine")
    (directory / "link").symlink_to("postgresql.key")
    for path in (directory, directory / "postgresql.key"):
        os.chown(path, UID, UID)
    assert psql(host, server, "verify-full")[:2] == (0, b"1\n")
    _, out, _ = host.run("sh", "-c", "cd ~/.postgresql; ls -A; cat link; : >new; rm -f root.crt; ls root.crt")
    assert out == b"link\npostgresql.key\nroot.crt\nmineroot.crt\n"
    assert sorted(path.name for path in directory.iterdir()) == ["link", "postgresql.key"]


def test_a_root_crt_that_is_there_is_added_to(host: Host, server: Server, empty: Path) -> None:
    directory = host.home / ".postgresql"
    directory.mkdir(mode=0o755)
    shutil.copy(empty, directory / "root.crt")
    assert psql(host, server, "verify-full")[:2] == (0, b"1\n")
    assert (directory / "root.crt").read_bytes() == empty.read_bytes()


def test_openssls_clients_find_the_bundle(host: Host, server: Server) -> None:
    """What SSL_CERT_FILE names and what the system's place holds is the same."""
    code, out, _ = host.run("sh", "-c", "cmp $SSL_CERT_FILE /etc/ssl/certs/ca-certificates.crt && echo same")
    assert (code, out) == (0, b"same\n")
    code, out, _ = host.run(
        "openssl", "s_client", "-starttls", "postgres", "-connect", f"127.0.0.1:{server.port}", "-verify_return_error",
        "-verify_hostname", NAME, "-brief", input=b"")
    assert code == 0


# the view where it has to be rebuilt


def test_a_read_only_home_stays_read_only_where_it_is_rebuilt(tmp_path: Path) -> None:
    made = Host(tmp_path, f"weirtest-readonly{os.getpid()}", directories=[],
                targets=[{"name": "shop", "hosts": [NAME]}],
                read_only=[str(tmp_path / "home"), str(tmp_path / "code"), sys.prefix])
    try:
        directory = made.home / ".postgresql"
        directory.mkdir()
        (directory / "postgresql.key").write_text("mine")
        for path in (directory, directory / "postgresql.key"):
            os.chown(path, UID, UID)
        code, out, _ = made.run("sh", "-c", "cd ~/.postgresql && ls -A && ! echo x >>postgresql.key && ! touch new")
        assert (code, out) == (0, b"postgresql.key\nroot.crt\n")
        assert (directory / "postgresql.key").read_text() == "mine"
    finally:
        made.close()


def test_a_callers_variable_does_not_open_what_is_hidden(tmp_path: Path) -> None:
    made = Host(tmp_path, f"weirtest-hidden{os.getpid()}", directories=["~", str(tmp_path)],
                targets=[{"name": "shop", "hosts": [NAME]}])
    try:
        secret = tmp_path / "etc" / "own.pem"
        secret.write_text("-----BEGIN CERTIFICATE-----\nsecret\n")
        code, out, err = made.run("sh", "-c", "cat $SSL_CERT_FILE; echo ran", env={"SSL_CERT_FILE": str(secret)})
        assert (code, out) == (0, b"ran\n")
        assert b"No such file" in err
    finally:
        made.close()
