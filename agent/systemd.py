"""The edge to systemd: what it says of units, and the one file that Weir writes for one."""
from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from agent.adoptable import PROPERTIES, Unit, parse_show
from agent.dropin import FILE, READ_BACK
from agent.processes import ENVIRONMENT

UNITS: Final = Path("/etc/systemd/system")
_START_ONLY: Final = re.compile(r"(?mi)^\s*PermissionsStartOnly\s*=")      # of old; `systemctl show` hides it
_PATIENCE: Final = 60.0               # seconds
_STARTING: Final = 600.0              # seconds that a restart may take: its own timeouts count


class SystemdError(Exception):
    """What it said."""


def show(unit: str) -> Unit:
    """Also of one that is not there: LoadState says so.  Raises SystemdError."""
    names = ",".join(dict.fromkeys((*PROPERTIES, *READ_BACK)))
    found = parse_show(_systemctl(["show", "--no-pager", f"--property={names}", "--", unit]))
    older = any(_START_ONLY.search(_text(path)) for path in (found["FragmentPath"], *found.words("DropInPaths")))
    return replace(found, properties={**found.properties, "PermissionsStartOnly": "yes" if older else "no"})


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def show_socket(unit: str) -> str:
    """Where a socket listens: "ADDRESS (Stream)" and the like, one a line.  Raises SystemdError."""
    return _systemctl(["show", "--no-pager", "--value", "--property=Listen", "--", unit])


def reload() -> None:
    """Raises SystemdError."""
    _systemctl(["daemon-reload"])


def restart(unit: str) -> None:
    """Only where it runs.  Raises SystemdError."""
    _systemctl(["try-restart", "--", unit], _STARTING)


def file_of(unit: str) -> Path:
    return UNITS / f"{unit}.d" / FILE


def read_dropin(unit: str) -> str | None:
    """None: it is not there.  Raises OSError."""
    try:
        return file_of(unit).read_text(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None


def write_dropin(unit: str, text: str) -> None:
    """By rename, on disk before it counts.  Raises OSError."""
    path = file_of(unit)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")       # no name that ends in .conf: systemd does not read it
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        with open(fd, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
        fresh.rename(path)
    finally:
        fresh.unlink(missing_ok=True)
    _sync(path.parent)


def remove_dropin(unit: str) -> None:
    """Also where it is not there.  Raises OSError."""
    path = file_of(unit)
    path.unlink(missing_ok=True)
    try:
        path.parent.rmdir()
    except OSError:                   # others' drop-ins are in it, or it is not there
        return


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _systemctl(words: Sequence[str], seconds: float = _PATIENCE) -> str:
    try:
        done = subprocess.run(["systemctl", "--system", *words], capture_output=True, text=True, errors="replace",
                              timeout=seconds, env=ENVIRONMENT, cwd="/", stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise SystemdError("systemctl is not there: units are adopted where systemd runs the host") from None
    except subprocess.TimeoutExpired:
        raise SystemdError(f"systemctl {words[0]} took more than {seconds:.0f} s") from None
    if done.returncode != 0:
        raise SystemdError(f"systemctl {words[0]}: {done.stderr.strip() or done.returncode}")
    return done.stdout
