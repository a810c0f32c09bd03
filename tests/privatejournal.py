"""A systemd-journald of the test's own, in a mount namespace with a /run of its own: it hears nobody else."""
from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lab.hosts import wait_until
from privatesystemd import lacking

PROGRAM = "/lib/systemd/systemd-journald"
_START = f"""
set -e
mount --make-rprivate / && mount -t tmpfs none /run
mkdir -p /run/systemd/journald.conf.d /run/systemd/journal /run/log
printf '[Journal]\\nStorage=volatile\\nAudit=no\\nReadKMsg=no\\nForwardToSyslog=no\\nRateLimitBurst=0\\n' \
  >/run/systemd/journald.conf.d/test.conf
exec setpriv --pdeathsig TERM {PROGRAM}
"""


def missing() -> str:
    return lacking((PROGRAM, "journalctl", "systemd-cat"), "systemd")


@dataclass(frozen=True)
class PrivateJournal:
    pid: int

    def run(self, *command: str, user: int = 0, environment: Mapping[str, str] | None = None
            ) -> subprocess.CompletedProcess[str]:
        """In its namespace."""
        ids = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"] if user else []
        return subprocess.run(["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", "--", *ids, *command], env=environment,
                              capture_output=True, text=True, timeout=60, cwd="/", stdin=subprocess.DEVNULL)

    def entries(self, *matches: str) -> list[dict[str, Any]]:
        self.run("journalctl", "--sync")
        done = self.run("journalctl", "--output=json", "--no-pager", *matches)
        return [json.loads(line) for line in done.stdout.splitlines()]


@contextmanager
def private_journal(inside: Sequence[str] = ("unshare", "--mount")) -> Iterator[PrivateJournal]:
    """`inside`: what brings a command into a mount namespace that is nobody else's."""
    process = subprocess.Popen([*inside, "sh", "-c", _START], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        made = PrivateJournal(process.pid)
        wait_until("journald", lambda: made.run("test", "-S", "/run/systemd/journal/socket").returncode == 0, 20)
        yield made
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
