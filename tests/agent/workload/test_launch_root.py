"""`root = true`: uid 0 inside, and nothing of what it means outside."""
from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from launchhost import UID, Host

pytestmark = pytest.mark.kernel

LOOK = """
id -u; id -g
grep -E '^(Uid|Gid|Cap...|NoNewPrivs|Seccomp):' /proc/self/status
cat /proc/self/uid_map /proc/self/gid_map
touch ~/made
chown 1 ~/made || echo no chown
cat /etc/shadow >/dev/null || echo no shadow
mount -t tmpfs none /tmp || echo no mount
unshare --user true || echo no namespace
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    made = Host(tmp_path_factory.mktemp("rooted"), f"weirtest-root{os.getpid()}", root=True)
    yield made
    made.close()


def test_uid_0_without_power(host: Host) -> None:
    code, out, err = host.run("sh", "-c", LOOK)
    lines = out.decode().splitlines()
    assert (code, lines[:2]) == (0, ["0", "0"]), err
    seen = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert seen["Uid"].split() == seen["Gid"].split() == ["0"] * 4
    assert {seen[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (seen["NoNewPrivs"], seen["Seccomp"]) == ("1", "2")
    assert [line.split()[2] for line in lines if len(line.split()) == 3] == ["1", "1"], "one uid, one gid"
    assert lines[-4:] == ["no chown", "no shadow", "no mount", "no namespace"]
    made = (host.home / "made").stat()
    assert (made.st_uid, made.st_gid) == (UID, UID)
