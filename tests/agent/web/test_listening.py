"""Whose connections the page takes."""
from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from agent.block import sockdiag
from agent.block.attribution import Held
from agent.web.listening import is_here, open_page, why_refused
from probes import abi

PEER, OWN = ("127.0.0.1", 40000), ("127.0.0.1", 8443)
CREWS, WEIR = {7, 8}, {20}


def held(cgroup: int, peer: tuple[str, int] = PEER, own: tuple[str, int] = OWN) -> Held:
    return Held(abi.packed(peer[0]), peer[1], abi.packed(own[0]), own[1], 1, cgroup)


def why(*sockets: Held, peer: tuple[str, int] = PEER, here: bool = True) -> str:
    return why_refused(sockets, peer, OWN, CREWS, WEIR, here)


def test_a_crew_and_what_speaks_for_it_is_refused() -> None:
    assert why(held(1)) == ""
    assert why(held(7)) == "a crew may not speak to Weir's page"
    assert why(held(20)) == "what Weir's own processes connect for others ends here"
    assert "a crew" in why(held(1, ("127.0.0.1", 40001)), held(8)), "by both ends, whatever else there is"
    assert why(held(7, own=("127.0.0.1", 8444)), held(1)) == "", "another connection from the same port"


def test_who_cannot_be_told_is_refused_where_it_must_be_here() -> None:
    assert why() == "the process that connected cannot be told"
    assert why(held(0)) == "the process that connected cannot be told"
    assert why(peer=("192.0.2.7", 40000), here=False) == "", "somebody on the network"
    assert "a crew" in why(held(7, ("192.0.2.7", 40000)), peer=("192.0.2.7", 40000), here=False)


@pytest.mark.parametrize("peer", ["::ffff:127.0.0.1", "127.0.0.1"])
def test_ipv4_is_ipv4(peer: str) -> None:
    assert "a crew" in why(held(7), peer=(peer, 40000))


def test_where_here_is() -> None:
    assert is_here("127.9.9.9", False)
    assert is_here("::1", False)
    assert is_here("::ffff:127.0.0.1", False)
    assert is_here("192.0.2.1", True)
    assert not is_here("fe80::1%eth0", False)


@pytest.mark.kernel
def test_the_kernel_tells_whose_a_real_connection_is() -> None:
    with open_page(("127.0.0.1", 0), Path("/nowhere/web.sock"))[0] as listener:
        with socket.create_connection(listener.getsockname()) as client:
            accepted, _ = listener.accept()
            with accepted:
                peer, own = accepted.getpeername(), accepted.getsockname()
                found = sockdiag.tcp_sockets(peer[1])
                (mine,) = [one for one in found if one.remote_port == own[1]]
                assert mine.cgroup
                assert why_refused(found, peer, own, set(), set(), True) == ""
                assert "a crew" in why_refused(found, peer, own, {mine.cgroup}, set(), True)
                assert client.getsockname() == peer


def test_the_unix_socket_appears_at_once(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    path.write_text("old")
    with open_page(None, path)[0]:
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert path.stat().st_mode & 0o777 == 0o666
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(str(path))
    assert os.listdir(tmp_path) == ["web.sock"]


def test_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = taken.getsockname()
        with pytest.raises(OSError, match=rf"\[web\] listen 127.0.0.1 port {place[1]}: Address already in use"):
            open_page(place, tmp_path / "web.sock")
