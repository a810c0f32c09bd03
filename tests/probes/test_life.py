"""The block over time: started twice, killed while it is put in place, damaged, repaired, released."""
from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from blockhost import DNS, DNS4, HEADERS, NAME, PORT, SERVER4, SINK, Block, listener, socket_cookie

from agent.block import nft
from agent.block.containment import Containment, _in_host
from agent.network.netns import current_cookie
from agent.processes import ENVIRONMENT, python_module
from probes import libbpf, links
from probes.links import PlatformError

pytestmark = pytest.mark.kernel
ROOT = Path(__file__).resolve().parents[2]


def loader(block: Block, tracefs: Path) -> list[str]:
    held = block.containment
    return [*python_module("probes.loader"), "--bpffs", str(held.bpffs), "--tracefs", str(tracefs), "--cgroup",
            str(held.slice.parent), "--slice", str(held.slice), "--port", str(PORT), "--netns", str(current_cookie()),
            "--resolver", DNS4, str(DNS), "--headers", str(HEADERS)]


def attached(block: Block) -> dict[str, int]:
    """Hook -> how many programs of that name the cgroup has, by BPF_PROG_QUERY."""
    counts = {}
    for hook in links.HOOKS:
        if hook.place != links.TASKS:
            place = links.place_of(hook, block.containment.slice.parent, block.containment.slice)
            with links.directory(place) as target:
                names = [libbpf.program_by_id(one).name for one in libbpf.prog_query(target, hook.attach_type)]
            counts[hook.name] = names.count(hook.name)
    return counts


CREW = """
import socket, sys
s = socket.create_connection((sys.argv[1], 5432), 5)
for line in sys.stdin:
    print(s.getpeername(), flush=True)
"""


def test_a_second_start_keeps_marks_and_origins(contained: Block) -> None:
    crew_marks = {os.getpid() + 1000000: 77}      # no process of this machine has it now
    with listener() as door:
        crew = contained.python(CREW, SERVER4, mark=9)
        accepted, _ = door.accept()
        for pid, owner in crew_marks.items():
            contained.containment.mark(pid, owner)
        waiting = len(contained.containment.drain())
        second = contained.fresh()
        second.install()
        try:
            assert waiting == 1
            assert set(attached(contained).values()) == {1}
            assert second.owner_of(crew.pid) == 9
            assert [second.owner_of(pid) for pid in crew_marks] == [77]
            with accepted:
                origin = second.take(socket_cookie(accepted))
            assert origin is not None
            assert (origin.owner, origin.destination) == (9, SERVER4)
            assert second.problems() == []
            said, _ = crew.communicate("\n", timeout=10)
            assert said == f"('{SERVER4}', 5432)\n"
        finally:
            second.close()
    contained.containment.repair()                # its own view of the links


def test_the_loader_may_be_killed_at_any_moment(contained: Block) -> None:
    """From nothing attached: some hooks, then kill -9; the next start makes it whole, and nothing is there twice."""
    try:
        with contained.containment._tracefs() as tracefs:
            whole = subprocess.run(loader(contained, tracefs), env=ENVIRONMENT, capture_output=True, text=True,
                                   check=True)
            assert len(whole.stdout.split(",")) > len(links.HOOKS)
            for _ in range(5):        # on a busy machine who watches may come late each time of a round
                cut = [_killed_half_way(contained, tracefs, number) for number in range(1, len(links.HOOKS), 3)]
                if any(cut):
                    break
            assert any(cut), "it was never killed half-way"
    finally:
        contained.containment.repair()


def _killed_half_way(contained: Block, tracefs: Path, number: int) -> bool:
    for pin in links.pins():
        if pin not in links.MAPS:
            (contained.containment.bpffs / pin).unlink(missing_ok=True)
    contained.containment.close()
    _kill_when(loader(contained, tracefs), contained.containment.bpffs, number)
    cut = bool(contained.containment.problems())
    assert set(attached(contained).values()) <= {0, 1}
    token = f"token-killed-loader-{number}"
    contained.technique("plain-ipv4", token)
    assert not contained.sink.saw(token), "the rules hold whatever the probes do"
    subprocess.run(loader(contained, tracefs), env=ENVIRONMENT, capture_output=True, check=True)
    assert contained.containment.problems() == []
    assert set(attached(contained).values()) == {1}
    return cut


