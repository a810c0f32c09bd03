"""The Debian package, built once a session, and a fresh Debian that it is installed in."""
from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from debhost import LATER, ROOT, Chroot, build, right


@pytest.fixture(scope="session")
def wheels() -> None:
    for tool in ("dh", "lintian", "mmdebstrap"):
        assert shutil.which(tool), f"{tool} is missing: ./bootstrap test-all installs debhelper, lintian and mmdebstrap"
    right(str(ROOT / "packaging/build"), "--fetch")


@pytest.fixture(scope="session")
def package(wheels: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("package")
    return build(place / "made", place / "work")


@pytest.fixture(scope="session")
def later(wheels: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same sources, as the next version."""
    place = tmp_path_factory.mktemp("later")
    return build(place / "made", place / "work", "--version", LATER)


@pytest.fixture(scope="session")
def unpacked(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("unpacked") / "root"
    right("dpkg-deb", "-x", str(package), str(place))
    return place


@pytest.fixture(scope="module")
def debian(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chroot]:
    root = tmp_path_factory.mktemp("debian") / "root"
    sources = [str(path) for path in (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
               if path.exists() and "bookworm" in path.read_text()][:1]
    depends = right("dpkg-deb", "-f", str(package), "Depends")
    needed = [one.split("|")[0].split("(")[0].strip() for one in depends.split(",")]
    right("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(needed)},bash-completion,man-db",
          "bookworm", str(root), *sources)
    yield Chroot(root)
    shutil.rmtree(root)
