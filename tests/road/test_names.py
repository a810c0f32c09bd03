"""Names on the road: Weir's resolver for a real crew, and what goes by name to a real TLS server.

Ways round end nowhere: the DNS server's own log and the sink's memory are the verdict.
"""
from __future__ import annotations

import socket
import sqlite3
import ssl
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from lab import certificates
from lab.hosts import DNS, OTHER, wait_until
from lab.lab import Lab
from lab.weir import Installed, weir

pytestmark = pytest.mark.lab

PORT = 8443
EGRESS = f"""
[[egress]]
name = "api"
addresses = ["api.lab.example"]
ports = [{PORT}, 8081]

[[egress]]
name = "cdn"
addresses = ["*.cdn.lab.example"]
ports = [8444]
private = true

[[egress]]
name = "nowhere"
addresses = ["meta.lab.example", "loop.lab.example"]
ports = [80]
"""
ASK = """
import socket, sys
name, kind, way, where = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
labels = b"".join(bytes([len(one)]) + one for one in name.encode().split(b".")) + bytes(1)
query = bytes.fromhex("abcd01000001000000000000") + labels + kind.to_bytes(2, "big") + bytes([0, 1])
try:
    if way == "tcp":
        with socket.create_connection((where, 53), 3) as s:
            s.sendall(len(query).to_bytes(2, "big") + query)
            said = s.recv(2000)[2:]
    else:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(3)
            if way == "connected":
                s.connect((where, 53))
                s.send(query)
            else:
                s.sendto(query, (where, 53))
            said = s.recv(2000)
    print(said[3] & 15, int.from_bytes(said[6:8], "big"))
except OSError as error:
    print(type(error).__name__)
"""
TALK = """
import socket, ssl, sys
host, port, sni, token = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
try:
    s = socket.create_connection((host, port), 8)
    if sni != "plain":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        s = context.wrap_socket(s, server_hostname=None if sni == "none" else sni)
        s.sendall(token.encode())
    else:
        s.sendall(eval(token))
    print(s.recv(1000))
except (OSError, EOFError) as error:
    print(type(error).__name__)
"""
RESOLVER = "127.53.53.53"
A, TXT, AAAA, ANY, HTTPS = 1, 16, 28, 255, 65


class Echo:
    """TLS on one port, plain on another, both on host OTHER; remembers what it got."""

    def __init__(self, directory: Path) -> None:
        authority = certificates.make_authority("Names CA")
        certificate, key = certificates.make_leaf(authority, ("api.lab.example",), (OTHER.ipv4,))
        certificates.write(directory / "api.pem", certificate)
        certificates.write(directory / "api.key", key, 0o600)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(directory / "api.pem", directory / "api.key")
        self.seen: list[bytes] = []
        with OTHER.entered():
            self.doors = {port: socket.create_server((OTHER.ipv4, port)) for port in (PORT, 8444, 8081)}
        for port, door in self.doors.items():
            threading.Thread(target=self._accept, args=(door, port != 8081), daemon=True).start()

    def _accept(self, door: socket.socket, secure: bool) -> None:
        while True:
            try:
                link, _ = door.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(link, secure), daemon=True).start()

    def _one(self, link: socket.socket, secure: bool) -> None:
        try:
            link.settimeout(10)
            with self.context.wrap_socket(link, server_side=True) if secure else link as talk:
                while data := talk.recv(4096):
                    self.seen.append(data)
                    talk.sendall(data)
        except OSError:
            pass

    def saw(self, token: str) -> bool:
        return any(token.encode() in data for data in list(self.seen))

    def close(self) -> None:
        for door in self.doors.values():
            door.shutdown(socket.SHUT_RDWR)
            door.close()


@pytest.fixture(scope="module")
def echo(the_lab: Lab) -> Iterator[Echo]:
    one = Echo(the_lab.scratch)
    yield one
    one.close()


@pytest.fixture(scope="module")
def named(the_lab: Lab, echo: Echo) -> Iterator[Installed]:
    with weir(the_lab, more=EGRESS) as installed:
        yield installed


def ask(named: Installed, name: str, kind: int = A, way: str = "udp", where: str = RESOLVER) -> str:
    done = named.crew("/usr/bin/python3", "-c", ASK, name, str(kind), way, where)
    return done.stdout.strip() or done.stderr


def talk(named: Installed, host: str, port: int, sni: str, token: str) -> str:
    done = named.crew("/usr/bin/python3", "-c", TALK, host, str(port), sni, token)
    return done.stdout.strip() or done.stderr


def asked(lab: Lab) -> str:
    return (lab.scratch / "dns.log").read_text()


def rows(named: Installed, sql: str) -> list[tuple[str, ...]]:
    found = []
    for path in sorted(named.recording.glob("recording-*.sqlite")):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            found += database.execute(sql).fetchall()
    return found


def recorded(named: Installed, sql: str, wanted: str) -> None:
    wait_until(f"{wanted} in {sql}", lambda: any(wanted in str(row) for row in rows(named, sql)), 20)


@pytest.mark.parametrize("way", ["udp", "connected", "tcp"])
def test_a_crew_asks_for_its_database(named: Installed, way: str) -> None:
    assert ask(named, "db.lab.example", A, way) == "0 1"
    assert ask(named, "DB.Lab.Example", AAAA, way) == "0 1"
    assert ask(named, "db.lab.example", TXT, way) == "0 0"
    assert ask(named, "db.lab.example", ANY, way) == "5 0"
    recorded(named, "SELECT workload, detail FROM host_event WHERE name = 'dns.answered'", "db.lab.example")
    assert all(row[0] == "crew" for row in rows(named, "SELECT workload FROM host_event WHERE name = 'dns.answered'"))


