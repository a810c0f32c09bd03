"""SSH without an agent: a real sshd, the edge with its real journal, and the recorder, each in a process of its own.

sshd runs in a mount namespace where an account `truth` exists, whose login shell writes down what it is started with
before it does it: that is what was executed, whatever Weir says.
"""
from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
ACCOUNT: Final = "truth"
UID: Final = 61099
SSHD: Final = "/usr/sbin/sshd"

SETTINGS: Final = """
Port {port}
ListenAddress 127.0.0.1
HostKey {at}/host
PidFile none
UsePAM no
StrictModes no
LogLevel VERBOSE
AuthorizedKeysFile {at}/user.pub
AcceptEnv LANG LC_*
MaxSessions 1000
MaxStartups 1000
AllowStreamLocalForwarding yes
Subsystem sftp internal-sftp
"""
# One write for each: O_APPEND keeps them apart.
SHELL: Final = """#!/bin/sh
[ "$1" = -c ] && printf '%s\\n' "$2" >> {at}/executed || echo SHELL >> {at}/executed
exec /bin/sh "$@"
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Stage:
    """One directory with all of it."""

    def __init__(self, at: Path) -> None:
        self.at, self.server_port, self.port = at, free_port(), free_port()
        self.journal, self.recording, self.files = at / "journal", at / "recording", at / "files"
        self._running: list[subprocess.Popen[bytes]] = []
        self.enforcer: subprocess.Popen[bytes] | None = None
        self._recorder: subprocess.Popen[bytes] | None = None
        for one in (self.journal, self.recording, self.files):
            one.mkdir()
        at.chmod(0o755)
        os.chown(self.files, UID, UID)
        for key in ("host", "user", "weir"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(at / key)], check=True)
        (at / "known").write_text(f"[127.0.0.1]:{self.port} {(at / 'weir.pub').read_text()}")
        (at / "executed").touch()
        (at / "executed").chmod(0o666)
        (at / "sh").write_text(SHELL.format(at=at))
        (at / "sh").chmod(0o755)
        (at / "sshd_config").write_text(SETTINGS.format(at=at, port=self.server_port))
        # All of /etc: a file that somebody renames outside loses what is mounted on it.
        shutil.copytree("/etc", at / "etc", symlinks=True, ignore=shutil.ignore_patterns("ssl", "alternatives"))
        with (at / "etc/passwd").open("a") as users, (at / "etc/shadow").open("a") as shadow:
            users.write(f"{ACCOUNT}:x:{UID}:{UID}::{self.files}:{at}/sh\n")
            shadow.write(f"{ACCOUNT}:*:19000::::::\n")

    def start(self) -> None:
        Path("/run/sshd").mkdir(exist_ok=True)
        inside = f"mount --bind {self.at}/etc /etc && exec {SSHD} -D -f {self.at}/sshd_config -E {self.at}/sshd.log"
        self._running.append(subprocess.Popen(["unshare", "-m", "sh", "-c", inside]))
        self._wait(self.server_port)

    def start_recorder(self) -> None:
        argv = [sys.executable, "-m", "enforcer.recording.recorder", "--journal", str(self.journal), "--recording",
                str(self.recording)]
        with (self.at / "recorder.log").open("ab") as log:
            self._recorder = subprocess.Popen(argv, cwd=ROOT, stderr=log)

    def settle(self) -> None:
        """What lies in the journal is in the recording, which is closed.  An enforcer that is gone has its gaps."""
        deadline = time.monotonic() + 60
        while any(self.journal.glob("enforcer0-*")):
            assert time.monotonic() < deadline, list(self.journal.iterdir())
            time.sleep(0.1)
        time.sleep(6)                          # recorder.GONE: only then sessions of the last instance are closed
        assert self._recorder is not None
        self._recorder.terminate()
        assert self._recorder.wait(60) == 0
        files = sorted(map(str, self.recording.glob("*.sqlite")))
        done = subprocess.run([sys.executable, str(ROOT / "enforcer/recording/weir_verify.py"), "--key",
                               str(self.recording / "signing.pub"), *files], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def start_enforcer(self, **options: Any) -> None:
        argv = [sys.executable, str(Path(__file__).parent / "sshstage_edge.py"), str(self.at), str(self.port),
                str(self.server_port)]
        given = {f"STAGE_{name.upper()}": str(value) for name, value in options.items()}
        with (self.at / "enforcer.log").open("ab") as log:
            self.enforcer = subprocess.Popen(argv, cwd=ROOT, stderr=log, stdout=log, env={**os.environ, **given})
        self._wait(self.port)

    def kill_enforcer(self) -> None:
        assert self.enforcer is not None
        self.enforcer.send_signal(signal.SIGKILL)
        self.enforcer.wait()

    def stop_enforcer(self) -> None:
        assert self.enforcer is not None
        self.enforcer.terminate()
        self.enforcer.wait(30)

    def _wait(self, port: int) -> None:
        deadline = time.monotonic() + 30
        while True:
            with closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            assert time.monotonic() < deadline, f"nothing listens at {port}"
            time.sleep(0.02)

    def ssh(self, *more: str) -> list[str]:
        return ["ssh", "-F", "none", "-o", f"UserKnownHostsFile={self.at}/known", "-o", "LogLevel=ERROR",
                "-o", "BatchMode=yes", "-p", str(self.port), *more, f"{ACCOUNT}@127.0.0.1"]

    def executed(self) -> list[str]:
        return (self.at / "executed").read_text(errors="surrogateescape").splitlines()

    def close(self) -> None:
        for one in (self.enforcer, self._recorder, *self._running):
            if one is not None and one.poll() is None:
                one.kill()
                one.wait()


@contextmanager
def stage() -> Iterator[Stage]:
    """Not in pytest's directory, which the account may not enter."""
    at = Path(tempfile.mkdtemp(prefix="weir-sshstage-"))
    made = Stage(at)
    try:
        made.start()
        yield made
    finally:
        made.close()
        shutil.rmtree(at)
