"""The Debian package of each release, built once a session in a fresh Debian, and another that it is installed in."""
from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import debhost
import pytest
from debhost import LATER, SUITES, Chroot, right


@pytest.fixture(scope="session", params=SUITES)
def suite(request: pytest.FixtureRequest) -> str:
    assert shutil.which("mmdebstrap"), "mmdebstrap is missing: ./bootstrap test-all installs it"
    return str(request.param)


@pytest.fixture(scope="session")
def builder(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chroot]:
    place = tmp_path_factory.mktemp(f"builder-{suite}")
    yield debhost.builder(place, suite)
    shutil.rmtree(place)


@pytest.fixture(scope="session")
def package(builder: Chroot) -> Path:
    return debhost.build(builder, "first")


@pytest.fixture(scope="session")
def later(builder: Chroot) -> Path:
    """The same sources, as the next version."""
    return debhost.build(builder, "later", "--version", LATER)


@pytest.fixture(scope="session")
def unpacked(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("unpacked") / "root"
    right("dpkg-deb", "-x", str(package), str(place))
    return place


@pytest.fixture(scope="module")
def debian(suite: str, package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chroot]:
    place = tmp_path_factory.mktemp(f"debian-{suite}")
    depends = right("dpkg-deb", "-f", str(package), "Depends")
    needed = (one.split("|")[0].split("(")[0].strip() for one in depends.split(","))
    yield debhost.fresh(place, suite, *needed, "bash-completion", "man-db", "apparmor")
    shutil.rmtree(place)
