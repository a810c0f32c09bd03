"""`weir adopt`: what it does, in an order in which nothing is uncontained meanwhile.

What runs is contained first, by the agent; then the files that the drop-in binds, then the drop-in; systemd reads it,
and is asked what it has in force.  Where a step fails, those before it are taken back.
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from agent import bound, cgroups, systemd
from agent.adoptable import RESTART, Unit, wrong_name
from agent.adopted import examine_unit
from agent.asking import AskingError, NotRunning, ask
from agent.check import load_config
from agent.config import Config, Workload
from agent.contract import control
from agent.dropin import GUARD, render_dropin, undone, unseen
from agent.holdings import ELSEWHERE, RECORD, Holdings
from agent.joined import end_before
from agent.layout import LayoutError, cgroup_root, find_accounts
from agent.planning import Planned, directory_of, plan_unit
from agent.standing import objections
from agent.systemd import SystemdError


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
    own = find_accounts(config).group_names
    unit = systemd.show(name)
    if unit["Id"] not in ("", name):
        raise AdoptError(f"{name} is another name of {unit['Id']}: name that, here and in {config.file}")
    planned = plan_unit(config, workload, name, unit)
    notes = (*planned.notes, *_remarks(planned, unit))
    if wrong := list(_wrong(config, planned, unit, workload, own)):
        raise AdoptError("\n".join(f"{name}: {one}" for one in wrong))
    text, there = render_dropin(planned.plan), systemd.read_dropin(name)
    how = running or workload.running
    outside = unit["ControlGroup"] if unit.running and not _inside(planned, unit) else ""
    if dry:
        return Outcome(name, workload.name, "would be adopted", str(systemd.file_of(name)), text,
                       tuple(_open_sockets(cgroup_root() / outside.lstrip("/"))) if outside else (), notes=notes)
    sockets = _contain(config, name, "" if how == RESTART else outside, how)
    try:
        bound.write_files(planned, directory_of(config, workload.name), config.run / "trust", _inside(planned, unit))
        if text != there:
            systemd.write_dropin(name, text)
        systemd.reload()
    except (OSError, SystemdError):
        if there is None:
            _take_back(config, name)
        raise
    if restarted := how == RESTART and unit.running:
        systemd.restart(name)
    now = systemd.show(name)
    degraded = (*undone(planned.plan, now), *objections(config, workload, now, own, planned.plan.root),
                *(["it was restarted, and does not run in the slice"] if restarted and now.running
                  and not _inside(planned, now) else []))
    return Outcome(name, workload.name, "unchanged" if text == there else "adopted", str(systemd.file_of(name)), text,
                   sockets, restarted, degraded, notes)


def undo(file: str, name: str, running: str) -> Outcome:
    """Also without an agent.  Raises as `adopt`."""
    if systemd.read_dropin(name) is None:
        raise AdoptError(f"{name} is not adopted: {systemd.file_of(name)} is not there")
    config = load_config(file)
    workload = next((one for one in config.workloads if one.unit == name), None)
    systemd.remove_dropin(name)
    systemd.reload()
    with suppress(NotRunning):
        _said(ask(config.control, control.Abandon(name)))
    if running == RESTART:
        systemd.restart(name)
    unit = systemd.show(name)
    inside = unit["ControlGroup"].startswith(f"/{config.runtime.name}.slice/")
    if workload is not None and not inside:
        bound.remove_files(directory_of(config, workload.name))
    notes = (f"{name} runs in the slice, confined, until it is started again",) if inside and unit.running else ()
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
            _, found = examine_unit(config, workload, find_accounts(config).group_names)
        except LayoutError as reason:
            found = (str(reason),)
        yield from (f"workload {workload.name}: {workload.unit}: {one}" for one in found)


def find_workload(config: Config, name: str, wanted: str, dry: bool) -> Workload:
    """The one whose unit this is.  `wanted` alone will do to look at what would be written."""
    if wrong := wrong_name(name, config.runtime.name):
        raise AdoptError(wrong)
    found = next((one for one in config.workloads if one.unit == name), None)
    if found is not None and wanted in ("", found.name):
        return found
    if found is not None:
        raise AdoptError(f"{name} is workload {found.name}, and not {wanted}, in {config.file}")
    named = next((one for one in config.workloads if one.name == wanted), None)
    if wanted and named is None:
        raise AdoptError(f"there is no workload {wanted!r} in {config.file}")
    if named is not None and dry:
        return named
    raise AdoptError(f'no [[workload]] of {config.file} has unit = "{name}": write it below '
                     f"{f'workload {wanted}' if wanted else 'the one that it is'}, then weir reload")


def _wrong(
    config: Config, planned: Planned, unit: Unit, workload: Workload, own: frozenset[str],
) -> Iterator[str]:
    yield from objections(config, workload, unit, own, planned.plan.root)
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


def _inside(planned: Planned, unit: Unit) -> bool:
    return unit["ControlGroup"].startswith(f"/{planned.plan.slice}/")


def _contain(config: Config, name: str, outside: str, how: str) -> tuple[control.OpenSocket, ...]:
    answer = ask(config.control, control.Adopt(name, outside, how))
    if isinstance(answer, control.Adopted) and not answer.error:
        return answer.sockets
    raise AdoptError(answer.error if isinstance(answer, control.Adopted) else _text(answer))


def _take_back(config: Config, name: str) -> None:
    with suppress(OSError, SystemdError):
        systemd.remove_dropin(name)
        systemd.reload()
    with suppress(NotRunning, AskingError, AdoptError):
        _said(ask(config.control, control.Abandon(name)))


def _said(answer: control.Reply) -> None:
    if not isinstance(answer, control.Answered) or answer.error:
        raise AdoptError(_text(answer))


def _text(answer: control.Reply) -> str:
    if isinstance(answer, control.Refused | control.Failed):
        return answer.text
    return answer.error if isinstance(answer, control.Answered) else "the agent answered something else"


def _open_sockets(cgroup: Path) -> Iterator[control.OpenSocket]:
    looks = Holdings(lambda pid: True, lambda copy, pid: ELSEWHERE, lambda inode: False, end_before)
    for one in looks.look(cgroups.processes(cgroup), RECORD):
        yield control.OpenSocket(one.place.pid, one.exe, one.family, one.peer, "")
