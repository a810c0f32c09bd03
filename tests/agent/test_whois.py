"""Whose is it: owners, facts of processes, places; the journal that tells of it."""
from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from agent import journal
from agent.contract import messages
from agent.contract.journal import END, EVENT, HEADER
from agent.contract.owner import Owner
from agent.journal import Journal, JournalError, backlog, plain, read_taken
from agent.network.resolve import Known, Place, Places, expand, parse_hosts
from agent.people.identity import Principal, local_principal
from agent.whois import Answers
from agent.workload import facts
from agent.workload.facts import Hashes, parse_argv, read_process, read_started
from agent.workload.owners import HIGHEST, Owners, Start


def start(owner: int, cgroup: str = "/nowhere") -> Start:
    return Start(owner, "crew", 5, "games", ("games",), cgroup, 1)


# owners


def test_owners_survive_and_numbers_are_never_given_twice(tmp_path: Path) -> None:
    owners = Owners(tmp_path / "owners.json")
    first, second = owners.draw(), owners.draw()
    owners.put(start(first))
    assert second == first + 1
    again = Owners(tmp_path / "owners.json")
    assert again.find(first) == start(first)
    assert again.draw() == second + 1
    again.end(first)
    assert again.find(first) == start(first)      # its last connections are still known
    assert len(again) == 0
    assert Owners(tmp_path / "owners.json").find(first) is None
    assert (tmp_path / "owners.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "{", "[]", '{"next":0,"starts":[]}', '{"next":1,"starts":[{"owner":1}]}',
                                  '{"next":99999999999,"starts":[]}'])
def test_a_damaged_table_knows_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "o").write_text(text)
    owners = Owners(tmp_path / "o")
    assert len(owners) == 0
    assert 0 < owners.draw() <= HIGHEST


def test_numbers_wrap_around_what_is_taken(tmp_path: Path) -> None:
    (tmp_path / "o").write_bytes(msgspec.json.encode({"next": HIGHEST, "starts": [msgspec.to_builtins(start(1))]}))
    owners = Owners(tmp_path / "o")
    assert [owners.draw(), owners.draw()] == [HIGHEST, 2]


def test_numbers_that_packets_would_show_alike_do_not_run_together(tmp_path: Path) -> None:
    """The mark has room for the lower bits (probes/bpf/abi.h)."""
    (tmp_path / "o").write_bytes(msgspec.json.encode({"next": 0x8003, "starts": [msgspec.to_builtins(start(4))]}))
    owners = Owners(tmp_path / "o")
    assert [owners.draw(), owners.draw()] == [0x8003, 0x8005]


def test_only_so_many_ended_ones_are_remembered(tmp_path: Path) -> None:
    owners = Owners(tmp_path / "o")
    for number in range(1, 400):
        owners.put(start(number))
        owners.end(number)
    assert owners.find(1) is None
    assert owners.find(399)


def test_a_start_by_its_cgroup(tmp_path: Path) -> None:
    (tmp_path / "a" / "below").mkdir(parents=True)
    owners = Owners(tmp_path / "o")
    owners.put(start(1, str(tmp_path / "a")))
    owners.put(start(2, str(tmp_path / "gone")))
    assert owners.find_cgroup((tmp_path / "a" / "below").stat().st_ino) == start(1, str(tmp_path / "a"))
    assert owners.find_cgroup(tmp_path.stat().st_ino) is None


# facts


def now() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


async def test_facts_of_a_process() -> None:
    sleep = "import time; time.sleep(100)"
    with subprocess.Popen(["/usr/bin/python3", "-c", sleep, "", "ä\n", "x" * 10_000]) as process:
        try:
            await asyncio.to_thread(wait_for, process.pid, "python3")
            found = await read_process(process.pid, now(), Hashes())
        finally:
            process.kill()
    assert found.exe == os.path.realpath("/usr/bin/python3")
    assert found.exe_sha256 == hashlib.sha256(Path("/usr/bin/python3").read_bytes()).hexdigest()
    assert found.argv[:5] == ("/usr/bin/python3", "-c", sleep, "", "ä\n")
    assert sum(map(len, found.argv)) == facts.CHARACTERS
    assert 0 < found.started <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def wait_for(pid: int, name: str) -> None:
    """The name is set early in execve(2), the arguments late."""
    end = time.monotonic() + 10
    while Path(f"/proc/{pid}/comm").read_text().strip() != name or not Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < end, f"no {name} in process {pid}"
        time.sleep(0.001)


