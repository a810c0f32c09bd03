"""What a container is, whose, and what weakens it: from the texts that the kernel shows."""
from __future__ import annotations

import pytest

from agent.workload.container import (
    PLAIN,
    Door,
    Mount,
    Process,
    capability_names,
    exposures,
    find_door,
    is_monitor,
    parse_mounts,
    parse_status,
    slice_of,
    weaknesses,
    workload_of,
)

PLACE = "/weir.slice/weir-crew.slice/libpod-1.scope"
OWN = {"net": "net:[2]", "pid": "pid:[2]", "mnt": "mnt:[2]", "ipc": "ipc:[2]"}
HOST = {"net": "net:[1]", "pid": "pid:[1]", "mnt": "mnt:[1]", "ipc": "ipc:[1]"}
RUN = Mount("0:23", "/", "/run", "tmpfs", True)
STATUS = """Name:\t{name}
Umask:\t0022
Uid:\t{uid}\t{uid}\t{uid}\t{uid}
CapInh:\t0000000000000000
CapPrm:\t{permitted}
CapEff:\t0000000000000000
CapBnd:\t{bound}
CapAmb:\t0000000000000000
NoNewPrivs:\t{nnp}
Seccomp:\t{seccomp}
"""


def process(**more: object) -> Process:
    said: dict[str, object] = {"pid": 7, "name": "python3", "uids": frozenset({1000}), "capabilities": 0,
                               "filtered": True, "namespaces": OWN, "mounts": ()}
    return Process(**(said | more))  # type: ignore[arg-type]


@pytest.mark.parametrize("workload", ["crew", "my-crew", "a.b_c", "a--b", "x2d"])
def test_a_slice_names_its_workload(workload: str) -> None:
    for name in (slice_of("weir", workload), slice_of("weir", workload, PLAIN)):
        assert "-" not in name.removeprefix("weir-")
        assert workload_of("weir", name) == workload


@pytest.mark.parametrize("name", ["crew-7", "weir-a-b.slice", "weir.slice", "other-crew.slice", "weir-crew", "weir-7",
                                  ""])
def test_what_is_no_workloads_slice(name: str) -> None:
    assert workload_of("weir", name) == ""


def test_a_runtimes_monitor_is_no_container() -> None:
    assert [is_monitor(one) for one in ("conmon", "libpod-conmon-1.scope", "libpod-1.scope", "conmon.scope")] == [
        True, True, False, False]


def test_nothing_to_say() -> None:
    assert list(weaknesses(process(), PLACE, HOST, ())) == []


@pytest.mark.parametrize(("what", "said"), [
    ({"capabilities": 1 << 13}, "it has NET_RAW"),
    ({"capabilities": 1 << 12 | 1 << 21}, "it has NET_ADMIN, SYS_ADMIN"),
    ({"capabilities": 1 << 39}, "it has BPF"),
    ({"capabilities": (1 << 41) - 1}, "it is privileged: it has nearly every capability"),
    ({"uids": frozenset({1000, 0})}, "it runs as root of the host's user namespace"),
    ({"filtered": False}, "no seccomp filter holds"),
    ({"namespaces": OWN | {"net": "net:[1]"}}, "it is in the host's network namespace"),
    ({"namespaces": OWN | {"pid": "pid:[1]"}}, "it is in the host's process namespace"),
    ({"mounts": (Mount("0:23", "/docker.sock", "/var/run/docker.sock", "tmpfs", True),)},
     "/run/docker.sock of the host shows at /var/run/docker.sock"),
    ({"mounts": (Mount("0:23", "/", "/host/run", "tmpfs", False),)}, "/run/docker.sock of the host shows at /host/run"),
    ({"mounts": (Mount("0:30", "/", "/sys/fs/bpf", "bpf", True),)}, "a BPF file system shows at /sys/fs/bpf"),
    ({"mounts": (Mount("0:25", "/", "/sys/fs/cgroup", "cgroup2", True),)},
     "it may write cgroups that are not its own at /sys/fs/cgroup"),
    ({"mounts": (Mount("0:25", "/weir.slice/weir-crew.slice", "/sys/fs/cgroup", "cgroup2", True),)},
     "it may write cgroups that are not its own at /sys/fs/cgroup"),
])
def test_what_is_said(what: dict[str, object], said: str) -> None:
    assert list(weaknesses(process(**what), PLACE, HOST, [Door("/run/docker.sock", "0:23", "/docker.sock")])) == [said]


