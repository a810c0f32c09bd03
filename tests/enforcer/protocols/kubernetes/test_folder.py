"""What the folder says of itself: its name needs nothing, and `warm` loads all that a first session would."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
COLD = """
import sys, time
from enforcer import protocols
kubernetes = protocols.find("kubernetes")
assert not kubernetes.speaks(b"GET /api HTTP/1.1")
assert not {"google.protobuf", "yaml", "wsproto", "h11"} & set(sys.modules)
began = time.process_time()
kubernetes.warm()
warmed, before = time.process_time() - began, set(sys.modules)
began = time.process_time()
from enforcer.policy.detectors import LABELS, make_detectors
from enforcer.protocols.kubernetes.bodies.schema import find_message
from enforcer.protocols.kubernetes.layer import KubernetesLayer
assert find_message("apps/v1", "Deployment") is not None
for label in set(LABELS.values()):
    make_detectors(frozenset((label, "secret.token.jwt")))      # as targets and policies have them
assert not set(sys.modules) - before, set(sys.modules) - before
assert time.process_time() - began < warmed / 5
"""


def test_what_a_first_session_would_wait_for() -> None:
    subprocess.run([sys.executable, "-c", COLD], check=True, cwd=ROOT)
