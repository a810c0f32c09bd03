"""The block: slice, nftables table and probes as one thing, which outlives this process.

Order: the slice; the rules, which alone drop everything; then the probes.  Nothing of it goes away with this object or
its process: only `release` takes it away.  Everything here may block.  OSError, LayoutError and PlatformError come
through.
"""
from __future__ import annotations

import ipaddress
import json
import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from agent.block import cgroups, nft, sockdiag
from agent.block.attribution import Bounded, Held, Origin, find_asker, find_redirected, parse_bounded, parse_origin
from agent.block.beside import find_mangling
from agent.block.contained import Contained
from agent.block.holdings import CONNECTION, ELSEWHERE, OWN, SENT, Foreign, Holdings, cookie_of
from agent.block.hostends import Link
from agent.block.joined import Joined, end_before
from agent.block.marks import TICK, Task, corrections, is_marked, parent_and_began
from agent.block.ruleset import Ruleset, differences
from agent.block.sealed import Sealed
from agent.layout import bound
from agent.network.netns import Namespace, current_cookie
from agent.processes import ENVIRONMENT, python_module
from probes import abi, libbpf, links
from probes.links import PlatformError

_TRACEFS: Final = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
_EVENT: Final = Path("events", links.TASK_EVENT, "id")
_ROUNDS: Final = 3                    # looks at what a unit has open: descriptors move on meanwhile
_LOAD: Final = 300.0                  # seconds; the loader takes one or two, and a minute where it is emulated
_MARKS: Final = ("hook newtask", "map owners")
_PASSES: Final = 20                   # over all tasks, while there are new ones with marks that are not theirs


