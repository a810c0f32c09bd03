"""Effects: crews of this host, from systemd and /proc, and whom they talk to (agent/init/talking.py).

Nothing is changed, and nobody is connected to; names that a crew is configured with are looked up, so that one place is
not taken for two.
"""
from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final

from agent import procfs
from agent.block import cgroups
from agent.block.attribution import Held
from agent.contract.said import safe
from agent.init import looks
from agent.init.files import read_file
from agent.init.findings import COMMAND, UNIT, Crew, Findings
from agent.init.recorded import recorded_peers
from agent.init.talking import PROCESSES, home_of, open_sockets, peers_of, resolved
from agent.layout import USERS, LayoutError, cgroup_root, find_account
from agent.unit import systemd
from agent.unit.adoptable import Unit, wrong_name
from agent.unit.planning import environment_of
from agent.unit.systemd import SystemdError

UNITS: Final = 200                    # that are asked for
ROOT: Final = "a workload never runs as root: give it a user of its own (User=)"
NAMED: Final = "you named it"
LISTED: Final = 5000                  # names of a directory
WHY: Final = 300                      # characters
SLICE: Final = "weir"                 # `[runtime] name` of a first configuration
_OF_UNIT: Final = re.compile(r"/system\.slice/(?:[^/]+\.slice/)*([^/]+\.service)(?:/|$)")
_PACKAGED: Final = ("/lib/systemd/", "/usr/lib/systemd/")      # of Debian's packages, which have no crews


def find(chosen: Sequence[str], users: Sequence[str], recording: Path | None) -> Findings:
    """`chosen`: units that count whatever they look like, as `users` do; both empty: what looks like a crew.
    `recording`: its directory."""
    notes: list[str] = []
    everything = not chosen and not users
    sockets = open_sockets(notes)
    crews = [*_units(chosen, everything, notes, sockets)]
    taken = {crew.name for crew in crews if crew.kind == UNIT}
    crews += _commands(users, everything, taken, sockets, notes)
    recorded = tuple(recorded_peers(recording, notes)) if recording is not None else ()
    return resolved(Findings(tuple(crews), recorded, tuple(dict.fromkeys(notes))))


# units


def _units(chosen: Sequence[str], everything: bool, notes: list[str], sockets: Sequence[Held]) -> Iterator[Crew]:
    try:
        names = [*chosen, *(_candidates() if everything else ())]
    except SystemdError as reason:
        notes.append(f"units of systemd's are not looked at: {reason}")
        return
    for name in dict.fromkeys(names[:UNITS]):
        if wrong := wrong_name(name, SLICE):
            notes.append(wrong)
            continue
        try:
            unit = systemd.show(name)
        except SystemdError as reason:
            notes.append(f"{safe(name)} is not looked at: {reason}")
            continue
        if unit["LoadState"] != "loaded" or unit["Id"] not in ("", name):
            if name in chosen:
                notes.append(f"{name} is not there: systemd says {unit['LoadState']}" if unit["LoadState"] != "loaded"
                             else f"{name} is another name of {unit['Id']}: name that")
            continue
        if (crew := _unit(name, unit, name in chosen, notes, sockets)) is not None:
            yield crew


def _candidates() -> list[str]:
    """Those of processes that look like a crew; then the host's own files."""
    running = [found[1] for pid in _every_pid() if (found := _OF_UNIT.match(_cgroup_of(pid))) and _why(pid)]
    files = [os.path.basename(path) for path in systemd.service_files() if not path.startswith(_PACKAGED)]
    return [name for name in (*running, *files) if not wrong_name(name, SLICE)]


def _unit(name: str, unit: Unit, chosen: bool, notes: list[str], sockets: Sequence[Held]) -> Crew | None:
    words = next((one.arguments for one in unit.commands if one.property == "ExecStart"), ())
    account = None if unit.dynamic else find_account(unit["User"] or "root")
    home = home_of(account)
    directory = home if unit.directory == "~" else unit.directory
    pids = list(_pids_of(unit))
    why = looks.why_a_crew(words, directory, _packages, _script) or next(
        filter(None, (_why(pid) for pid in pids[:PROCESSES])), "")
    if not why and not chosen:
        return None
    if not unit.dynamic and (account is None or account.pw_uid == 0):
        notes.append(f"{name}: {ROOT}" if account else f"{name}: there is no user {safe(unit['User'])!r} on this host")
        return None
    environment, unread = environment_of(unit)
    notes += [f"{safe(name)}: EnvironmentFile= {safe(path)} is not read, for it is not root's alone" for path in unread]
    peers = peers_of(name, pids, environment, account, sockets, notes)
    return Crew(UNIT, name, account.pw_name if account else "", home, _shown(why or NAMED),
                looks.needed(words, directory, home), peers)


