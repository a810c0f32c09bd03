"""A crew that puts links where its next start looks: by real starts, also while another start moves them."""
from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from launchhost import UID, Host

pytestmark = pytest.mark.kernel
STARTS = 12                           # without the pins about every second one shows what it should not
_EXCHANGE = 2                         # RENAME_EXCHANGE, renameat2(2)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    base = tmp_path_factory.mktemp("links")
    made = Host(base, f"weirtest-links{os.getpid()}", read_only=[str(base / "code"), sys.prefix, "~/tools/lib"])
    (made.base / "outside").mkdir()
    (made.base / "outside" / "secret").touch()
    yield made
    made.close()


@pytest.mark.parametrize("to", ["/run", "../../../../../../run", "/proc", "/tmp"])
def test_what_the_next_start_sees_is_not_the_crews_to_choose(host: Host, to: str) -> None:
    code, _, err = host.run("sh", "-c", f"rm -rf ~/tools; mkdir ~/tools && ln -s {to} ~/tools/lib")
    assert (code, err) == (0, b"")
    code, out, err = host.run("ls", "/run")
    assert (code, out) == (125, b"")
    assert err.startswith(f"weir: {host.home}/tools/lib leads to /".encode()), err
    (host.home / "tools" / "lib").unlink()
    assert host.run("ls", "/run")[0] == 0


@contextmanager
def moving(one: Path, other: Path) -> Iterator[None]:
    """Each in the other's place, again and again."""
    libc, over = ctypes.CDLL(None), threading.Event()

    def move() -> None:
        while not over.is_set():
            libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), _EXCHANGE)

    thread = threading.Thread(target=move)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_nor_while_it_is_looked_at(host: Host) -> None:
    tools = host.home / "tools"
    tools.mkdir(exist_ok=True)
    (tools / "lib").mkdir()
    (tools / "lib" / "mine").touch()
    (tools / "link").symlink_to("../../outside")
    for path in (tools, tools / "lib"):
        os.chown(path, UID, UID)
    seen = []
    with moving(tools / "lib", tools / "link"):
        for _ in range(STARTS):
            code, out, err = host.run("sh", "-c", "ls ~/tools/lib/; exit 0")
            seen.append((code, out))
            assert b"secret" not in out, (code, out, err)
    assert {code for code, _ in seen} <= {0, 125}, seen