class Containment:
    """`agent.block.kernel.Kernel`."""

    def __init__(
        self, name: str, *, port: int, resolver: tuple[str, int] | None, redirect: bool, run: Path, headers: Path,
    ) -> None:
        """`run`: Weir's run directory; `headers`: where a tree of kernel headers may be made.  Touches nothing."""
        self._slice = cgroups.find_slice(name)
        self._rules = Ruleset(name, self._slice.nft_path, self._slice.level, port, resolver, redirect)
        self._run, self._headers = run, headers
        self._maps: dict[str, int] = {}
        self._links: dict[str, int] = {}
        self._tags: dict[str, bytes] = {}      # of the programs as they were loaded
        self._lsm: tuple[str, ...] = ()        # hooks of BPF LSM that were attached
        self._without_lsm = "not loaded"
        self._ring: libbpf.Ring | None = None
        self._places: frozenset[bytes] | None = None
        self._contained = Contained(self._rules, self._is_ours, lambda: cgroups.cgroup_id(self.slice))
        self._sealed = Sealed(name)
        self._own = current_cookie()
        self._whole_at = 0            # CLOCK_BOOTTIME nanoseconds: when it was last seen that marks are handed on
        self._gap: int | None = None  # since when they may not have been, and have not been put right yet
        self._holdings = Holdings(self._in_crew, self._whose, self._made_outside)
        self._joined = Joined(self._slice.root)
        self._joining: frozenset[Path] = frozenset()   # cgroups whose sockets `join` looks at

    @property
    def slice(self) -> Path:
        return self._slice.path

    @property
    def bpffs(self) -> Path:
        return self._run / "bpf"

    @property
    def owners(self) -> Path:
        return links.map_pin(self.bpffs, "owners")

    @property
    def ring_fd(self) -> int:
        """Readable when there is something to drain.  The same one until `release`."""
        return self._reader().fd

    @property
    def lsm(self) -> str:
        """Which of BPF LSM's hooks are in place, and why not the others."""
        names = ", ".join(name.removeprefix("lsm__") for name in self._lsm)
        if not names:
            return f"off: {self._without_lsm}"
        return f"on: {names}" + (f"; without: {self._without_lsm}" if self._without_lsm else "")

    # put in place

    def install(self) -> None:
        """Also over what is there already: then marks, origins and connections stay, and programs are replaced."""
        self.slice.mkdir(mode=0o755, exist_ok=True)
        self._remember_joined()
        self._apply_rules()
        self._mount_bpffs()
        missing = self._missing()
        if self._gap is None and any(one.startswith(_MARKS) for one in missing):
            self._gap = self._whole_at
        self._pin_again()
        self._load()
        self._open()
        self._write_joined()
        if self._places is not None:
            self._write_places(self._places)

    def recall(self) -> None:
        """Which cgroups outside of the slice count as in it now, by what an agent keeps of them: for who has not joined
        them, and looks beside that agent."""
        self._joined = Joined(self._slice.root)
        self._remember_joined()
        self._rules = replace(self._rules, joined=self._joined.matches())

    def adopt(self) -> None:
        """What is in place, as it is.  Raises PlatformError where something is not."""
        self.recall()
        if found := self.problems():
            raise PlatformError("; ".join(found))
        self._lsm = tuple(hook.name for hook in links.LSM_HOOKS if links.link_pin(self.bpffs, hook.name).exists())
        self._open()

    def repair(self) -> None:
        """Only what is not as it should be: rules come back within milliseconds, probes take a second."""
        self.slice.mkdir(mode=0o755, exist_ok=True)
        for path in self._joined.made_again():
            self.join(path, CONNECTION)
        if self._rule_problems():
            self._apply_rules()
        self._contained.repair()
        self._sealed.repair()
        if self._problems():
            self.install()
        else:
            self._open()

    def freeze(self, on: bool) -> None:
        """Everything in the slice stands still, or goes on.  Where the slice is gone, nothing is in it."""
        for cgroup in (self.slice, *self._joined.ids):
            _freeze(cgroup, on)

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        try:
            before = self._stands_still()
        except FileNotFoundError:
            before = True
        self.freeze(True)
        try:
            yield
        finally:
            self.freeze(before)

    def _stands_still(self) -> bool:
        return (self.slice / "cgroup.freeze").read_text().strip() == "1"

    def watched(self) -> dict[Path, str]:
        """Directories whose changes mean that the block may not be whole, and the name in them that matters."""
        return {self._slice.root: self.slice.name, self.bpffs: "", self._run: self.bpffs.name}

    def mangling(self) -> list[str]:
        """What could undo the block's work behind it."""
        return [*find_mangling(nft.list_ruleset(), self._rules.name), *self._contained.mangling()]

    def beside(self) -> list[str]:
        """Programs of others that change addresses at the same places: not wrong in itself."""
        return links.beside(self._slice.root, self.slice, self.bpffs)

    def _load(self) -> None:
        resolver = ("--resolver", self._rules.resolver[0], str(self._rules.resolver[1])) if self._rules.resolver else ()
        with self._tracefs() as tracefs:
            command = [
                *python_module("probes.loader"), "--bpffs", str(self.bpffs), "--tracefs", str(tracefs), "--cgroup",
                str(self._slice.root), "--slice", str(self.slice), "--port", str(self._rules.port), "--netns",
                str(self._own), "--headers", str(self._headers), "--control", str(bound(self._run / "control.sock")),
                *resolver]
            try:
                done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=_LOAD, cwd="/",
                                      stdin=subprocess.DEVNULL)
            except subprocess.TimeoutExpired:
                raise PlatformError(f"the probes could not be put in place within {_LOAD:.0f} s") from None
        if done.returncode != 0:
            said = done.stderr.strip().splitlines()
            raise PlatformError(f"the probes could not be put in place: {said[-1] if said else done.returncode}")
        loaded = json.loads(done.stdout)
        self._lsm, self._without_lsm = tuple(loaded["lsm"]), loaded["without"]

    def _hooks(self) -> list[links.Hook]:
        return [*links.HOOKS, *(hook for hook in links.LSM_HOOKS if hook.name in self._lsm)]

    def _open(self) -> None:
        """Maps once, so that `ring_fd` stays; links anew, for some may have been replaced."""
        for name in links.MAPS:
            if name not in self._maps:
                self._maps[name] = libbpf.obj_get(links.map_pin(self.bpffs, name))
        if self._ring is None:
            self._ring = libbpf.Ring(self._maps["ring"])
        fresh = {hook.name: libbpf.obj_get(links.link_pin(self.bpffs, hook.name)) for hook in self._hooks()}
        before, self._links = self._links, fresh
        _close(before)
        self._tags = links.tags(self.bpffs, self._hooks())

    def _pin_again(self) -> None:
        """What is held and has lost its pin: else it would be made a second time beside the first."""
        held = {links.map_pin(self.bpffs, name): fd for name, fd in self._maps.items()}
        held |= {links.link_pin(self.bpffs, name): fd for name, fd in self._links.items()}
        for path, fd in held.items():
            if not path.exists():
                libbpf.pin(fd, path)

    def register(self, places: Iterable[tuple[str, int]]) -> None:
        """Addresses and ports of targets and egress entries: those on loopback never count as a workload's own.
        Raises ValueError where there are too many."""
        local = [(address, port) for address, port in places if ipaddress.ip_address(address).is_loopback]
        if len(local) > links.PLACES:
            raise ValueError(f"{len(local)} registered places on loopback, {links.PLACES} is the most")
        self._places = frozenset(abi.render_place(address, port) for address, port in local)
        self._write_places(self._places)

    def know_doors(self, descriptors: Iterable[int]) -> None:
        """Sockets at which crews find Weir, in whatever network namespace.  The probes lead crews to these alone,
        whoever else has their address and port."""
        for one in descriptors:
            libbpf.update(self._map("doors"), struct.pack("=i", one), struct.pack("=I", 1))

    def is_door(self, descriptor: int) -> bool:
        """Whether it is a socket that `know_doors` was told of, by this agent or one before.  Raises OSError where it
        is no socket."""
        return libbpf.lookup(self._map("doors"), struct.pack("=i", descriptor), 4) is not None

    def _write_places(self, places: frozenset[bytes]) -> None:
        fd = self._map("places")
        there = frozenset(libbpf.keys(fd, links.MAPS["places"].key_size))
        for gone in there - places:                # first, for there is room for as many as may be, and no more
            libbpf.delete(fd, gone)
        for one in places - there:
            libbpf.update(fd, one, b"\1")

    # cgroups outside of the slice that count as in it

    def joined(self) -> tuple[Path, ...]:
        return tuple(self._joined.ids)

    def join(self, cgroup: Path, end: str) -> list[Foreign]:
        """What is in it, and below, is a crew's from here on; what it had open before is ended (CONNECTION, PROCESS) or
        left to the rules, which drop its packets (RECORD).  Raises OSError, PlatformError, ValueError."""
        self._joined.check(cgroup)
        if cgroup.is_relative_to(self.slice):
            raise ValueError(f"{cgroup} lies in the slice")
        number = cgroups.cgroup_id(cgroup)
        looks, found = Holdings(self._in_crew, self._noted, lambda inode: False, end_before), []
        self._joining |= {cgroup}
        try:
            self._take_joined({**self._joined.live(), cgroup: number})
            for _ in range(_ROUNDS):
                found += looks.look(cgroups.processes(cgroup), end)
        finally:
            self._holdings.take_over(looks)
            self._joining -= {cgroup}
        return found

    def leave(self, cgroup: Path) -> None:
        """Raises OSError, PlatformError."""
        self._take_joined({path: number for path, number in self._joined.live().items() if path != cgroup})

    def _take_joined(self, wanted: dict[Path, int]) -> None:
        left = self._joined.ids.keys() - wanted.keys()
        self._joined.take(wanted)
        self._write_joined()
        self._apply_rules()
        with suppress(FileNotFoundError):
            if self._stands_still():
                self.freeze(True)
                for cgroup in left:
                    _freeze(cgroup, False)

    def _write_joined(self) -> None:
        entries, fd = self._joined.entries(), self._map("joined")
        filled = len(self._joined.ids)
        for place in (*range(filled), *reversed(range(filled, len(entries)))):
            libbpf.update(fd, struct.pack("=I", place), entries[place])

    def _apply_rules(self) -> None:
        """Again where a cgroup went away meanwhile: nft looks each up by its path."""
        for last in (False, False, True):
            self._rules = replace(self._rules, joined=self._joined.matches())
            try:
                return nft.apply_table(self._rules)
            except PlatformError:
                if last or not self._rules.joined:
                    raise

    def _remember_joined(self) -> None:
        if not self._joined.ids:
            self._joined.remember(self._read_joined())

    def _read_joined(self) -> list[bytes]:
        """The whole array; empty where it cannot be read."""
        size = links.MAPS["joined"].value_size
        try:
            with links.opened(links.map_pin(self.bpffs, "joined")) as fd:
                found = [libbpf.lookup(fd, struct.pack("=I", place), size) for place in range(abi.JOINED)]
        except OSError:
            return []
        return [one for one in found if one is not None]

    # mounts

    def _mount_bpffs(self) -> None:
        """In the host's mount namespace: in a private one every pin goes with its last process."""
        self.bpffs.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _mounted(self.bpffs) != "bpf":
            _in_host(["mount", "-t", "bpf", "-o", "mode=0700,nosuid,nodev,noexec", "weir", str(self.bpffs)])
        if _mounted(self.bpffs) != "bpf":
            raise PlatformError(f"{self.bpffs} was mounted in the host's mount namespace and is not seen in this one")

    @contextmanager
    def _tracefs(self) -> Iterator[Path]:
        for place in _TRACEFS:
            if (place / _EVENT).exists():
                yield place
                return
        own = self._run / "trace"
        own.mkdir(mode=0o700, exist_ok=True)
        if _mounted(own) != "tracefs":
            _run(["mount", "-t", "tracefs", "-o", "nosuid,nodev,noexec", "weir", str(own)])
        try:
            yield own
        finally:
            _unmount(own)

    # asked while it holds

    def drain(self) -> list[Origin]:
        """Connects since the last call, in order."""
        return [parse_origin(raw) for raw in self._reader().drain()]

    def bounded(self) -> list[Bounded]:
        """What came out of turn since the last call."""
        fd, spec = self._map("overs"), links.MAPS["overs"]
        taken = ((turn, libbpf.take(fd, turn, spec.value_size)) for turn in list(libbpf.keys(fd, spec.key_size)))
        return [parse_bounded(turn, over) for turn, over in taken if over is not None]

    def mark(self, pid: int, owner: int) -> None:
        """`pid` in the initial pid namespace; its children will have the mark, those it already has do not.  Raises
        ValueError."""
        if not 0 < pid < abi.PID_MAX or not 0 < owner <= abi.HIGHEST_OWNER:
            raise ValueError(f"no mark {owner} for process {pid}")
        libbpf.update(self._map("owners"), struct.pack("=I", pid), struct.pack("=I", owner))

    def remark(self, starts: Mapping[str, int]) -> int:
        """Put right what was born while marks were not handed on; how many were wrong.  `starts`: path of a cgroup ->
        its owner.  Raises PlatformError where it comes to no end."""
        if self._gap is None:
            return 0
        with self._frozen():          # or who forks faster than this looks would always have children with its own
            return self._put_right(starts, self._gap)

    def _put_right(self, starts: Mapping[str, int], since: int) -> int:
        wrong = 0
        for _ in range(_PASSES):
            found = corrections(self._tasks(starts), since)
            for pid, mark in found.items():
                libbpf.update(self._map("owners"), struct.pack("=I", pid), struct.pack("=I", mark))
            if not found:
                self._gap = None
                return wrong
            wrong += len(found)
        raise PlatformError("marks that are not their tasks' own keep coming")

    def _tasks(self, starts: Mapping[str, int]) -> Iterator[Task]:
        for pid in _pids():
            try:
                parent, began = parent_and_began(pid)
                path = cgroups.path_of(pid)
            except OSError:
                continue              # it has ended
            owner = None
            if cgroups.is_inside(self._slice, path) and is_marked(path.removeprefix(f"{self._slice.name}/")):
                place = f"{self._slice.root}{path}"
                owner = next((one for cgroup, one in starts.items() if f"{place}/".startswith(f"{cgroup}/")), 0)
            yield Task(pid, parent, began, self.owner_of(pid), owner)

    def owner_of(self, pid: int) -> int:
        """0: no mark."""
        raw = libbpf.lookup(self._map("owners"), struct.pack("=I", pid), 4) if 0 < pid < abi.PID_MAX else None
        return int.from_bytes(raw, "little") if raw else 0

    def is_crew(self, pid: int) -> bool:
        """By mark or cgroup.  True where it cannot be told: the process is gone, or the map is."""
        try:
            return pid <= 0 or self.owner_of(pid) != 0 or self._is_inside(cgroups.path_of(pid))
        except (OSError, PlatformError):
            return True

    def task(self, pid: int) -> tuple[int, int] | None:
        """Owner (0: no mark) and cgroup id of a crew's process; None: no crew's, or gone."""
        try:
            path = cgroups.path_of(pid)
            owner, inside = self.owner_of(pid), self._is_inside(path)
            return (owner, cgroups.cgroup_id(self._slice.root / path.lstrip("/"))) if owner or inside else None
        except OSError:
            return None

    def take(self, cookie: int) -> Origin | None:
        """Whose connection a listener has made this socket of (SO_COOKIE of the accepted one); handed out once.  Raises
        ValueError."""
        raw = libbpf.take(self._map("accepted"), struct.pack("=Q", cookie), links.MAPS["accepted"].value_size)
        return parse_origin(raw) if raw else None

    def by_redirect(self, netns: int, address: bytes, port: int) -> Origin | None:
        """Whose connection that the firewall redirected comes from there: the cgroup, not the process."""
        sockets = self._look(netns, lambda: sockdiag.tcp_sockets(port))
        return find_redirected(sockets, address, port, self._cgroup_ids(), time.monotonic_ns())

    def asker(self, netns: int, stream: bool, address: bytes, port: int) -> int:
        """Cgroup of the crew's socket, TCP or UDP, that has this end; 0: none."""
        kind = sockdiag.tcp_sockets if stream else sockdiag.udp_sockets
        return find_asker(self._look(netns, lambda: kind(port)), address, port, self._cgroup_ids(),
                          self._rules.resolver if stream else None)

    def _look(self, netns: int, at: Callable[[], list[Held]]) -> list[Held]:
        """In the host's network namespace or a contained one; there is nothing in any other."""
        return at() if netns == self._own else self._contained.look(netns, at)

    def tcp_sockets(self) -> list[Held]:
        """Every connected or connecting one of the host's and the contained network namespaces."""
        found = sockdiag.all_tcp_sockets()
        for cookie in self._contained.cookies():
            with suppress(OSError):   # it was given up meanwhile
                found += [replace(one, netns=cookie)
                          for one in self._contained.look(cookie, sockdiag.all_tcp_sockets)]
        return found

    def tcp_ends(self, port: int) -> list[Held]:
        """As `tcp_sockets`, of those with that local port."""
        found = sockdiag.tcp_sockets(port)
        for cookie in self._contained.cookies():
            with suppress(OSError):
                found += self._contained.look(cookie, lambda: sockdiag.tcp_sockets(port))
        return found

    def crew_cgroups(self) -> set[int]:
        """Ids of the slice's, of everything in it, and of what counts as in it."""
        return self._cgroup_ids()

    def contain(self, namespace: Namespace, name: str) -> None:
        """The rules hold in it, too.  Raises PlatformError, OSError where they do not."""
        self._contained.add(namespace, name)

    def seal(self, ends: Iterable[Link]) -> None:
        """Nothing passes the host's ends of these links, and of no others.  Raises PlatformError, ValueError."""
        self._sealed.set(ends)

    def let_go(self, cookie: int) -> None:
        """Nothing of a crew is in it any more."""
        self._contained.remove(cookie)

    def foreign_sockets(self, end: str) -> list[Foreign]:
        """Sockets that crew tasks hold and that were made outside, since the last call.  `end`: see holdings."""
        return self._holdings.look(self._looked_at(), end)

    def _looked_at(self) -> Iterator[int]:
        """What `join` looks at meanwhile, in another thread, it says itself.  In this order: who is a crew's because it
        joins is either left out, or what it has open is known by then."""
        found = self.crew()
        for cgroup in self._joining:
            found.difference_update(cgroups.processes(cgroup))
        yield from found

    def crew(self) -> set[int]:
        """Pids of everything in the slice, and of what has a mark wherever it is."""
        fd = self._map("owners")
        marked = {pid for pid in _pids() if libbpf.lookup(fd, struct.pack("=I", pid), 4) not in (None, bytes(4))}
        return marked.union(*map(cgroups.processes, (self.slice, *self._joined.ids)))

    def _in_crew(self, pid: int) -> bool:
        """By cgroup or mark; not by a mark alone that it may have from who had its number before.  Raises OSError where
        it cannot be told."""
        if self._is_inside(cgroups.path_of(pid)):
            return True
        return self.owner_of(pid) != 0 and parent_and_began(pid)[1] + TICK <= self._whole_at

    def _is_inside(self, path: str) -> bool:
        """In the slice, or in what counts as in it.  `path` as proc(5) has it."""
        return cgroups.is_inside(self._slice, path) or self._joined.contains(path)

    def _noted(self, copy: socket.socket, _pid: int = 0) -> str:
        """By what the probes keep with the socket."""
        key = struct.pack("=i", copy.fileno())
        if libbpf.lookup(self._map("makers"), key, links.MAPS["makers"].value_size):
            return OWN
        if libbpf.lookup(self._map("origins"), key, links.MAPS["origins"].value_size):
            return SENT
        return ELSEWHERE

    def _whose(self, copy: socket.socket, pid: int) -> str:
        """By what the probes keep with the socket; else by its cgroup, in the network namespace of `pid`."""
        if (noted := self._noted(copy)) != ELSEWHERE:
            return noted
        if copy.type not in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            return ELSEWHERE
        cookie, inside, port = cookie_of(copy), self._cgroup_ids(), copy.getsockname()[1]
        namespace = Namespace.of(pid)
        try:
            there = namespace.call(lambda: sockdiag.tcp_sockets(port, listening=True)
                                   if copy.type == socket.SOCK_STREAM else sockdiag.udp_sockets(port))
        finally:
            namespace.close()
        return OWN if any(one.cookie == cookie and one.cgroup in inside for one in there) else ELSEWHERE

    def _made_outside(self, inode: int) -> bool:
        inside = self._cgroup_ids()
        return any(one.inode == inode and one.cgroup not in inside for one in self.tcp_sockets())

    def _cgroup_ids(self) -> set[int]:
        """Of the slice and everything in it, and of what counts as in it."""
        found = set()
        for path in (one for top in (self.slice, *self._joined.ids) for one in cgroups.below(top)):
            with suppress(FileNotFoundError):
                found.add(cgroups.cgroup_id(path))
        return found

    def problems(self) -> list[str]:
        """Everything that is not as it should be, by the kernel's own queries; empty: enforcing."""
        if not self.slice.is_dir():
            return [f"the slice {self.slice} is not there"]
        return [*self._problems(), *self._contained.problems(), *self._sealed.problems()]

    def _problems(self) -> list[str]:
        """Without contained networks."""
        began, missing = time.clock_gettime_ns(time.CLOCK_BOOTTIME), self._missing()
        if self._gap is None and not any(one.startswith(_MARKS) for one in missing):
            self._whole_at = began
        return [*missing, *self._settings_problems(), *self._rule_problems(), *self._joined_problems()]

    def _rule_problems(self) -> list[str]:
        return differences(nft.list_table(self._rules.name), self._rules, self._is_ours)

    def _joined_problems(self) -> list[str]:
        found = [f"the cgroup {path} was made again, outside of the slice" for path in self._joined.made_again()]
        if (there := self._read_joined()) and there != self._joined.entries():
            found.append("the probes know other cgroups outside of the slice")
        return found

    def _missing(self) -> list[str]:
        return links.missing(self.bpffs, self._slice.root, self.slice, self._tags, self._hooks())

    def _settings_problems(self) -> list[str]:
        expected = abi.render_settings(cgroups.cgroup_id(self.slice), self._own, self._slice.level, self._rules.port,
                                       self._rules.resolver)
        try:
            with links.opened(links.map_pin(self.bpffs, "settings")) as fd:
                found = libbpf.lookup(fd, bytes(4), len(expected))
        except OSError as reason:
            return [f"the probes' settings: {reason.strerror}"]
        return [] if found == expected else ["the probes work with other settings"]

    def _is_ours(self, text: str, path: str) -> bool:
        """`text`: some path with the inode of that cgroup below /sys/fs/cgroup, or the number.  A joined one may be
        gone."""
        place = cgroups.NFT_BASE / path
        mine = cgroups.cgroup_id(place) if place in (self.slice, self._slice.root) else self._joined.ids.get(place, -1)
        if text.isdigit():
            return int(text) == mine
        try:
            return cgroups.cgroup_id(cgroups.NFT_BASE / text) == mine
        except OSError:
            return False

    # taken away

    def release(self) -> None:
        """Raises PlatformError while the slice holds a process.  Removing the slice comes first and cannot be
        overtaken: the kernel refuses it where a process is in it, and then nothing was changed."""
        self._remember_joined()
        for one in filter(cgroups.populated, self._joined.ids):
            raise PlatformError(f"{one.name} was adopted while it ran, and still does: restart it first, or "
                                f"weir adopt --undo {one.name}")
        if cgroups.populated(self.slice):
            raise PlatformError(f"the slice {self.slice} holds processes: {cgroups.processes(self.slice)[:10]}")
        if self.slice.exists():
            cgroups.remove(self.slice)
        self.close()
        self._contained.clear()
        self._sealed.clear()
        if _mounted(self.bpffs) == "bpf":
            for name in links.pins():
                (self.bpffs / name).unlink(missing_ok=True)
            _in_host(["umount", str(self.bpffs)])
        _unmount(self._run / "trace")
        nft.delete_table(self._rules.name)
        for one in (self.bpffs, self._run / "trace"):
            with suppress(FileNotFoundError):
                one.rmdir()

    def close(self) -> None:
        """Only what this process holds open: the block stays."""
        if self._ring is not None:
            self._ring.close()
            self._ring = None
        _close(self._maps)
        _close(self._links)
        self._maps, self._links, self._tags = {}, {}, {}

    def _reader(self) -> libbpf.Ring:
        if self._ring is None:
            raise PlatformError("the probes are not in place")
        return self._ring

    def _map(self, name: str) -> int:
        try:
            return self._maps[name]
        except KeyError:
            raise PlatformError("the probes are not in place") from None


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _freeze(cgroup: Path, on: bool) -> None:
    with suppress(FileNotFoundError):
        (cgroup / "cgroup.freeze").write_text("1" if on else "0")