def _pids_of(unit: Unit) -> Iterator[int]:
    if not unit["ControlGroup"].startswith("/"):
        return
    with suppress(LayoutError, OSError):
        yield from sorted(cgroups.processes(cgroup_root() / unit["ControlGroup"].lstrip("/")))


# what users run


def _commands(
    users: Sequence[str], everything: bool, units: set[str], sockets: Sequence[Held], notes: list[str],
) -> Iterator[Crew]:
    """One crew a user; `weir run` starts it."""
    found: dict[str, list[int]] = {user: [] for user in users}
    why: dict[str, str] = dict.fromkeys(users, NAMED)
    of_root: list[int] = []
    for pid in _every_pid() if everything or users else ():
        user, place = _user_of(pid), _cgroup_of(pid)
        if not user or f"/{SLICE}.slice" in place or any(f"/{name}" in f"{place}/" for name in units):
            continue
        if user not in found and (not everything or user in USERS or not (reason := _why(pid))):
            continue
        if user == "root":
            of_root.append(pid)
        elif user not in found:
            found[user], why[user] = [pid], f"pid {pid}: {reason}"
            if "/user@" in place and place.endswith(".service"):
                notes.append(f"{safe(place.rpartition('/')[2])} is a unit of {user}'s own manager, which is not "
                             "adopted: make it a unit of the system's with User=, or start it by `weir run`")
        else:
            found[user].append(pid)
    if of_root:
        notes.append(f"{', '.join(map(str, of_root[:10]))}: pids of root's that look like a crew; {ROOT}")
    for user, pids in found.items():
        account = find_account(user)
        if account is None or account.pw_uid == 0:
            notes.append(f"user {user}: {ROOT}" if account else f"there is no user {safe(user)!r} on this host")
            continue
        words, directory = _words(pids[0]) if pids else ((), "")
        home = home_of(account)
        yield Crew(COMMAND, user, user, home, _shown(why[user]), looks.needed(words, directory, home),
                   peers_of(user, pids, {}, account, sockets, notes))


def _shown(why: str) -> str:
    """Paths in it are any bytes."""
    return safe(why)[:WHY]


def _every_pid() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc") if name.isdecimal() and int(name) != os.getpid())


def _user_of(pid: int) -> str:
    """Empty: it has ended, or is of no account."""
    try:
        return pwd.getpwuid(os.stat(f"/proc/{pid}").st_uid).pw_name
    except (OSError, KeyError):
        return ""


def _cgroup_of(pid: int) -> str:
    with suppress(OSError):
        return next((line[3:] for line in procfs.read_lines(pid, "cgroup") if line.startswith("0::")), "")
    return ""


def _why(pid: int) -> str:
    words, directory = _words(pid)
    return looks.why_a_crew(words, directory, _packages, _script)


def _words(pid: int) -> tuple[tuple[str, ...], str]:
    """Its command line and where it is.  What it calls itself is any bytes."""
    try:
        words = tuple(os.fsdecode(procfs.read_bytes(pid, "cmdline")).split("\0")[:-1])
        return words, os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return (), ""


def _packages(program: str) -> tuple[str, ...]:
    """Of the virtual environment whose python or script it is.  A process says anything of where it lies."""
    prefix = Path(program).parent.parent
    found: list[str] = []
    with suppress(OSError, ValueError):
        if program.startswith("/") and (prefix / "pyvenv.cfg").is_file():
            for site in _listed(prefix / "lib"):
                if site.startswith("python3"):
                    with suppress(OSError):
                        found += _listed(prefix / "lib" / site / "site-packages")
                if len(found) >= LISTED:
                    break
    return tuple(found)


def _listed(directory: Path) -> list[str]:
    """Raises OSError."""
    with os.scandir(directory) as entries:
        return [one.name for one in islice(entries, LISTED)]


def _script(path: str) -> bytes:
    with suppress(OSError, ValueError):
        return read_file(path)
    return b""
