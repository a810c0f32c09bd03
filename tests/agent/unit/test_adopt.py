"""The order of `weir adopt`, and what is in force where a step of it fails.  The files are real; systemd and the agent
are noted down here: with real ones it is tests/vm/adopted.py."""
from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.commands.asking import AskingError, NotRunning
from agent.config import parse_config
from agent.contract import control
from agent.contract.control import Message
from agent.unit import adopt, adopted, systemd
from agent.unit.adopt import AdoptError, Outcome
from agent.unit.adoptable import Unit
from agent.unit.systemd import SystemdError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files of units are root's")
NAME = "crew.service"
CONFIG = """
[runtime]
state = "{base}/state"
run = "{base}/run"
[[workload]]
name = "crew"
users = ["nobody"]
unit = "crew.service"
"""
WHOLE = ["agent: asked", "reload", f"agent: /system.slice/{NAME}"]


class Host:
    """`steps`: what was asked of systemd and the agent.  `fails`: before the step of that name."""

    def __init__(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.base, self.steps, self.fails = base, list[str](), dict[str, Callable[[], None]]()
        self.cgroups, self.units = base / "cgroup", base / "units"
        self.shown: dict[str, object] = {
            "Id": NAME, "LoadState": "loaded", "User": "nobody", "Type": "simple", "NeedDaemonReload": False,
            "StandardInput": "null", "StandardOutput": "journal", "StandardError": "inherit",
            "ActiveState": "active", "ControlGroup": f"/system.slice/{NAME}"}
        config, report = parse_config(CONFIG.format(base=base), "weir.toml")
        assert config is not None, report.problems
        (trust := base / "run" / "trust").mkdir(parents=True)
        for name in ("weir.pem", "roots.pem", "resolv.conf"):
            (trust / name).write_text("x")
        (base / "state").mkdir()
        self.runs("system.slice")
        for name in ("load_config", "find_accounts", "cgroup_root", "ask"):
            monkeypatch.setattr(adopt, name, {
                "load_config": lambda file: config, "cgroup_root": lambda: self.cgroups, "ask": self.ask,
                "find_accounts": lambda config: SimpleNamespace(group_names=frozenset())}[name])
        monkeypatch.setattr(systemd, "UNITS", self.units)
        monkeypatch.setattr(systemd, "show", self.show)
        monkeypatch.setattr(systemd, "reload", lambda: self.step("reload"))
        monkeypatch.setattr(systemd, "restart", self.restart)
        monkeypatch.setattr(adopt, "undone", lambda plan, unit: ())

    def runs(self, slice_: str, populated: int = 1) -> Path:
        path = self.cgroups / slice_ / NAME
        path.mkdir(parents=True, exist_ok=True)
        (path / "cgroup.events").write_text(f"populated {populated}\nfrozen 0\n")
        return path

    def step(self, name: str) -> None:
        self.steps.append(name)
        if fail := self.fails.pop(name, None):
            fail()

    def show(self, name: str) -> Unit:
        return Unit({**self.shown, "LoadState": "loaded"} if name == NAME else {"LoadState": "loaded"}, ())

    def restart(self, name: str) -> None:
        self.step("restart")
        self.runs("system.slice", 0)
        self.runs("weir.slice")

    def ask(self, path: Path, request: Message) -> Message:
        assert isinstance(request, control.Adopt)
        self.step(f"agent: {' '.join(request.cgroups)}" if request.end else "agent: asked")
        return control.Adopted()

    def adopt(self, how: str = "end") -> Outcome:
        return adopt.adopt("weir.toml", NAME, "", how, False)

    @property
    def dropin(self) -> str | None:
        return systemd.read_dropin(NAME)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    base = Path("/var/lib") / f"weir-test-{os.getpid()}"
    base.mkdir(mode=0o755)
    yield Host(base, monkeypatch)
    shutil.rmtree(base)


def raising(reason: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise reason

    return fail


def test_what_starts_by_itself_starts_confined_before_what_runs_is_contained(host: Host) -> None:
    done = host.adopt()
    assert (done.state, done.degraded, done.restarted) == ("adopted", (), False)
    assert host.steps == WHOLE
    assert host.dropin == done.text
    assert host.adopt().state == "unchanged"


def test_a_restart_is_of_what_is_contained(host: Host) -> None:
    done = host.adopt("restart")
    assert host.steps == [*WHOLE, "restart"]
    assert (done.restarted, done.degraded) == (True, ())


def test_a_restart_that_fails_or_leaves_something(host: Host) -> None:
    """It is adopted, and says what is not as it should be."""
    host.fails["restart"] = raising(SystemdError("no"))
    done = host.adopt("restart")
    assert not done.restarted
    assert [one.partition(":")[0] for one in done.degraded] == [
        "it could not be restarted", f"processes of it run in {host.cgroups}/system.slice/{NAME}, outside of the slice"]
    assert host.dropin == done.text


@pytest.mark.parametrize("slice_", ["system.slice", "other.slice/other-deep.slice"])
@pytest.mark.parametrize("how", ["end", "restart"])
def test_what_a_stopped_unit_has_left(host: Host, slice_: str, how: str) -> None:
    """By its cgroup: systemd shows none any more, or shows another."""
    host.runs("system.slice", 0)
    host.runs(slice_)
    host.shown |= {"ActiveState": "inactive", "ControlGroup": ""}
    done = host.adopt(how)
    assert host.steps == [*WHOLE[:2], f"agent: /{slice_}/{NAME}"], "there is nothing to restart"
    assert not done.restarted
    assert len(done.degraded) == (how == "restart")


@pytest.mark.parametrize("where", ["user.slice/user-1.slice/user@1.service/app.slice", "machine.slice/a.scope/b.slice",
                                   "weir.slice"])
def test_what_is_not_a_unit_of_the_hosts(host: Host, where: str) -> None:
    """What lies below a unit its processes may have made."""
    host.runs("system.slice", 0)
    host.runs(where)
    host.adopt()
    assert host.steps[-1] == "agent: "


def test_what_systemd_has_not_read_yet_is_not_judged(host: Host) -> None:
    host.shown["NeedDaemonReload"] = True
    with pytest.raises(AdoptError, match="systemctl daemon-reload first"):
        host.adopt()
    assert host.steps == []


def root_now(host: Host) -> Callable[[], None]:
    """It was changed since it was looked at."""
    return lambda: host.shown.update(User="root")


@pytest.mark.parametrize("before", [None, "[Service]\nSlice=weir.slice\n"])
@pytest.mark.parametrize(("step", "fail"), [
    ("agent: asked", lambda host: raising(NotRunning())), ("agent: asked", lambda host: raising(AskingError())),
    ("reload", lambda host: raising(SystemdError("no"))), ("reload", root_now),
    (WHOLE[2], lambda host: raising(NotRunning())),
    (WHOLE[2], lambda host: raising(AdoptError("what runs cannot be contained"))),
], ids=["no agent", "no answer", "no reload", "changed meanwhile", "no agent any more", "not contained"])
def test_where_a_step_fails_it_is_as_it_was(
    host: Host, step: str, fail: Callable[[Host], Callable[[], None]], before: str | None,
) -> None:
    if before:
        systemd.write_dropin(NAME, before)
    host.fails[step] = fail(host)
    with pytest.raises((NotRunning, AskingError, SystemdError, AdoptError)):
        host.adopt()
    assert host.dropin == before
    last = WHOLE.index(step)
    assert host.steps == [*WHOLE[:last + 1], *(["reload"] if last else [])], "systemd has read what is there now"


def test_where_the_answer_is_lost_it_stays(host: Host) -> None:
    """What runs may be contained: then it must not start uncontained the next time."""
    host.fails[WHOLE[2]] = raising(AskingError("the agent does not answer"))
    with pytest.raises(AskingError):
        host.adopt()
    assert host.steps == WHOLE
    assert host.dropin is not None


def test_what_runs_outside_is_said(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a unit that systemd calls inactive."""
    config = adopt.load_config("")
    monkeypatch.setattr(adopted, "undone", lambda plan, unit: ())
    path = host.runs("system.slice")

    def said(*joined: Path) -> list[str]:
        _, found = adopted.examine_unit(config, config.workloads[0], frozenset(), host.cgroups, lambda: joined)
        return [one for one in found if "outside of the slice" in one]

    assert said() == [f"processes of it run in {path}, outside of the slice: weir adopt {NAME}, then systemctl restart "
                      f"{NAME}"]
    assert said(path) == [], "that is said as what it is"
    host.runs("system.slice", 0)
    host.runs("weir.slice")
    assert said() == []
