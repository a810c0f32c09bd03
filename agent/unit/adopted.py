"""Units while the agent runs: whose their connections are, and whether they are confined as their drop-in says.

A unit has no mark: systemd starts it.  What it connects is known by its cgroup (the hooks tell its id), which lies in
the slice and has the unit's name, and which only root can make.  Who it is, is what the kernel says of its processes.
A start is found when it is first asked for, or within a second; one of a uid that the workload does not have is
nobody's, and its connections are refused.
"""
from __future__ import annotations

import asyncio
import logging
import os
import pwd
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.block import cgroups
from agent.block.holdings import CONNECTION, RECORD, Foreign
from agent.block.joined import find_places, holds
from agent.config import Config
from agent.contract import control
from agent.control import Peer
from agent.journal import plain
from agent.settings.host_table import Workload
from agent.unit import bound, systemd
from agent.unit.adoptable import DYNAMIC, REPORT, Unit
from agent.unit.dropin import render_dropin, undone
from agent.unit.planning import directory_of, plan_unit
from agent.unit.standing import objections
from agent.unit.systemd import SystemdError
from agent.workload.owners import Start
from probes.links import PlatformError

if TYPE_CHECKING:
    from agent.supervisor import Agent

LOG = logging.getLogger("weir.units")

EVERY: Final = 10.0                   # seconds between looks at what systemd has in force


class Units:
    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._examined_at = 0.0
        self._wrong: dict[str, tuple[str, ...]] = {}       # unit -> what is wrong with it, by systemd's word
        self._dynamic: dict[str, str] = {}                 # unit -> the user that systemd makes for it
        self._strange: dict[str, str] = {}                 # unit -> why its processes are nobody's
        self._idle: tuple[str, ...] = ()                   # units that are configured and not adopted

    # whose

    def find(self, number: int) -> Start | None:
        """By the id of a cgroup: of a unit's, or below it."""
        for workload, path in self._places():
            try:
                if any(os.stat(one).st_ino == number for one, _, _ in os.walk(path)):
                    return self._register(workload, path)
            except OSError:
                continue
        return None

    def _places(self) -> Iterator[tuple[Workload, Path]]:
        """Where processes of configured units are the crews'."""
        joined = self._agent.kernel.joined()
        for workload in self._agent.config.workloads:
            if workload.unit:
                yield workload, self._agent.kernel.slice / workload.unit
                yield from ((workload, path) for path in joined if path.name == workload.unit)

    def _register(self, workload: Workload, path: Path) -> Start | None:
        unit = workload.unit or ""
        inode = path.stat().st_ino
        for start in self._agent.owners:
            if start.cgroup == str(path) and start.inode == inode:
                return start
            if start.cgroup == str(path):
                self._end(start)
        who = read_peer(path)
        user = self._user(workload, who)
        if who is None or not user:
            self._strange[unit] = "" if who is None else f"{unit}: its processes are not one of its users' alone"
            return None
        self._strange.pop(unit, None)
        owner = self._agent.owners.draw()
        start = Start(owner, workload.name, who.uid, user, who.unix_groups, str(path), time.time_ns(), who.pid, unit,
                      unit=unit, inode=inode)
        self._agent.owners.put(start)
        self._agent.tell("unit.started", {"unit": unit, "owner": owner, "uid": who.uid, "user": user, "pid": who.pid,
                                          "cgroup": str(path)}, workload.name)
        return start

    def _end(self, start: Start) -> None:
        self._agent.owners.end(start.owner)
        self._agent.tell("unit.ended", {"unit": start.unit, "owner": start.owner}, start.workload)

    def _user(self, workload: Workload, who: Peer | None) -> str:
        """Empty: nobody who may be this workload."""
        if who is None or who.uid == 0:
            return ""
        with suppress(KeyError):
            if (name := pwd.getpwuid(who.uid).pw_name) in workload.users:
                return name
        return self._dynamic.get(workload.unit or "", "") if who.uid in DYNAMIC else ""

    # the watch

    async def look(self) -> None:
        """Each second: what has started, what has ended."""
        running = set()
        for workload, path in self._places():
            with suppress(OSError):
                if cgroups.populated(path):
                    running.add(workload.unit)
                    self._register(workload, path)
        self._strange = {unit: text for unit, text in self._strange.items() if unit in running}
        for start in self._agent.owners:
            if start.unit and not _is_there(start):
                self._end(start)
        for path in self._agent.kernel.joined():
            if not path.exists():
                await self._leave(path)
        if time.monotonic() - self._examined_at >= EVERY:
            await self.examine()
        self._agent.health.units = self.problems()

    async def examine(self) -> None:
        """What systemd has in force."""
        self._examined_at = time.monotonic()
        found = await asyncio.to_thread(self._examine_all)
        before, self._wrong = self._wrong, {unit: wrong for unit, (_, wrong) in found.items()}
        self._dynamic = {unit: one["User"] for unit, (one, _) in found.items() if one is not None and one.dynamic}
        self._idle = tuple(one.unit for one in self._agent.config.workloads if one.unit and one.unit not in found)
        for unit, wrong in self._wrong.items():
            if wrong and wrong != before.get(unit):
                self._agent.tell("unit.drifted", {"unit": unit, "found": "; ".join(wrong)})

    def _examine_all(self) -> dict[str, tuple[Unit | None, tuple[str, ...]]]:
        """Units that have Weir's drop-in."""
        agent = self._agent
        return {one.unit: examine_unit(agent.config, one, agent.accounts.group_names, agent.cgroups,
                                       agent.kernel.joined)
                for one in agent.config.workloads if one.unit and systemd.file_of(one.unit).exists()}

    def problems(self) -> tuple[str, ...]:
        """For the state: through what something may get."""
        found = [f"{unit}: {one}" for unit, wrong in self._wrong.items() for one in wrong]
        found += [text for text in self._strange.values() if text]
        found += [f"{path.name} runs since before it was adopted: it is contained, and not yet confined; systemctl "
                  f"restart {path.name}, and end what that leaves in {path}"
                  for path in self._agent.kernel.joined() if holds(path)]
        for workload, path in self._places():
            if workload.unit in self._idle and holds(path):
                found.append(f"{workload.unit} runs in the slice without Weir's drop-in: weir adopt {workload.unit}")
        return tuple(dict.fromkeys(found))

    def hints(self) -> tuple[str, ...]:
        return tuple(f"{unit} is configured and not adopted: weir adopt {unit}" for unit in self._idle)

    # asked

    async def adopt(self, request: control.Adopt, by: str) -> control.Adopted:
        """What runs is a crew's from here on."""
        agent = self._agent
        workload = agent.config.workload_of(request.unit)
        if workload is None:
            return control.Adopted(f"no [[workload]] of the running agent has unit = \"{request.unit}\": weir reload")
        if not request.end:
            return control.Adopted()
        try:
            async with agent.looking:
                found = await asyncio.to_thread(self._join, request)
        except (OSError, ValueError, PlatformError) as reason:
            return control.Adopted(f"what runs cannot be contained: {reason}")
        sockets = tuple(map(shown_socket, found))
        for one in sockets:
            agent.tell("unit.socket", {"unit": request.unit, "pid": one.pid, "exe": one.exe, "family": one.family,
                                       "peer": one.peer, "done": one.done}, workload.name)
        agent.tell("unit.adopted", {"unit": request.unit, "by": by, "cgroup": " ".join(request.cgroups)}, workload.name)
        await self.examine()              # a user that systemd makes for it is known before its next start
        return control.Adopted("", sockets[:control.SOCKETS])

    def _join(self, request: control.Adopt) -> list[Foreign]:
        """All or none; what has ended meanwhile is neither."""
        kernel, found = self._agent.kernel, []
        before = kernel.joined()
        end = RECORD if request.end == REPORT else CONNECTION
        for path in (self._agent.cgroups / cgroup.lstrip("/") for cgroup in request.cgroups):
            try:
                found += kernel.join(path, end)
            except (OSError, ValueError, PlatformError):
                if not path.exists():
                    continue
                for one in set(kernel.joined()) - set(before):
                    kernel.leave(one)
                raise
        return found

    async def abandon(self, request: control.Abandon, by: str) -> str:
        """Its drop-in is gone; what runs outside of the slice is nobody's any more."""
        for path in self._agent.kernel.joined():
            if path.name == request.unit:
                await self._leave(path)
        self._agent.tell("unit.abandoned", {"unit": request.unit, "by": by})
        self._examined_at = 0.0
        return ""

    async def _leave(self, path: Path) -> None:
        async with self._agent.looking:
            await asyncio.to_thread(self._agent.kernel.leave, path)
        self._agent.tell("unit.left", {"unit": path.name, "cgroup": str(path)})

    def refresh_files(self, config: Config) -> None:
        """After the trust files have changed.  Raises OSError."""
        for workload in config.workloads:
            if workload.unit:
                running = cgroups.populated(self._agent.kernel.slice / workload.unit)
                bound.refresh(directory_of(config, workload.name), config.run / "trust", running)


