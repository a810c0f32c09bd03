"""What needs neither kernel nor lab, by Python and OpenSSL of the newest Debian that the package is made for."""
from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from debhost import ROOT, SUITES, Chroot, fresh, let_pip_reach, listed

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it runs in a chroot")]
# Of these, what needs no server of the lab's.
TESTED = ("agent/credential", "agent/network", "enforcer/approval", "enforcer/core", "enforcer/credentials",
          "enforcer/hot", "enforcer/http", "enforcer/identity", "enforcer/policy", "enforcer/protocols/kubernetes",
          "enforcer/protocols/ssh", "enforcer/test_https.py", "enforcer/web")


@pytest.fixture
def newest(tmp_path: Path) -> Iterator[Chroot]:
    tools = ("git", "less", "openssh-client", "openssh-sftp-server", "procps", "sqlite3", "vim")
    debian = fresh(tmp_path, SUITES[-1], *listed("RUNTIME", "BUILD"), *tools, binds={"clone": ROOT})
    let_pip_reach(debian)
    yield debian
    shutil.rmtree(debian.root)


def test_tests_pass_by_this_debians_python(newest: Chroot) -> None:
    """Deprecations are errors, as everywhere (pyproject.toml)."""
    newest.right("python3", "-m", "venv", "--system-site-packages", "/srv/dev")
    newest.right("/srv/dev/bin/python", "-m", "pip", "install", "-q", "--require-hashes", "--no-deps", "-r",
                 "/clone/requirements-dev.lock", seconds=1200)
    newest.right("/srv/dev/bin/python", "-m", "pip", "check")
    newest.right("env", "-C", "/clone", "PYTHONDONTWRITEBYTECODE=1", "/srv/dev/bin/python", "-m", "pytest", "-q",
                 "-p", "no:cacheprovider", "--basetemp=/srv/pytest", "-m", "not slow and not lab and not kernel",
                 *(f"tests/{one}" for one in TESTED), seconds=2400)