async def test_a_pid_that_is_another_process_by_now() -> None:
    before = now() - 60_000_000_000
    with subprocess.Popen(["/usr/bin/sleep", "100"]) as process:
        try:
            found = await read_process(process.pid, before, Hashes())
        finally:
            process.kill()
    assert (found.pid, found.exe, found.argv, found.started) == (process.pid, "", (), 0)


async def test_a_process_that_has_ended() -> None:
    process = subprocess.run(["/bin/sh", "-c", "echo $$"], capture_output=True, text=True)
    assert (await read_process(int(process.stdout), now(), Hashes())).exe == ""
    assert read_started(Path("/proc/0")) == 0


async def test_a_name_that_pretends_to_be_fields(tmp_path: Path) -> None:
    shutil.copy("/usr/bin/sleep", tmp_path / ") S 1 1 1 (")
    with subprocess.Popen([str(tmp_path / ") S 1 1 1 ("), "100"]) as process:
        try:
            await asyncio.to_thread(wait_for, process.pid, ") S 1 1 1 (")
            assert (await read_process(process.pid, now(), Hashes())).exe.endswith(") S 1 1 1 (")
        finally:
            process.kill()


async def test_a_file_is_hashed_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "exe"
    file.write_bytes(b"one")
    count = []
    real = facts._hash
    monkeypatch.setattr(facts, "_hash", lambda fd, key: count.append(key) or real(fd, key))
    hashes = Hashes()

    async def digest() -> str:
        return await hashes.of(os.open(file, os.O_RDONLY))

    many = await asyncio.gather(*(digest() for _ in range(20)))
    assert set(many) == {hashlib.sha256(b"one").hexdigest()}
    assert len(count) == 1
    file.write_bytes(b"two!")
    assert await digest() == hashlib.sha256(b"two!").hexdigest()
    monkeypatch.setattr(facts, "HASHED", 2)
    assert await digest() == ""
    assert await hashes.of(os.open(tmp_path, os.O_RDONLY)) == ""
    hashes.close()


@pytest.mark.parametrize(("line", "wanted"), [
    (b"", ()), (b"a\0b\0", ("a", "b")), (b"a\0\0", ("a", "")), (b"\xff\0", ("\\xff",)),
    (b"x\0" * 100, ("x",) * 64), (b"title without an end", ("title without an end",)),
])
def test_argv(line: bytes, wanted: tuple[str, ...]) -> None:
    assert parse_argv(line) == wanted


# whois


@dataclass(frozen=True)
class Origin:
    owner: int = 0
    tgid: int = 0
    cgroup: int = 0
    cookie: int = 9
    when: int = 0
    destination: str = "192.0.2.4"
    port: int = 5432
    hook: str = "connect4"


@dataclass
class Kernel:
    known: dict[int, Origin] = field(default_factory=dict)
    redirects: dict[int, Origin] = field(default_factory=dict)

    def take(self, cookie: int) -> Origin | None:
        return self.known.pop(cookie, None)

    def by_redirect(self, netns: int, address: bytes, port: int) -> Origin | None:
        return self.redirects.get(port)


def target(name: str, *hosts: str, port: int = 5432, credentials: tuple[Any, ...] = ()) -> Any:
    return SimpleNamespace(name=name, hosts=hosts, port=port, credentials=credentials)


def egress(name: str, *addresses: str, ports: tuple[int, ...] = (443,)) -> Any:
    return SimpleNamespace(name=name, addresses=addresses, ports=ports, metadata=False, private=False)


@pytest.fixture
def answers(tmp_path: Path) -> tuple[Answers, Kernel]:
    kernel = Kernel()
    owners = Owners(tmp_path / "owners.json")
    owners.put(start(7, "/cg/weir.slice/crew-7"))
    places = Places([target("orders", "192.0.2.4")], [egress("model", "192.0.2.3")], Known())
    config: Any = SimpleNamespace(groups={"data": ("workload:crew",), "x": ("group:games",)}, targets=())
    return Answers(kernel, owners, Hashes(), Path("/cg"), lambda: config, lambda: places,
                   principal=lambda start: local_principal(
                       config.groups, start.user, start.unix_groups, start.workload)), kernel  # type: ignore[arg-type]


