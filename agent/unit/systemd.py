"""The edge to systemd: what it says of units, and the one file that Weir writes for one."""
from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from agent.processes import ENVIRONMENT
from agent.unit.adoptable import START_ONLY, Unit, object_path, parse_files, parse_sockets, parse_unit
from agent.unit.dropin import FILE
from agent.unit.units import MANAGED

UNITS: Final = Path("/etc/systemd/system")
BUS: Final = ("--system",)            # busctl(1)
_SYSTEMD: Final = "org.freedesktop.systemd1"
_ANSWER: Final = 4 << 20              # bytes; a unit's properties take 20 thousand
_PATIENCE: Final = 60.0               # seconds
_STARTING: Final = 600.0              # seconds that a restart may take: its own timeouts count


class SystemdError(Exception):
    """What it said."""


def show(unit: str) -> Unit:
    """Also of one that is not there: LoadState says so.  Raises SystemdError."""
    everything = _busctl(["call", _SYSTEMD, object_path(unit), "org.freedesktop.DBus.Properties", "GetAll", "s", ""])
    try:
        return parse_unit(everything, _property(unit, "Service", START_ONLY))
    except ValueError as reason:
        raise SystemdError(f"{unit}: {reason}") from None


def service_files() -> tuple[str, ...]:
    """Paths of the files of all services, also of what is not loaded.  Raises SystemdError."""
    asked = ["call", _SYSTEMD, "/org/freedesktop/systemd1", f"{_SYSTEMD}.Manager", "ListUnitFilesByPatterns", "asas",
             "0", "1", "*.service"]
    try:
        return parse_files(_busctl(asked))
    except ValueError as reason:
        raise SystemdError(str(reason)) from None


def show_socket(unit: str) -> tuple[tuple[str, str], ...]:
    """Where a socket listens: kind and place, each.  Raises SystemdError."""
    try:
        return parse_sockets(_property(unit, "Socket", "Listen"))
    except ValueError as reason:
        raise SystemdError(f"{unit}: {reason}") from None


def _property(unit: str, interface: str, name: str) -> bytes:
    return _busctl(["get-property", _SYSTEMD, object_path(unit), f"{_SYSTEMD}.{interface}", name])


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


def _systemctl(words: Sequence[str], seconds: float = _PATIENCE) -> None:
    _run(["systemctl", "--system", *words], seconds)


def _busctl(words: Sequence[str]) -> bytes:
    """Its JSON."""
    done = _run(["busctl", *BUS, "--json=short", "--auto-start=no", *words], _PATIENCE)
    if len(done) > _ANSWER:
        raise SystemdError(f"busctl says more than {_ANSWER} bytes")
    return done


def _run(command: Sequence[str], seconds: float) -> bytes:
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, env=ENVIRONMENT, cwd="/",
                              stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise SystemdError(f"{command[0]} is not there: units are adopted where systemd runs the host") from None
    except subprocess.TimeoutExpired:
        raise SystemdError(f"{command[0]} took more than {seconds:.0f} s") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip() or str(done.returncode)
        if said.startswith("Failed to connect"):
            raise SystemdError(f"{said}; D-Bus is needed: apt install dbus" if MANAGED.is_dir()
                               else "systemd does not run this host")
        raise SystemdError(f"{' '.join(command[:3])}: {said}")
    return done.stdout
