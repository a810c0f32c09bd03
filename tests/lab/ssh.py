"""Both SSH servers of the lab with what stands behind them; the crew's side: a key of its own, known_hosts, a config.

The crew's key and password are worthless from where the crew is: they count for the control, on a host without Weir.
"""
from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.hosts import BASTION, SSH
from lab.lab import Lab
from lab.servers import listening, python, python_environment, server
from lab.sshd import BASTION_NAME, NAME, Sshd, sshd
from lab.weir import POLICY, Installed, configure, weir

LOGIN = "deploy"
ECHO_PORT = 7007
CONFIG = """
StrictHostKeyChecking yes
BatchMode yes
ConnectTimeout 20
"""
TARGET, BASTION_TARGET = "build", "bastion"
ENTRY = """
[[target]]
name = "{name}"
protocol = "ssh"
hosts = [{hosts}]
port = {port}
known_hosts = "{known_hosts}"
payload_limit = "64KiB"
{more}
[[target.credential]]
role = "*"
{credential}
"""
# Whatever the servers would let it do.
ALL = """
@id("ssh-all")
permit (principal in Group::"data", action, resource in Target::"build");
@id("ssh-bastion")
permit (principal in Group::"data", action, resource in Target::"bastion");
"""


@dataclass(frozen=True, eq=False)
class SshLab:
    lab: Lab
    ssh: Sshd
    bastion: Sshd
    echo: Path                        # Unix socket on the host of `ssh`

    @property
    def password(self) -> str:
        """The real one of LOGIN, of both servers' the first's."""
        return self.ssh.passwords[LOGIN]

    def give_home(self) -> None:
        """What a user of OpenSSH has in ~/.ssh."""
        folder = self.lab.scratch / "dot-ssh"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "config").write_text(CONFIG)
        (folder / "known_hosts").write_text(self.ssh.known_hosts + self.bastion.known_hosts)
        for ending in ("", ".pub"):
            shutil.copyfile(f"{self.ssh.crew_key}{ending}", folder / f"id_ed25519{ending}")
        shutil.rmtree(self.lab.home / ".ssh", ignore_errors=True)
        given = self.lab.give(folder, ".ssh")
        given.chmod(0o700)
        for path in given.iterdir():
            path.chmod(0o600)

    def environment(self, work: str, size: int = 1_000_000, **more: str) -> dict[str, str]:
        """Of a client's script; PASSWORD is for the control."""
        return {"HOST": NAME, "BASTION": BASTION_NAME, "LOGIN": LOGIN, "WORK": work, "SIZE": str(size),
                "ECHO_PORT": str(ECHO_PORT), "ECHO_SOCKET": str(self.echo), **more}

    def control(
        self, *command: str, environment: Mapping[str, str], timeout: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        return self.lab.control(command, {"PASSWORD": self.password, **environment}, timeout)

    def entry(self, server: Sshd, name: str = TARGET, more: str = "", credential: str = "") -> str:
        """A [[target]] for Weir's configuration, with the real key unless another credential is said."""
        file = self.lab.scratch / f"known_hosts-{name}"
        file.write_text(server.known_hosts)
        return ENTRY.format(
            name=name, hosts=", ".join(f'"{one}"' for one in server.names), port=server.port, known_hosts=file,
            more=more, credential=credential or f'key_file = "{server.real_key}"')


@contextmanager
def ssh_lab(lab: Lab) -> Iterator[SshLab]:
    with ExitStack() as stack:
        one = stack.enter_context(sshd(lab.scratch))
        two = stack.enter_context(sshd(lab.scratch, BASTION))
        for user in ("deploy", "ops"):                    # one key opens both
            for name in ("authorized/" + user, "user_ca.pub"):
                shutil.copyfile(one.keys / name, two.keys / name)
        echo, log = one.directory / "echo.sock", one.directory / "echo.log"
        process = stack.enter_context(
            server(SSH, python("lab.echo", str(ECHO_PORT), str(echo)), log, environment=python_environment()))
        listening(SSH, SSH.ipv4, ECHO_PORT, process, log)
        made = SshLab(lab, one, two, echo)
        made.give_home()
        yield made


@contextmanager
def ssh_weir(
    made: SshLab, policy: str = ALL, more: str = "", credential: str = "", **options: str,
) -> Iterator[Installed]:
    """Weir with both servers registered; `more` and `credential` are of the first's target."""
    entries = (made.entry(made.ssh, TARGET, more, credential)
               + made.entry(made.bastion, BASTION_TARGET, "", f'key_file = "{made.ssh.real_key}"'))
    made.give_home()
    config = configure(made.lab, policy=POLICY + policy, more=options.pop("more_tables", "") + entries, **options)
    with weir(made.lab, config) as installed:
        yield installed