def test_getaddrinfo_and_resolv_conf(named: Installed) -> None:
    done = named.crew("/usr/bin/python3", "-c", "import socket; print(sorted({one[4][0] for one in "
                      "socket.getaddrinfo('db.lab.example', 5432)})); print(open('/etc/resolv.conf').read())")
    assert "['10.77.0.4', 'fd77::4']" in done.stdout, done.stderr
    assert f"nameserver {RESOLVER}" in done.stdout
    assert f"{RESOLVER}:53, asks {DNS.ipv4}:53" in " ".join(named.weir("status").stdout.split())


@pytest.mark.parametrize("way", ["udp", "connected", "tcp"])
def test_no_other_server_is_reached(named: Installed, way: str) -> None:
    token = f"x{uuid.uuid4().hex}"
    said = ask(named, f"{token}.lab.example", A, way, DNS.ipv4)
    assert said[0] not in "0123456789", said
    assert token not in asked(named.lab)


@pytest.mark.parametrize(("below", "kind"), [
    ("lab.example", A), ("db.lab.example", A), ("db.lab.example", TXT), ("evil.example", HTTPS), ("example", TXT)])
def test_nothing_is_said_by_asking(named: Installed, below: str, kind: int) -> None:
    token = f"x{uuid.uuid4().hex}"
    assert ask(named, f"{token}.{below}", kind) == "5 0"
    assert token not in asked(named.lab)
    recorded(named, "SELECT workload, detail FROM host_event WHERE name = 'dns.refused'", token)
    assert ("crew",) in rows(named, "SELECT workload FROM host_event WHERE name = 'dns.refused'")


def test_a_tunnel_below_a_wildcard_dries_up(named: Installed) -> None:
    many = ("import socket\nfor number in range(120):\n    try:\n        "
            "socket.getaddrinfo(f'tunnel{number}.cdn.lab.example', 1, socket.AF_INET)\n    except OSError: pass\n")
    done = named.crew("/usr/bin/python3", "-c", many)
    assert done.returncode == 0, done.stderr
    assert len({line for line in asked(named.lab).splitlines() if "tunnel" in line and " A" in line}) <= 40
    recorded(named, "SELECT detail FROM host_event WHERE name = 'dns.refused'", "new names a minute")
    wait_until("a minute's allowance", lambda: ask(named, "later.cdn.lab.example") == "0 1", 30)


@pytest.mark.parametrize("name", ["meta.lab.example", "loop.lab.example"])
def test_no_name_leads_to_metadata_or_loopback(named: Installed, name: str) -> None:
    assert ask(named, name) == "5 0"
    recorded(named, "SELECT detail FROM host_event WHERE name = 'dns.answered'", "withheld")
    assert talk(named, "169.254.169.254", 80, "plain", "b'x'") == "ConnectionResetError"


def test_by_its_name(named: Installed, echo: Echo) -> None:
    token = uuid.uuid4().hex
    assert token in talk(named, "api.lab.example", PORT, "api.lab.example", token)
    assert echo.saw(token)
    request = f"b'GET /{token} HTTP/1.1\\r\\nHost: api.lab.example\\r\\n\\r\\n'"
    assert token in talk(named, "api.lab.example", 8081, "plain", request)


@pytest.mark.parametrize(("port", "sni", "said", "reason"), [
    (PORT, "other.lab.example", "", "TLS for"), (PORT, "none", "", "without a server name"),
    (8081, "plain", "GET /{} HTTP/1.1\\r\\nHost: evil.example\\r\\n\\r\\n", "HTTP for"),
    (8081, "plain", "CONNECT {}.example:22 HTTP/1.1\\r\\n\\r\\n", "CONNECT"),
    (8081, "plain", "\\x05\\x01\\x00{}", "SOCKS"),
    (8081, "plain", "\\x04\\x01\\x00\\x16\\x0a\\x4d\\x00\\x04{}\\x00", "SOCKS"),
    (8081, "plain", "SSH-2.0-{}\\r\\n", "ssh in plaintext"),
])
def test_by_another_name_or_through_a_proxy(
        named: Installed, echo: Echo, port: int, sni: str, said: str, reason: str) -> None:
    wait_until("a minute's allowance", lambda: ask(named, "api.lab.example") == "0 1", 60)
    token = uuid.uuid4().hex
    got = talk(named, "api.lab.example", port, sni, f"b'{said.format(token)}'" if said else token)
    assert token not in got
    assert not echo.saw(token)
    try:
        recorded(named, "SELECT reason FROM flow_closed", reason)
    except TimeoutError as error:
        raise AssertionError(f"{error}; the client says {got!r}") from None


def test_an_address_counts_once_the_name_was_asked_for(named: Installed, echo: Echo) -> None:
    """A wildcard permits what Weir's resolver gave, nothing before."""
    wait_until("a minute's allowance", lambda: ask(named, "fresh.cdn.lab.example") == "0 1", 60)
    token = uuid.uuid4().hex
    assert token in talk(named, "fresh.cdn.lab.example", 8444, "fresh.cdn.lab.example", token)
    assert token not in talk(named, "fresh.cdn.lab.example", 8444, "api.lab.example", token + "x")
    assert not echo.saw(token + "x")


def test_the_resolver_outlives_the_enforcer(named: Installed) -> None:
    named.kill("enforcer")
    wait_until("an answer", lambda: ask(named, "db.lab.example") == "0 1", 20)
    named.wait()