def _kill_when(command: list[str], bpffs: Path, links_there: int) -> None:
    """kill -9 as soon as that many links are pinned.  bpffs has no inotify: looked at as often as can be."""
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len([one for one in os.listdir(bpffs) if one.startswith("link_")]) < links_there:
        pass
    process.kill()
    process.wait()


INSTALL = """
import os, sys
from pathlib import Path
from agent.block.containment import Containment
Containment(sys.argv[1], port=int(sys.argv[2]), resolver=(sys.argv[3], 53), redirect=True, run=Path(sys.argv[4]),
            headers=Path(sys.argv[5])).install()
os.kill(os.getpid(), 9)
"""


def test_what_is_attached_survives_who_attached_it(contained: Block) -> None:
    for pin in contained.containment.bpffs.glob("link_*"):
        pin.unlink()
    contained.containment.close()
    assert contained.containment.problems()
    done = subprocess.run([sys.executable, "-c", INSTALL, NAME, str(PORT), DNS4, str(contained.run), str(HEADERS)],
                          env={"PYTHONPATH": str(ROOT), **ENVIRONMENT}, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert contained.fresh().problems() == []
    assert set(attached(contained).values()) == {1}
    token = "token-dead-installer"
    contained.technique("plain-ipv4", token)
    assert not contained.sink.saw(token)
    contained.containment.adopt()
    assert [origin.port for origin in contained.containment.drain()] == [SINK]


def test_two_loaders_at_once_attach_once(contained: Block) -> None:
    for pin in contained.containment.bpffs.glob("link_*"):
        pin.unlink()
    contained.containment.close()
    with contained.containment._tracefs() as tracefs:
        both = [subprocess.Popen(loader(contained, tracefs), env=ENVIRONMENT, stdout=subprocess.DEVNULL)
                for _ in range(2)]
        assert [one.wait(60) for one in both] == [0, 0]
    assert set(attached(contained).values()) == {1}
    assert contained.containment.problems() == []
    contained.containment.repair()


def test_pins_that_are_gone_are_seen_and_put_back(contained: Block) -> None:
    before = contained.containment.ring_fd
    for pin in links.pins():
        (contained.containment.bpffs / pin).unlink(missing_ok=True)
    assert len(contained.containment.problems()) == len(links.HOOKS) + len(links.MAPS) + 1
    contained.containment.repair()
    assert contained.containment.problems() == []
    assert set(attached(contained).values()) == {1}
    assert contained.containment.ring_fd == before


def test_a_file_system_of_pins_that_is_gone(contained: Block) -> None:
    contained.containment.mark(os.getpid() + 1000000, 5)
    _in_host(["umount", str(contained.containment.bpffs)])      # where it is mounted, and so everywhere
    assert contained.containment.problems()
    contained.containment.repair()
    assert contained.containment.problems() == []
    assert set(attached(contained).values()) == {1}
    assert contained.containment.owner_of(os.getpid() + 1000000) == 5


@pytest.mark.parametrize("hook", [hook.name for hook in links.HOOKS])
def test_each_hook_is_missed(contained: Block, hook: str) -> None:
    contained.containment.close()
    (contained.containment.bpffs / f"link_{hook}").unlink()
    assert any(one.startswith(f"hook {hook}:") for one in contained.containment.problems())


def test_a_second_program_beside_the_first_is_seen(contained: Block) -> None:
    hook = next(one for one in links.HOOKS if one.name == "connect4")
    with links.opened(links.link_pin(contained.containment.bpffs, hook.name)) as link:
        program = libbpf._lib.bpf_prog_get_fd_by_id(libbpf.link_info(link).program)
    try:
        with links.directory(contained.containment.slice.parent) as root:
            second = libbpf.link_create(program, root, hook.attach_type)
        assert contained.containment.problems() == ["hook connect4: is attached 2 times"]
        os.close(second)
    finally:
        os.close(program)
    assert contained.containment.problems() == []


def test_other_settings_are_seen(contained: Block) -> None:
    with links.opened(links.map_pin(contained.containment.bpffs, "settings")) as fd:
        before = libbpf.lookup(fd, bytes(4), links.MAPS["settings"].value_size)
        assert before is not None
        libbpf.update(fd, bytes(4), bytes(8) + before[8:])
    assert contained.containment.problems() == ["the probes work with other settings"]


@pytest.mark.parametrize("command", [
    "flush table inet {name}", "delete table inet {name}", "add rule inet {name} crew_output accept",
    "insert rule inet {name} crew_output ip daddr 203.0.113.1 accept", "flush chain inet {name} filter_output",
    "flush chain inet {name} crew_input", "add chain inet {name} more",
])
def test_changed_rules_are_seen_and_put_back(contained: Block, command: str) -> None:
    nft._command(command.format(name=NAME))
    assert any(one.startswith("nftables:") for one in contained.containment.problems())
    contained.containment.repair()
    assert contained.containment.problems() == []


def test_a_slice_that_was_made_again(contained: Block) -> None:
    """A rule holds the inode: a new directory of the same name is another cgroup."""
    for child in contained.containment.slice.iterdir():
        if child.is_dir():
            child.rmdir()
    contained.containment.slice.rmdir()
    assert contained.containment.problems()
    contained.containment.slice.mkdir()
    found = " ".join(contained.containment.problems())
    assert "another cgroup" in found
    assert "hook egress" in found
    assert "settings" in found
    contained.containment.repair()
    assert contained.containment.problems() == []
    token = "token-new-slice"
    contained.technique("plain-ipv4", token)
    assert not contained.sink.saw(token)


def test_maps_of_another_build_are_refused(contained: Block) -> None:
    pin = links.map_pin(contained.containment.bpffs, "settings")
    aside = contained.containment.bpffs / "aside"
    pin.rename(aside)
    subprocess.run(["bpftool", "map", "create", str(pin), "type", "array", "key", "4", "value", "8", "entries", "1",
                    "name", "other"], check=True)
    other = contained.fresh()
    try:
        with pytest.raises(PlatformError, match="another build"):
            other.install()
        assert set(attached(contained).values()) == {1}, "what was in place stays in place"
    finally:
        other.close()
        aside.rename(pin)
    assert contained.containment.problems() == []


def test_a_tracepoint_of_another_layout_is_refused(contained: Block, tmp_path: Path) -> None:
    with contained.containment._tracefs() as tracefs:
        event = tmp_path / "events" / links.TASK_EVENT
        event.mkdir(parents=True)
        text = (tracefs / "events" / links.TASK_EVENT / "format").read_text()
    (event / "format").write_text(text.replace("offset:8;", "offset:12;"))
    done = subprocess.run(loader(contained, tmp_path), env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "another layout" in done.stderr
    assert contained.containment.problems() == []


def test_the_ring_wakes_who_waits(contained: Block) -> None:
    with select.epoll() as waiting:
        waiting.register(contained.containment.ring_fd, select.EPOLLIN)
        assert waiting.poll(0) == []
        crew = contained.python("import socket\nsocket.socket().connect_ex(('203.0.113.1', 9))")
        assert waiting.poll(20)
        crew.communicate(timeout=10)
        assert len(contained.containment.drain()) == 1
        assert waiting.poll(0) == []


def test_release_waits_for_the_last_process(contained: Block) -> None:
    crew = contained.python("import sys; sys.stdin.readline()")
    with pytest.raises(PlatformError, match=str(crew.pid)):
        contained.containment.release()
    assert contained.containment.problems() == []
    crew.communicate("\n", timeout=10)


def test_release_takes_everything_away(contained: Block) -> None:
    contained.fresh().release()       # as `weir release` does without an agent
    contained.containment.close()
    assert not contained.containment.slice.exists()
    assert not contained.containment.bpffs.exists()
    assert nft.list_table(NAME) == ""
    token = "token-released"
    assert contained.technique("plain-ipv4", token, inside=False)[0] == 0
    assert contained.sink.saw(token)
    contained.fresh().release()       # and again
    contained.containment.install()


def test_nothing_to_ask_before_it_is_in_place(tmp_path: Path) -> None:
    one = Containment("wt-none", port=PORT, resolver=None, redirect=False, run=tmp_path, headers=tmp_path)
    assert one.problems()
    for ask in (lambda: one.ring_fd, one.drain, lambda: one.mark(1, 1), lambda: one.take(1), one.adopt):
        with pytest.raises(PlatformError):
            ask()