def _close(descriptors: dict[str, int]) -> None:
    for fd in descriptors.values():
        os.close(fd)


def _mounted(path: Path) -> str:
    """Type of the file system that is mounted there in this process' namespace; empty: none."""
    found = b""
    for line in Path("/proc/self/mountinfo").read_bytes().split(b"\n"):      # others' mount points may be any bytes
        words = line.split(b" ")
        if words[4:5] == [os.fsencode(path)]:      # proc(5): mount point, then up to "-" optional fields
            found = words[words.index(b"-") + 1]
    return found.decode()


def _in_host(command: list[str]) -> None:
    host = _host_mounts()
    if not host.samefile("/proc/self/ns/mnt"):
        command = ["nsenter", f"--mount={host}", "--", *command]
    _run(command)


def _host_mounts() -> Path:
    """The host's mount namespace, by init; or by kthreadd, where init has a capability that this process lacks, and so
    may not be looked at (ptrace(2), access mode checking)."""
    init, kthreadd = Path("/proc/1/ns/mnt"), Path("/proc/2/ns/mnt")
    try:
        init.stat()
        return init
    except PermissionError:
        if Path("/proc/2/comm").read_bytes() != b"kthreadd\n":
            raise
        return kthreadd


def _unmount(path: Path) -> None:
    while _mounted(path):
        _run(["umount", str(path)])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise PlatformError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