def examine_unit(
    config: Config, workload: Workload, own: frozenset[str], root: Path,
    joined: Callable[[], Iterable[Path]] = tuple,
) -> tuple[Unit | None, tuple[str, ...]]:
    """What systemd has in force, and what is wrong with it.  `own`: names of Weir's groups; `root`: of cgroup v2;
    `joined`: what counts as in the slice, where that is known."""
    name = workload.unit or ""
    try:
        unit = systemd.show(name)
        planned = plan_unit(config, workload, name, unit)
        found = [*objections(config, workload, unit, own, planned.plan.root), *planned.wrong,
                 *undone(planned.plan, unit)]
        if systemd.read_dropin(name) != render_dropin(planned.plan):
            found.append(f"its drop-in is not what Weir would write now: weir adopt {name}")
        outside = find_places(root, root / planned.plan.slice, name)
        found += [f"processes of it run in {path}, outside of the slice: weir adopt {name}, then systemctl restart "
                  f"{name}" for path in outside if path not in joined()]
    except (SystemdError, OSError) as reason:
        return None, (f"it could not be looked at: {reason}",)
    return unit, tuple(found)


def shown_socket(one: Foreign) -> control.OpenSocket:
    return control.OpenSocket(one.place.pid, plain(one.exe)[:control.EXE], one.family, one.peer, one.done)


def read_peer(path: Path) -> Peer | None:
    """Whose processes are in this cgroup, root's not counted (systemd's own way to the command); None: nobody's, or
    several users'.  Raises OSError."""
    found = [one for pid in cgroups.processes(path) if (one := _of_process(pid)) is not None and one.uid != 0]
    return found[0] if len({one.uid for one in found}) == 1 else None


def _of_process(pid: int) -> Peer | None:
    """proc(5), status.  Its name may be any bytes."""
    try:
        lines = Path(f"/proc/{pid}/status").read_bytes().split(b"\n")
    except OSError:
        return None
    fields = {name: rest.split() for name, _, rest in (line.partition(b":") for line in lines)}
    return Peer(pid, int(fields[b"Uid"][0]), int(fields[b"Gid"][0]), tuple(map(int, fields.get(b"Groups", []))))


def _is_there(start: Start) -> bool:
    path = Path(start.cgroup)
    try:
        return path.stat().st_ino == start.inode and cgroups.populated(path)
    except OSError:
        return False
