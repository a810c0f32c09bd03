from __future__ import annotations

import ctypes

import pytest

from agent.block.attribution import Held, Origin, find_asker, find_redirected, parse_origin
from probes import abi

LOCAL, SERVER = abi.packed("192.0.2.7"), abi.packed("192.0.2.9")


def record(**changes: int) -> bytes:
    fields = {"cookie": 1, "cgroup": 2, "when": 3, "owner": 4, "tgid": 5, "port": 5432, "family": 4,
              "hook": abi.HOOK_MARK, "verdict": abi.VERDICT_REDIRECTED} | changes
    return bytes(abi.Origin(destination=(ctypes.c_uint8 * 16).from_buffer_copy(SERVER), **fields))


def test_a_record() -> None:
    assert parse_origin(record()) == Origin(4, 5, 2, 1, 3, "192.0.2.9", 5432, "mark", "redirected")
    assert parse_origin(record(hook=abi.HOOK_SOCKET, verdict=abi.VERDICT_DNS)).hook == "socket"


@pytest.mark.parametrize("size", [*range(56), 57, 112])
def test_another_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError):
        parse_origin((record() * 2)[:size])


@pytest.mark.parametrize("changes", [{"hook": 0}, {"hook": 4}, {"verdict": 0}, {"verdict": 255}])
def test_what_no_probe_writes_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        parse_origin(record(**changes))


def held(cgroup: int, *, port: int = 40000, remote_port: int = 5432, local: bytes = LOCAL, state: int = 1) -> Held:
    return Held(local, port, SERVER, remote_port, 77, cgroup, state)


def test_a_redirected_connection() -> None:
    others = [held(9, port=40001), held(9, local=SERVER)]
    found = find_redirected([*others, held(8)], b"\xc0\x00\x02\x07", 40000, {8}, 5)
    assert found == Origin(0, 0, 8, 77, 5, "192.0.2.9", 5432, "redirect")


def test_a_redirect_of_nobody_or_of_several() -> None:
    assert find_redirected([], LOCAL, 40000, {8}, 0) is None
    assert find_redirected([held(7)], LOCAL, 40000, {8}, 0) is None
    assert find_redirected([held(0)], LOCAL, 40000, {8}, 0) is None
    assert find_redirected([held(8), held(9, remote_port=1)], LOCAL, 40000, {8, 9}, 0) is None


def test_who_still_dials_was_not_accepted() -> None:
    """It has the end of another that has waited and given up; its own SYN is yet to reset what is left of that."""
    assert find_redirected([held(8, state=2)], LOCAL, 40000, {8}, 0) is None
    assert find_redirected([held(8), held(8, remote_port=1, state=2)], LOCAL, 40000, {8}, 0) is None
    assert find_asker([held(8, remote_port=53, state=2)], LOCAL, 40000, {8}, ("192.0.2.9", 53)) == 0


def test_one_end_for_two_destinations_of_one_cgroup() -> None:
    found = find_redirected([held(8), held(8, remote_port=1)], LOCAL, 40000, {8}, 0)
    assert found is not None
    assert (found.cgroup, found.destination, found.port, found.cookie) == (8, "", 0, 0)


def test_who_asks_by_a_datagram() -> None:
    any4, any6 = bytes(10) + b"\xff\xff" + bytes(4), bytes(16)
    for local in (LOCAL, any4, any6):
        assert find_asker([held(8, local=local, remote_port=0), held(9, port=40001)], LOCAL, 40000, {8}) == 8
    assert find_asker([], LOCAL, 40000, {8}) == 0
    assert find_asker([held(7)], LOCAL, 40000, {8}) == 0
    assert find_asker([held(8, local=SERVER)], LOCAL, 40000, {8}) == 0
    assert find_asker([held(8, local=any4), held(9)], LOCAL, 40000, {8, 9}) == 0      # either could have sent it
    assert find_asker([held(8, local=any4), held(7)], LOCAL, 40000, {8}) == 0


def test_who_asks_by_a_stream() -> None:
    """The one that is connected with the resolver, and no other that has its port by now."""
    mine, later = held(8, remote_port=53), held(9, remote_port=5432)
    assert find_asker([mine, later], LOCAL, 40000, {8, 9}, ("192.0.2.9", 53)) == 8
    assert find_asker([later], LOCAL, 40000, {8, 9}, ("192.0.2.9", 53)) == 0
    assert find_asker([mine], LOCAL, 40000, {8, 9}, ("192.0.2.8", 53)) == 0
