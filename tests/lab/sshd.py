"""A real OpenSSH server on a host of its own: its accounts, its log of commands and of files.

What it may not do by Weir the server itself would let it do: a denial is Weir's own.  An account's key counts only from
where its owner is: the crew's from a host without Weir (the control), the real one, which crews never see, from the
crew's host, also by way of the bastion.  So does its password: there is one, and the crew's is a wrong one.

sshd and everything that it starts live in mount and process namespaces of their own (sshd_host.sh): there are the
accounts, and with the first process all others end.
"""
from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from lab import hosts
from lab.hosts import BASTION, CREW, DNS, OTHER, SSH, Host, wait_until
from lab.servers import listening, python, python_environment, server, start, stop

HERE = Path(__file__).resolve().parent
SSHD = "/usr/sbin/sshd"
PORT = 22
NAME = "ssh.lab.example"
BASTION_NAME = "bastion.lab.example"
ACCOUNTS = {"deploy": 61001, "ops": 61002}
KINDS = ("ed25519", "ecdsa", "rsa")

# The first value counts: `more` comes before.
SETTINGS = """
{more}
Port {port}
{host_keys}
HostCertificate {keys}/host_ed25519-cert.pub
PidFile none
UsePAM no
UseDNS no
LogLevel VERBOSE
LoginGraceTime 20
MaxStartups 1000
MaxSessions 1000
StrictModes no
AuthorizedKeysFile {keys}/authorized/%u
TrustedUserCAKeys {keys}/user_ca.pub
PasswordAuthentication yes
KbdInteractiveAuthentication no
AllowAgentForwarding yes
AllowTcpForwarding yes
AllowStreamLocalForwarding yes
StreamLocalBindUnlink yes
GatewayPorts clientspecified
PermitTunnel no
X11Forwarding yes
AcceptEnv LANG LC_* LAB_*
PrintMotd no
PrintLastLog no
Compression yes
Subsystem sftp internal-sftp -l VERBOSE -f AUTH
"""


def make_key(path: Path, kind: str = "ed25519", comment: str = "lab") -> str:
    """A new key without a passphrase; its public line."""
    size = ["-b", "2048"] if kind == "rsa" else []
    path.unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-C", comment, "-f", str(path)], check=True)
    return path.with_name(path.name + ".pub").read_text().strip()


def sign(authority: Path, public: Path, *options: str) -> None:
    """Makes NAME-cert.pub beside `public`."""
    subprocess.run(["ssh-keygen", "-q", "-s", str(authority), *options, str(public)], check=True, capture_output=True)


@dataclass(frozen=True)
class Login:
    """What the login shell was started for.  `command` None: nothing, so it is a shell for a person."""

    process: int
    user: str
    source: str                       # address of the client
    port: int                         # of the client
    terminal: bool
    command: bytes | None