@pytest.mark.parametrize("mount", [
    Mount("0:23", "/weir/trust/roots.pem", "/etc/ssl/certs/ca-certificates.crt", "tmpfs", False),
    Mount("0:99", "/docker.sock", "/var/run/docker.sock", "tmpfs", True),
    Mount("0:23", "/docker.socket", "/x", "tmpfs", True),
    Mount("0:25", PLACE, "/sys/fs/cgroup", "cgroup2", True),
    Mount("0:25", f"{PLACE}/below", "/sys/fs/cgroup", "cgroup2", True),
    Mount("0:25", "/", "/sys/fs/cgroup", "cgroup2", False),
])
def test_what_shows_nothing(mount: Mount) -> None:
    assert list(exposures([mount], [Door("/run/docker.sock", "0:23", "/docker.sock")], PLACE)) == []


def test_rights_by_default_are_nothing_to_say() -> None:
    """What podman 4.3 gives, without NET_RAW."""
    assert list(weaknesses(process(capabilities=0xA80425FB & ~(1 << 13)), PLACE, HOST, ())) == []
    assert "NET_RAW" in capability_names(0xA80425FB)


@pytest.mark.parametrize(("permitted", "bound", "nnp", "gained"), [
    ("0", "2000", "0", 0x2000), ("0", "2000", "1", 0), ("2000", "2000", "1", 0x2000)])
def test_what_could_be_gained(permitted: str, bound: str, nnp: str, gained: int) -> None:
    """By a program with set-uid, say; not with no_new_privs."""
    text = STATUS.format(name="sh", uid=5, permitted=permitted, bound=bound, nnp=nnp, seccomp=2)
    assert parse_status(text) == ("sh", frozenset({5}), gained, True)


def test_a_status_that_lacks_something() -> None:
    with pytest.raises(ValueError, match="CapPrm"):
        parse_status("Name:\tsh\nUid:\t0\t0\t0\t0\n")


def test_a_name_with_lines_in_it_changes_nothing() -> None:
    """The kernel escapes them; a name may hold anything else."""
    text = STATUS.format(name="a\\nUid:\\t1", uid=0, permitted="0", bound="0", nnp=1, seccomp=0)
    assert parse_status(text)[1:] == (frozenset({0}), 0, False)


def test_mounts() -> None:
    text = ("36 35 0:23 /a\\040b /mnt/x\\134y rw,noatime master:1 - tmpfs tmpfs rw,size=5\n"
            "37 35 8:1 / / ro - ext4 /dev/sda1 rw\n"
            "38 35 8:2 / /y rw shared:1 master:2 - ext4 /dev/sda2 ro\nshort - line\n")
    assert parse_mounts(text) == (
        Mount("0:23", "/a b", "/mnt/x\\y", "tmpfs", True), Mount("8:1", "/", "/", "ext4", False),
        Mount("8:2", "/", "/y", "ext4", False))


def test_where_a_door_lies() -> None:
    root, over = Mount("8:1", "/@", "/", "btrfs", True), Mount("0:24", "/", "/run", "tmpfs", True)
    assert find_door("s", "/run/docker.sock", [root, RUN, over]) == Door("s", "0:24", "/docker.sock")
    assert find_door("s", "/etc/shadow", [root, RUN]) == Door("s", "8:1", "/@/etc/shadow")
    assert find_door("s", "/runs", [RUN]) is None
    assert find_door("s", "/run", [root, RUN]) == Door("s", "0:23", "/")


@pytest.mark.parametrize(("name", "starting"), [
    ("runc:[2:INIT]", True), ("runc", True), ("crun", True), ("python3", False), ("runc:[", False)])
def test_what_comes_before_a_containers_program(name: str, starting: bool) -> None:
    assert process(name=name).starting is starting