async def whois(answers: Answers, number: int, redirected: str = "") -> Owner | str:
    """`number`: its cookie and its port."""
    found = await answers.answer(messages.Whois(1, number, 5, b"\0" * 16, number, redirected))
    assert isinstance(found, messages.WhoisAnswer)
    return found.owner or found.reason


async def test_by_the_mark_once(answers: tuple[Answers, Kernel]) -> None:
    whose, kernel = answers
    kernel.known[1] = Origin(owner=7, tgid=os.getpid(), when=now())
    found = await whois(whose, 1)
    assert isinstance(found, Owner)
    assert (found.attribution, found.target, found.egress, found.cookie) == ("mark", "orders", "", 9)
    assert (found.groups, found.cgroup) == (("data", "x"), "/weir.slice/crew-7")
    assert found.process
    assert found.process.exe == os.path.realpath(sys.executable)
    assert await whois(whose, 1) == "no connect of a crew has led to it"


async def test_a_mark_that_nobody_gave(answers: tuple[Answers, Kernel]) -> None:
    whose, kernel = answers
    kernel.known[1] = Origin(owner=8)
    assert await whois(whose, 1) == "owner 8 is no workload that this agent has started"


async def test_by_the_redirect(answers: tuple[Answers, Kernel]) -> None:
    whose, kernel = answers
    kernel.redirects[1] = Origin(owner=7, tgid=os.getpid(), when=now(), destination="", port=0)
    assert await whois(whose, 1) == "no connect of a crew has led to it"
    for original, wanted in (("192.0.2.3 443", "model"), ("::ffff:192.0.2.3 443", "model"), ("192.0.2.3 444", "")):
        found = await whois(whose, 1, original)
        assert isinstance(found, Owner)
        assert (found.attribution, found.egress, found.process) == ("redirect", wanted, None)
    assert await whois(whose, 1, "what is this") == "the agent could not tell"


@pytest.mark.parametrize(("dialled", "port", "yes"), [
    ("192.0.2.3", 443, True), ("192.0.2.3", 444, False), ("192.0.2.4", 443, False), ("fd00:0::1", 443, False)])
async def test_by_the_redirect_of_a_client_that_gave_up(
    answers: tuple[Answers, Kernel], dialled: str, port: int, yes: bool,
) -> None:
    """It waited, as over a restart of the agent, and another socket has its address and port by now: to elsewhere."""
    whose, kernel = answers
    kernel.redirects[1] = Origin(owner=7, tgid=os.getpid(), when=now(), destination=dialled, port=port)
    found = await whois(whose, 1, "::ffff:192.0.2.3 443")
    assert isinstance(found, Owner) == yes
    kernel.redirects[1] = Origin(owner=7, tgid=os.getpid(), when=now(), destination="fd00::1", port=443)
    assert isinstance(await whois(whose, 1, "fd00:0:0:0::1 443"), Owner)


async def test_what_breaks_is_no(answers: tuple[Answers, Kernel], caplog: pytest.LogCaptureFixture) -> None:
    whose, kernel = answers
    kernel.take = lambda *_: 1 / 0  # type: ignore[assignment,return-value]
    assert await whois(whose, 1) == "the agent could not tell"
    found = await whose.answer(messages.AskCredential(3, "nowhere", "d", "r", ()))
    assert found == messages.CredentialAnswer(3, None, "no target nowhere is configured")


# places


def test_a_target_is_never_a_flow_and_two_targets_are_none() -> None:
    known = Known()
    known.update("db", ["192.0.2.4"], 0)
    known.update("other", ["192.0.2.4", "192.0.2.5"], 0)
    places = Places([target("a", "db"), target("b", "other"), target("c", "192.0.2.4", port=1)],
                    [egress("e", "192.0.2.4", ports=(5432, 2))], known)
    assert places.find("192.0.2.4", 5432).conflict == "192.0.2.4 port 5432 belongs to both a and b"
    assert places.find("192.0.2.5", 5432) == Place(target="b")
    assert places.find("192.0.2.4", 1) == Place(target="c")
    assert places.find("192.0.2.4", 2) == Place(egress="e", listed=True)
    assert places.find("192.0.2.4", 3) == Place()
    assert places.conflicts() == ["192.0.2.4 port 5432 belongs to both a and b"]
    assert expand(["192.0.2.9", "other", "nowhere", "db"], known) == ("192.0.2.9", "192.0.2.4", "192.0.2.5")


