"""`weir adopt`: what it does, in an order in which nothing is less contained than before, whatever fails.

The files that the drop-in binds, then the drop-in; systemd reads it, and is asked what it has now: from then on every
start is confined, also one that systemd decides on by itself.  Then the agent contains what runs: all that is in a
cgroup of the unit's, whatever systemd thinks of it.  Where one of these fails, those before it are taken back; where
the agent's answer is lost, they stay.  A restart comes last, of what is contained.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from agent.block import cgroups
from agent.block.holdings import ELSEWHERE, RECORD, Holdings
from agent.block.joined import end_before, find_places, holds
from agent.commands.asking import NotRunning, ask
from agent.config import Config
from agent.contract import control
from agent.layout import LayoutError, cgroup_root, find_accounts
from agent.settings.check import load_config
from agent.settings.host_table import Workload
from agent.unit import bound, systemd
from agent.unit.adoptable import RESTART, Unit, wrong_name
from agent.unit.adopted import examine_unit, shown_socket
from agent.unit.dropin import GUARD, render_dropin, undone, unseen
from agent.unit.planning import Planned, directory_of, plan_unit
from agent.unit.standing import objections
from agent.unit.systemd import SystemdError


class AdoptError(Exception):
    """Why it was not done."""


class Outcome(msgspec.Struct, frozen=True):
    unit: str
    workload: str
    state: str                        # "adopted" | "unchanged" | "would be adopted" | "undone"
    file: str
    text: str = ""
    sockets: tuple[control.OpenSocket, ...] = ()      # that it had, and what was done
    restarted: bool = False
    degraded: tuple[str, ...] = ()    # what systemd has not in force
    notes: tuple[str, ...] = ()


def adopt(file: str, name: str, wanted: str, running: str, dry: bool) -> Outcome:
    """`wanted`: a workload's name, or empty; `running`: END, REPORT, RESTART, or empty: as configured.  Raises
    AdoptError, ConfigError, NotRunning, AskingError, SystemdError, OSError, LayoutError."""
    config = load_config(file)
    workload = find_workload(config, name, wanted, dry)
    unit = systemd.show(name)
    if unit["Id"] not in ("", name):
        raise AdoptError(f"{name} is another name of {unit['Id']}: name that, here and in {config.file}")
    planned = _judged(config, workload, name, unit)
    how, text, there = running or workload.running, render_dropin(planned.plan), systemd.read_dropin(name)
    outcome = Outcome(name, workload.name, "unchanged" if text == there else "adopted", str(systemd.file_of(name)),
                      text, notes=(*planned.notes, *_remarks(planned, unit)))
    if dry:
        sockets = tuple(_open_sockets(_outside(planned)))
        return msgspec.structs.replace(outcome, state="would be adopted", sockets=sockets)
    _ask(config, control.Adopt(name))             # nothing is written for an agent that knows nothing of it
    try:
        _put_in_force(config, workload, planned, text, there)
        contained = _outside(planned)
        sockets = _ask(config, control.Adopt(name, tuple(map(_named, contained)), how))
    except (AdoptError, LayoutError, NotRunning, OSError, SystemdError):
        _take_back(name, there)
        raise
    bound.forget_files(planned, directory_of(config, workload.name))
    restarted, failed = _restart(name, how)
    now = systemd.show(name)
    own = find_accounts(config).group_names
    degraded = (*undone(planned.plan, now), *objections(config, workload, now, own, planned.plan.root), *failed,
                *_left(planned, [] if how == RESTART else contained))
    return msgspec.structs.replace(outcome, sockets=sockets, restarted=restarted, degraded=degraded)


def _judged(config: Config, workload: Workload, name: str, unit: Unit) -> Planned:
    """Raises AdoptError where it cannot be."""
    planned = plan_unit(config, workload, name, unit)
    if wrong := list(_wrong(config, planned, unit, workload)):
        raise AdoptError("\n".join(f"{name}: {one}" for one in wrong))
    return planned


def refused(config: Config, workload: Workload, name: str) -> tuple[str, ...]:
    """Why it could not be adopted, as it is now; empty: it could.  Raises SystemdError, LayoutError, OSError."""
    unit = systemd.show(name)
    planned = plan_unit(config, workload, name, unit)
    return tuple(dict.fromkeys(_wrong(config, planned, unit, workload)))


def _put_in_force(config: Config, workload: Workload, planned: Planned, text: str, there: str | None) -> None:
    """From here on it starts confined; and systemd is asked again, for it may have read something else before."""
    name = planned.plan.unit
    bound.write_files(planned, directory_of(config, workload.name), config.run / "trust",
                      holds(_slice(planned) / name))
    if text != there:
        systemd.write_dropin(name, text)
    systemd.reload()
    _judged(config, workload, name, systemd.show(name))


def _restart(name: str, how: str) -> tuple[bool, tuple[str, ...]]:
    """Whether it was, and why not.  What runs meanwhile is contained."""
    if how != RESTART or not systemd.show(name).running:
        return False, ()
    try:
        systemd.restart(name)
    except SystemdError as reason:
        return False, (f"it could not be restarted: {reason}",)
    return True, ()


def _left(planned: Planned, contained: Iterable[Path]) -> Iterator[str]:
    """What runs outside of the slice and should not any more."""
    for path in _outside(planned):
        if path not in contained:
            yield f"processes of it run in {path}, outside of the slice: end them, or adopt it again"


def _outside(planned: Planned) -> list[Path]:
    return find_places(cgroup_root(), _slice(planned), planned.plan.unit)


def _slice(planned: Planned) -> Path:
    return cgroup_root() / planned.plan.slice


def _named(path: Path) -> str:
    """As proc(5) has it."""
    return f"/{path.relative_to(cgroup_root())}"


def undo(file: str, name: str, running: str) -> Outcome:
    """Also without an agent.  Raises as `adopt`."""
    if systemd.read_dropin(name) is None:
        raise AdoptError(f"{name} is not adopted: {systemd.file_of(name)} is not there")
    config = load_config(file)
    workload = config.workload_of(name)
    systemd.remove_dropin(name)
    systemd.reload()
    with suppress(NotRunning):
        _said(ask(config.control, control.Abandon(name)))
    if running == RESTART:
        systemd.restart(name)
    inside = holds(cgroup_root() / f"{config.runtime.name}.slice" / name)
    if workload is not None and not inside:
        bound.remove_files(directory_of(config, workload.name))
    notes = (f"{name} runs in the slice, confined, until it is started again",) if inside else ()
    return Outcome(name, workload.name if workload else "", "undone", str(systemd.file_of(name)),
                   restarted=running == RESTART, notes=notes)


def state_of_units(config: Config) -> Iterator[str]:
    """For `weir check` and `weir doctor`: what is to be done about units that are configured."""
    for workload in config.workloads:
        if not workload.unit:
            continue
        if not systemd.file_of(workload.unit).exists():
            yield f"workload {workload.name}: {workload.unit} is not adopted yet: sudo weir adopt {workload.unit}"
            continue
        try:
            _, found = examine_unit(config, workload, find_accounts(config).group_names, cgroup_root())
        except LayoutError as reason:
            found = (str(reason),)
        yield from (f"workload {workload.name}: {workload.unit}: {one}" for one in found)


def find_workload(config: Config, name: str, wanted: str, dry: bool) -> Workload:
    """The one whose unit this is.  `wanted` alone will do to look at what would be written."""
    if wrong := wrong_name(name, config.runtime.name):
        raise AdoptError(wrong)
    found = config.workload_of(name)
    if found is not None and wanted in ("", found.name):
        return found
    if found is not None:
        raise AdoptError(f"{name} is workload {found.name}, and not {wanted}, in {config.file}")
    named = config.workload(wanted)
    if wanted and named is None:
        raise AdoptError(f"there is no workload {wanted!r} in {config.file}")
    if named is not None and dry:
        return named
    raise AdoptError(f'no [[workload]] of {config.file} has unit = "{name}": write it below '
                     f"{f'workload {wanted}' if wanted else 'the one that it is'}, then weir reload")


def _wrong(config: Config, planned: Planned, unit: Unit, workload: Workload) -> Iterator[str]:
    if unit.yes("NeedDaemonReload"):
        yield "its files have changed since systemd has read them: systemctl daemon-reload first"
    yield from objections(config, workload, unit, find_accounts(config).group_names, planned.plan.root)
    if unit["LoadState"] != "loaded":
        return
    yield from planned.wrong
    yield from unseen(planned.plan, unit)
    if systemd.show(GUARD)["LoadState"] != "loaded":
        yield f"{GUARD} is not installed: without it nothing holds at boot before the agent is up"


def _remarks(planned: Planned, unit: Unit) -> Iterator[str]:
    if (there := unit["Slice"]) not in ("", "system.slice", planned.plan.slice):
        yield f"it leaves {there}, and what that has of limits"
    for name in ("BindPaths", "BindReadOnlyPaths", "DeviceAllow"):
        if unit.all(name) and unit["RootDirectory"] != planned.plan.root:
            yield f"its own {name}= is left out: what it sees is named in `directories` and `read_only`"
    yield from (f"{name} makes its socket outside of the slice" for name in unit.sockets)


def _ask(config: Config, request: control.Adopt) -> tuple[control.OpenSocket, ...]:
    answer = ask(config.control, request)
    if isinstance(answer, control.Adopted) and not answer.error:
        return answer.sockets
    raise AdoptError(answer.error if isinstance(answer, control.Adopted) else _text(answer))


def _take_back(name: str, there: str | None) -> None:
    """As it was.  What had started in the slice meanwhile stays confined until its next start."""
    with suppress(OSError, SystemdError):
        if there is None:
            systemd.remove_dropin(name)
        else:
            systemd.write_dropin(name, there)
        systemd.reload()


def _said(answer: control.Reply) -> None:
    if not isinstance(answer, control.Answered) or answer.error:
        raise AdoptError(_text(answer))


def _text(answer: control.Reply) -> str:
    if isinstance(answer, control.Refused | control.Failed):
        return answer.text
    return answer.error if isinstance(answer, control.Answered) else "the agent answered something else"


def _open_sockets(places: Iterable[Path]) -> Iterator[control.OpenSocket]:
    looks = Holdings(lambda pid: True, lambda copy, pid: ELSEWHERE, lambda inode: False, end_before)
    for one in looks.look((pid for path in places for pid in cgroups.processes(path)), RECORD):
        yield msgspec.structs.replace(shown_socket(one), done="")