@dataclass(frozen=True)
class Sshd:
    """One server; several may be on a host, on ports of their own."""

    host: Host
    port: int
    directory: Path
    passwords: dict[str, str]
    process: subprocess.Popen[bytes] = field(repr=False)

    def __repr__(self) -> str:
        return f"Sshd({self.directory})"

    @property
    def keys(self) -> Path:
        return self.directory / "keys"

    @property
    def names(self) -> tuple[str, ...]:
        return (NAME if self.host.name == SSH.name else BASTION_NAME, self.host.ipv4, self.host.ipv6)

    @property
    def real_key(self) -> Path:
        """Private key by which the crew's host may log in."""
        return self.keys / "real"

    @property
    def crew_key(self) -> Path:
        """Private key by which the control may log in; worthless from the crew's host."""
        return self.keys / "crew"

    @property
    def known_hosts(self) -> str:
        """Plain lines, one a host key."""
        spelled = [name if self.port == PORT else f"[{name}]:{self.port}" for name in self.names]
        return "".join(f"{','.join(spelled)} {self.host_key(kind)}\n" for kind in KINDS)

    def host_key(self, kind: str = "ed25519") -> str:
        return " ".join((self.keys / f"host_{kind}.pub").read_text().split()[:2])

    def home(self, user: str = "deploy") -> Path:
        return self.directory / "home" / user

    def fresh(self, name: str, user: str = "deploy") -> Path:
        """An empty directory of the account's."""
        path = self.home(user) / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(mode=0o755)
        os.chown(path, ACCOUNTS[user], ACCOUNTS[user])
        return path

    def trust_users_of(self, public: str) -> None:
        """The authority of user certificates that counts from here on."""
        (self.keys / "user_ca.pub").write_text(public.strip() + "\n")

    def log(self) -> str:
        return (self.directory / "sshd.log").read_text(errors="replace")

    def logins(self) -> list[Login]:
        return parse_logins((self.directory / "logins").read_bytes())

    def files(self) -> list[str]:
        """internal-sftp's lines so far, only whole ones."""
        path = self.directory / "sftp.log"
        return path.read_text(errors="surrogateescape").splitlines() if path.exists() else []

    def pids(self) -> list[int]:
        """Of everything on this host that belongs to it, as others see them."""
        mine = os.readlink(f"/proc/{self.first()}/ns/pid")
        return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _pid_ns(entry) == mine]

    def first(self) -> int:
        """Process 1 of its namespace."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def run(self, command: Sequence[str], user: str = "") -> subprocess.CompletedProcess[bytes]:
        """Where its accounts are, without sshd."""
        as_user = ["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--"] if user else []
        inside = ["nsenter", f"--target={self.first()}", "--mount", "--pid", "--net", "--"]
        return subprocess.run([*inside, *as_user, *command], capture_output=True, timeout=60, check=True)

    def renew_host_keys(self) -> None:
        """What somebody in the middle would show; counts from the next start on."""
        _host_keys(self.keys, self.names)


def _pid_ns(entry: Path) -> str:
    try:
        return os.readlink(entry / "ns" / "pid")
    except OSError:
        return ""


def parse_logins(log: bytes) -> list[Login]:
    """Records of login_shell.c; ValueError where one is not whole."""
    found = []
    while log:
        size, _, log = log.partition(b"\n")
        record, log = log[:int(size)], log[int(size):]
        if len(record) != int(size) or not record.endswith(b"\0"):
            raise ValueError("a record of the login shell is cut off")
        found.append(_login(record[:-1].split(b"\0")))
    return found


def _login(fields: list[bytes]) -> Login:
    process, user, connection, terminal, _, *arguments = fields
    source, port = [*connection.decode().split(), "", "0"][:2]
    command = arguments[1] if arguments[:1] == [b"-c"] else None
    return Login(int(process), user.decode(), source, int(port), bool(terminal), command)


def _host_keys(keys: Path, names: Sequence[str]) -> None:
    for kind in KINDS:
        make_key(keys / f"host_{kind}", kind)
    sign(keys / "host_ca", keys / "host_ed25519.pub", "-I", "host", "-h", "-n", ",".join(names))


def _make_keys(directory: Path, names: Sequence[str]) -> None:
    keys = directory / "keys"
    (keys / "authorized").mkdir(parents=True, mode=0o755)
    make_key(keys / "host_ca")
    _host_keys(keys, names)
    make_key(keys / "user_ca")
    crew, real = make_key(keys / "crew"), make_key(keys / "real")
    for user in ACCOUNTS:
        elsewhere = ",".join(one for host in (OTHER, SSH, BASTION) for one in (host.ipv4, host.ipv6))
        (keys / "authorized" / user).write_text(
            f'from="{elsewhere}" {crew}\nfrom="{CREW.ipv4},{CREW.ipv6},{BASTION.ipv4},{BASTION.ipv6}" {real}\n')


def _make_accounts(directory: Path) -> dict[str, str]:
    """passwd, group and shadow as this host has them, with the accounts."""
    etc, passwords = directory / "etc", {user: secrets.token_urlsafe(18) for user in ACCOUNTS}
    etc.mkdir()
    lines: dict[str, list[str]] = {name: Path("/etc", name).read_text().splitlines() for name in ("passwd", "group")}
    shadow = ["root:*:19000:0:99999:7:::", "sshd:*:19000:0:99999:7:::"]
    for user, number in ACCOUNTS.items():
        home = directory / "home" / user
        home.mkdir(parents=True, mode=0o755)
        os.chown(home, number, number)
        lines["passwd"].append(f"{user}:x:{number}:{number}::/home/{user}:{directory / 'login_shell'}")
        lines["group"].append(f"{user}:x:{number}:")
        hashed = subprocess.run(["openssl", "passwd", "-6", "-stdin"], input=passwords[user], capture_output=True,
                                text=True, check=True).stdout.strip()
        shadow.append(f"{user}:{hashed}:19000:0:99999:7:::")
    for name, text in (*lines.items(), ("shadow", shadow)):
        (etc / name).write_text("\n".join(text) + "\n")
    (etc / "shadow").chmod(0o600)
    (etc / "resolv.conf").write_text(f"nameserver {DNS.ipv4}\n")
    return passwords


def _make_shell(directory: Path) -> None:
    logins = directory / "logins"
    logins.touch()
    logins.chmod(0o666)
    subprocess.run(["gcc", "-O1", "-Wall", f'-DLOGINS="{logins}"', "-o", str(directory / "login_shell"),
                    str(HERE / "login_shell.c")], check=True)


def _configure(directory: Path, port: int, more: str) -> Path:
    keys = directory / "keys"
    host_keys = "\n".join(f"HostKey {keys}/host_{kind}" for kind in KINDS)
    path = directory / f"sshd_config{port}"
    path.write_text(SETTINGS.format(more=more, port=port, keys=keys, host_keys=host_keys))
    return path


def end_sshd(made: Sshd) -> None:
    """SIGKILL for it and everything that it started; nothing where it has ended."""
    if made.process.poll() is None:
        hosts.end([made.first()])     # not its parent: that is to reap it
    stop(made.process, "KILL")


def start_sshd(made: Sshd, more: str = "") -> Sshd:
    """Again, after its process ended."""
    directory, config = made.directory, _configure(made.directory, made.port, more)
    shutil.rmtree(directory / "dev", ignore_errors=True)
    (directory / "dev").mkdir()
    # -e: what it says before it is where its log is goes to the same file.
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--propagation", "private",
               str(HERE / "sshd_host.sh"), str(directory), SSHD, "-D", "-e", "-f", str(config)]
    process = start(made.host, command, directory / "sshd.log", ending="KILL")
    listening(made.host, made.host.ipv4, made.port, process, directory / "sshd.log")
    return replace(made, process=process)


@contextmanager
def sshd(scratch: Path, host: Host = SSH, port: int = PORT, more: str = "", like: Sshd | None = None) -> Iterator[Sshd]:
    """A server while the block runs.  `like`: with the host keys, accounts and logs of another one."""
    directory = like.directory if like else scratch / f"sshd-{host.name}-{port}"
    nobody: subprocess.Popen[bytes] = None  # type: ignore[assignment]
    if like:
        with _running(replace(like, port=port), more) as made:
            yield made
        return
    directory.mkdir(mode=0o755)
    passwords = _make_accounts(directory)
    made = Sshd(host, port, directory, passwords, nobody)
    _make_keys(directory, made.names)
    _make_shell(directory)
    socket = directory / "syslog.sock"
    syslog = python("lab.syslog", str(socket), str(directory / "sftp.log"))
    with server(host, syslog, directory / "syslog.log", environment=python_environment()):
        wait_until("syslog", socket.exists)
        with _running(made, more) as made:
            yield made


@contextmanager
def _running(made: Sshd, more: str) -> Iterator[Sshd]:
    made = start_sshd(made, more)
    try:
        yield made
    finally:
        end_sshd(made)