def test_an_egress_entry_by_name() -> None:
    known = Known()
    known.update("api.test", ["192.0.2.1", "2001:db8::1", "169.254.169.254", "127.0.0.1"], 0)
    known.update("b.test", ["192.0.2.1"], 0)
    known.update("x.cdn.test", ["9.9.9.5", "2620:fe::5"], 0)
    known.update("cdn.test", ["192.0.2.6"], 0)
    entries = [egress("api", "api.test"), egress("b", "b.test"), egress("cdn", "*.cdn.test", "192.0.2.7")]
    places = Places([], entries, known)
    assert places.find("192.0.2.1", 443) == Place(egress="api", names=("api.test", "b.test"))    # others of one only
    assert places.find("2001:db8::1", 443) == Place(egress="api", names=("api.test",), others=("192.0.2.1",))
    assert places.find("9.9.9.5", 443) == Place(egress="cdn", names=("x.cdn.test",), others=("2620:fe::5",))
    assert places.find("192.0.2.7", 443) == Place(egress="cdn", listed=True)
    for nobody in ("192.0.2.6", "169.254.169.254", "127.0.0.1"):
        assert places.find(nobody, 443) == Place()
    assert places.find("192.0.2.1", 80) == Place()


def test_metadata_addresses_only_where_the_entry_says_so() -> None:
    entry = egress("cloud", "169.254.169.254", "127.0.0.1")
    assert Places([], [entry], Known()).find("169.254.169.254", 443) == Place()
    assert Places([], [entry], Known()).find("127.0.0.1", 443) == Place(egress="cloud", listed=True)
    entry.metadata = True
    assert Places([], [entry], Known()).find("169.254.169.254", 443) == Place(egress="cloud", listed=True)


def test_below_a_wildcard_no_name_leads_inside_unless_the_entry_says_so() -> None:
    """Whoever has a name below it chooses where it leads."""
    known = Known()
    known.update("x.cdn.test", ["10.0.0.5", "fd00::5", "100.64.0.5", "9.9.9.5"], 0)
    known.update("api.test", ["10.0.0.6"], 0)
    entry = egress("cdn", "*.cdn.test", "api.test", "10.0.0.7")
    places = Places([], [entry], known)
    for inside in ("10.0.0.5", "fd00::5", "100.64.0.5"):
        assert places.find(inside, 443) == Place()
    assert places.find("9.9.9.5", 443) == Place(egress="cdn", names=("x.cdn.test",))
    assert places.find("10.0.0.6", 443) == Place(egress="cdn", names=("api.test",))        # its operator has named it
    assert places.find("10.0.0.7", 443) == Place(egress="cdn", listed=True)
    assert places.egress["cdn"] == ("10.0.0.7", "9.9.9.5", "10.0.0.6")
    entry.private = True
    assert Places([], [entry], known).find("10.0.0.5", 443) == Place(
        egress="cdn", names=("x.cdn.test",), others=("fd00::5",))


def test_no_name_leads_to_the_host_itself() -> None:
    known = Known()
    known.update("api.test", ["9.9.9.9", "9.9.9.8"], 0)
    entries = [egress("api", "api.test"), egress("own", "9.9.9.9", ports=(80,))]
    places = Places([target("db", "api.test")], entries, known, {"9.9.9.9"}.__contains__)
    assert places.find("9.9.9.9", 443) == Place()
    assert places.find("9.9.9.9", 80) == Place(egress="own", listed=True)
    assert places.find("9.9.9.8", 443) == Place(egress="api", names=("api.test",))
    assert places.find("9.9.9.9", 5432) == Place(target="db")


def test_what_one_entry_permits_is_no_other_ones() -> None:
    """Also not as the other family's address of a connection."""
    known = Known()
    known.update("x.cdn.test", ["9.9.9.5", "fd00::5"], 0)
    inner = egress("inner", "*.cdn.test", ports=(80,))
    inner.private = True
    for entries in ([egress("cdn", "*.cdn.test"), inner], [inner, egress("cdn", "*.cdn.test")]):
        places = Places([], entries, known)
        assert places.find("9.9.9.5", 443) == Place(egress="cdn", names=("x.cdn.test",))
        assert places.find("9.9.9.5", 80) == Place(egress="inner", names=("x.cdn.test",), others=("fd00::5",))
        assert places.find("fd00::5", 443) == Place()


