"""What the folder says of itself: its name needs no cryptography, and `warm` loads all that a first session would."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
COLD = """
import sys, time
from enforcer import protocols
ssh = protocols.find("ssh")
assert ssh.speaks(b"SSH-2.0-x") and not ssh.speaks(b"GET / ")
assert "asyncssh" not in sys.modules
began = time.process_time()
ssh.warm()
warmed, before = time.process_time() - began, set(sys.modules)
began = time.process_time()
from enforcer.policy.detectors import LABELS, make_detectors
from enforcer.protocols.ssh.layer import SshLayer
from enforcer.protocols.ssh.shell.analysis import analyse_line
analyse_line(b"vault read $(cat x) | tee y")
make_detectors(frozenset(LABELS.values()))
assert not set(sys.modules) - before, set(sys.modules) - before
assert time.process_time() - began < warmed / 5
ssh.warm()
"""


def test_what_a_first_session_would_wait_for() -> None:
    subprocess.run([sys.executable, "-c", COLD], check=True, cwd=ROOT)
