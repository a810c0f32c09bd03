"""What root alone decides, and what root reads: with files of the host, as root."""
from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import rooted
from agent.rooted import NotRooted

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: what root alone decides is told by owners")


@pytest.fixture
def base() -> Iterator[Path]:
    """pytest's own directories lie below one that anybody writes."""
    path = Path("/var/lib") / f"weir-test-{os.getpid()}"
    path.mkdir(mode=0o755)
    (path / "deep").mkdir(mode=0o755)
    (path / "deep" / "file").write_text("x")
    yield path
    shutil.rmtree(path)


def test_links_of_roots_are_followed(base: Path) -> None:
    (base / "here").symlink_to("deep/../deep")
    (base / "there").symlink_to(base / "here")
    assert rooted.resolve(f"{base}//there/./file") == f"{base}/deep/file"
    os.chown(base / "deep" / "file", 65534, 65534)
    assert rooted.resolve(f"{base}/there/file") == f"{base}/deep/file", "whose it is, is another question"
    (base / "round").symlink_to("round")
    for nowhere in ("round", "none", "deep/file/more"):
        with pytest.raises(OSError):
            rooted.resolve(f"{base}/{nowhere}")


@pytest.mark.parametrize("how", ["another's directory", "directory that others write", "another's link", "sticky"])
def test_what_others_decide(base: Path, how: str) -> None:
    path = base / "deep" / "file"
    if how == "another's directory":
        os.chown(base / "deep", 65534, 0)
    elif how == "another's link":
        (path := base / "link").symlink_to("deep/file")
        os.lchown(path, 65534, 65534)
    else:
        (base / "deep").chmod(0o1777 if how == "sticky" else 0o775)
    with pytest.raises(NotRooted, match="another user's" if "link" in how else "not only root"):
        rooted.resolve(str(path))
    assert rooted.resolve(str(base / "deep")) == f"{base}/deep"


def test_only_files_are_opened(base: Path) -> None:
    """A device or a pipe would notice; nobody listens at this one, and open(2) would wait."""
    def anybody(status: os.stat_result) -> bool:
        return True

    os.mkfifo(base / "pipe")
    (base / "link").symlink_to("deep/file")
    assert rooted.read(f"{base}/deep/file", anybody) == b"x"
    assert rooted.read(f"{base}/pipe", anybody) is None
    assert rooted.read("/dev/null", anybody) is None
    assert rooted.read(f"{base}/link", anybody) is None
    assert rooted.read(f"{base}/deep/file", lambda status: status.st_uid == 1) is None
    (base / "long").write_bytes(bytes(rooted.CONTENT_LIMIT + 1))
    assert rooted.read(f"{base}/long", anybody) is None


def test_what_everybody_may_read(base: Path) -> None:
    path = base / "deep" / "file"
    assert rooted.is_public(str(path))
    path.chmod(0o640)
    assert not rooted.is_public(str(path))
    path.chmod(0o644)
    (base / "deep").chmod(0o750)
    assert not rooted.is_public(str(path))