def test_the_hosts_file() -> None:
    assert parse_hosts("# c\n192.0.2.1 a B # x\n::1 a\nnonsense b\n\n10.0.0.1\n") == {
        "a": ("192.0.2.1", "::1"), "b": ("192.0.2.1",)}


# journal


def records(directory: Path) -> list[tuple[int, bytes]]:
    found = []
    for path in sorted(directory.glob("*.journal"), key=lambda path: int(path.stem.rpartition("-")[2])):
        data, at = path.read_bytes(), 0
        while at < len(data):
            kind, size, _ = HEADER.unpack_from(data, at)
            found.append((kind, data[at + HEADER.size:at + HEADER.size + size]))
            at += HEADER.size + size
    return found


def test_journal_files(tmp_path: Path) -> None:
    one = Journal(tmp_path, os.getgid(), segment=400)
    for number in range(10):
        one.record("launch", "crew", {"z": number, "a": "\udcff\x00" + "x" * 100})
    one.close()
    one.record("after", "", {})
    files = sorted(tmp_path.glob("agent-*-*.journal"))
    assert len(files) > 3
    assert all(path.stat().st_mode & 0o777 == 0o640 for path in files)
    assert len({path.name.split("-")[1] for path in files}) == 1
    events = [msgspec.msgpack.decode(body) for kind, body in records(tmp_path) if kind == EVENT]
    assert [event[3] for event in events] == ["launch"] * 10 + ["after"]
    assert list(events[0][5]) == ["a", "z"]
    assert events[0][5]["a"].startswith("\\udcff\x00xxx")
    assert [kind for kind, _ in records(tmp_path)].count(END) == len(files) - 1


def test_a_record_that_does_not_fit_on_the_disk_is_cut_off_again(tmp_path: Path) -> None:
    import resource

    one = Journal(tmp_path, os.getgid())
    one.record("first", "", {})
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))
    try:
        with pytest.raises(JournalError):
            one.record("second", "", {"x": "y" * 100})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    one.record("third", "", {})
    assert [msgspec.msgpack.decode(body)[3] for _, body in records(tmp_path)] == ["first", "third"]


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    one = Journal(tmp_path / "none", os.getgid())
    with pytest.raises(JournalError):
        one.record("x", "", {})
    (tmp_path / "none").mkdir()
    one.record("x", "", {})
    assert len(records(tmp_path / "none")) == 1


def test_backlog(tmp_path: Path) -> None:
    (tmp_path / "agent-00-0.journal").write_bytes(b"x" * 10)
    (tmp_path / "enforcer0-00-0.journal").write_bytes(b"x" * 100)
    assert (backlog(tmp_path), backlog(tmp_path, "agent-")) == (110, 10)
    (tmp_path / "taken").write_bytes(msgspec.msgpack.encode({"agent-00-0.journal": 4, "gone.journal": 5}))
    assert (backlog(tmp_path), backlog(tmp_path, "agent-")) == (106, 6)
    (tmp_path / "taken").write_bytes(b"\xc1")
    assert read_taken(tmp_path) == {}
    assert backlog(tmp_path / "nowhere") == 0


def test_plain() -> None:
    assert plain("ä\udc80") == "ä\\udc80"
    assert len(plain("x" * 10_000)) == journal.VALUE


async def test_behind_whom_nobody_is_is_said_with_the_reason(answers: tuple[Answers, Kernel]) -> None:
    """The login that it was started with has ended, its identity is not verified."""
    whose, kernel = answers
    whose._principal = lambda start: "no identity now"  # type: ignore[method-assign]
    kernel.known[1] = Origin(owner=7, tgid=os.getpid(), when=now())
    found = await whois(whose, 1)
    assert isinstance(found, Owner)
    assert (found.nobody, found.subject, found.groups, found.login) == ("no identity now", "", (), "")
    assert (found.workload, found.cookie) == ("crew", 9), "the ledger and the recording know whose connect it was"


async def test_a_login_goes_with_the_owner(answers: tuple[Answers, Kernel]) -> None:
    whose, kernel = answers
    whose._principal = lambda start: Principal("corp:ada", ("dba",), "s1.1")  # type: ignore[method-assign]
    kernel.known[1] = Origin(owner=7, tgid=os.getpid(), when=now())
    found = await whois(whose, 1)
    assert isinstance(found, Owner)
    assert (found.subject, found.groups, found.login, found.user) == ("corp:ada", ("dba",), "s1.1", "games")
