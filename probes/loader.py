"""Compiles, loads and attaches the programs of bpf/, says so, and ends: bcc holds 130 MB.  The only importer of bcc.

    python -I -m probes.loader --bpffs DIR --tracefs DIR --cgroup ROOT --slice DIR --port N --netns COOKIE
        [--resolver ADDRESS PORT] [--headers DIR] [--control NAME]

Links and maps are pinned below --bpffs.  On success one JSON object on standard output and 0; else a message on
standard error and 1, and what was in place stays in place.  With --control (the name that the agent's control socket
is bound by) programs of BPF LSM are loaded too, where the kernel takes them: the object says which, and why not.  A
second start replaces the programs of existing links atomically; it may be killed at any moment and started again.
"""
from __future__ import annotations

import argparse
import fcntl
import importlib
import json
import os
import platform
import re
import resource
import struct
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from probes import abi, libbpf, lsm
from probes.links import (
    HOOKS,
    LSM_HOOKS,
    SECURITY,
    TASK_EVENT,
    TASKS,
    TURNS,
    Hook,
    PlatformError,
    check_maps,
    directory,
    link_pin,
    map_pin,
    new_pin,
    opened,
    place_of,
)

SOURCES: Final = Path(__file__).resolve().parent / "bpf"
FILES: Final = ("maps", "task", "socket", "turns", "local", "connect", "packet", "lsm")   # one unit, in this order
_NEWTASK: Final = {"pid": (8, 4), "clone_flags": (32, 8)}             # as task.bpf.c has them
_PATH: Final = re.compile(r"[A-Za-z0-9_./-]+")


def main(arguments: Sequence[str]) -> int:
    given = _parse(arguments)
    started = time.monotonic()
    try:
        attached, lsm_attached, without = load(given)
    except (PlatformError, OSError, ValueError) as reason:
        print(f"weir-loader: {reason}", file=sys.stderr)
        return 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"hooks": attached, "lsm": lsm_attached, "without": without,
                      "seconds": round(time.monotonic() - started, 3), "peak_rss_kib": peak}))
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="probes.loader")
    for name in ("bpffs", "tracefs", "cgroup", "slice"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--netns", required=True, type=int)
    parser.add_argument("--resolver", nargs=2, metavar=("ADDRESS", "PORT"))
    parser.add_argument("--headers", type=Path)
    parser.add_argument("--control", type=Path)
    return parser.parse_args(arguments)


def load(given: argparse.Namespace) -> tuple[list[str], list[str], str]:
    """Names of the hooks, of those of BPF LSM, and why those are not all of them.  Raises PlatformError, OSError,
    ValueError."""
    resolver = (given.resolver[0], int(given.resolver[1])) if given.resolver else None
    level = len(given.slice.relative_to(given.cgroup).parts)
    settings = abi.render_settings(given.slice.stat().st_ino, given.netns, level, given.port, resolver)
    fields = libbpf.tracepoint_fields(given.tracefs, TASK_EVENT)
    if any(fields.get(name) != place for name, place in _NEWTASK.items()):
        raise PlatformError(f"this kernel's {TASK_EVENT} has another layout: {fields}")
    with directory(given.bpffs) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)      # one at a time: two would both attach what they found missing
        lsm_attached, without = _put_in_place(given, settings)
    return [hook.name for hook in HOOKS], lsm_attached, without


def _put_in_place(given: argparse.Namespace, settings: bytes) -> tuple[list[str], str]:
    check_maps(given.bpffs)
    module, without = _compile_with_lsm(given)
    programs = {hook.name: _load(module, hook) for hook in HOOKS}
    check_maps(given.bpffs)
    # Before the first program runs, and on a second start before the new ones do.
    with opened(map_pin(given.bpffs, "settings")) as fd:
        libbpf.update(fd, struct.pack("=I", 0), settings)
    for hook in HOOKS:
        _attach(hook, programs[hook.name], given)
    return ([], without) if without else _attach_lsm(module, given)


# compile and load

def _compile_with_lsm(given: argparse.Namespace) -> tuple[Any, str]:
    """Why without it, or empty."""
    try:
        if given.control is None:
            raise PlatformError("not asked for")
        return _compile(given.bpffs, given.headers, lsm.flags(given.control)), ""
    except PlatformError as reason:
        return _compile(given.bpffs, given.headers), str(reason)


def _attach_lsm(module: Any, given: argparse.Namespace) -> tuple[list[str], str]:
    """Which are attached, and why the others are not: that is no reason to be without the rest."""
    attached, without = [], []
    for hook in LSM_HOOKS:
        try:
            _attach(hook, _load(module, hook), given)
        except (PlatformError, OSError) as reason:
            without.append(str(reason))
        else:
            attached.append(hook.name)
    return attached, "; ".join(without)


def _compile(bpffs: Path, headers: Path | None, more: Sequence[str] = ()) -> Any:
    if not _PATH.fullmatch(str(bpffs)):
        raise ValueError(f"{bpffs}: letters, digits, '_', '.', '-' and '/' only")
    _choose_headers(headers)
    # What bcc knows by its name (lsm__) it would load and attach by itself, legacy.
    bcc = type("Programs", (importlib.import_module("bcc").BPF,), {"_trace_autoload": lambda _: None})
    try:
        return bcc(text=source(), cflags=[*flags(bpffs), *more])
    except Exception as reason:       # bcc raises bare Exception
        raise PlatformError(f"the programs do not compile: {reason}") from None


def source() -> str:
    return "\n".join((SOURCES / f"{name}.bpf.c").read_text() for name in FILES)


def flags(bpffs: Path) -> list[str]:
    return [f"-DPID_MAX={abi.PID_MAX}", f"-DRING_BYTES={abi.RING_BYTES}", f"-DTURNS={TURNS}", f'-DPIN="{bpffs}/"',
            f"-I{SOURCES}", "-Wno-everything"]


def _load(module: Any, hook: Hook) -> int:
    try:
        return int(module.load_func(hook.name, hook.program_type, attach_type=hook.attach_type).fd)
    except Exception as reason:
        raise PlatformError(f"this kernel refuses the program {hook.name}: {reason}") from None


def _choose_headers(cache: Path | None) -> None:
    """Where the running kernel has none, any will do: only stable interfaces are used."""
    if Path("/lib/modules", platform.release(), "build").exists() or "BCC_KERNEL_SOURCE" in os.environ:
        return
    if cache is None:
        raise PlatformError("there are no headers of this kernel; --headers says where a merged tree may be made")
    os.environ["BCC_KERNEL_SOURCE"] = str(merged_headers(cache))


def merged_headers(cache: Path, packages: Path = Path("/usr/src")) -> Path:
    """One tree of a pair linux-headers-V-common and linux-headers-V-ARCH: directories with links to the files.  Where
    there is no pair, one that is whole, as Ubuntu's linux-headers-V-generic is by links of its own."""
    for common in sorted(packages.glob("linux-headers-*-common"), reverse=True):
        base = common.name.removesuffix("-common")
        for own in sorted(packages.glob(f"{base}-*")):
            if own == common or not (own / "include/generated/autoconf.h").exists():
                continue
            tree = cache / own.name
            if not _usable(tree):
                _make_tree(tree, own, common)
            return tree
    for whole in sorted(packages.glob("linux-headers-*"), reverse=True):
        if _usable(whole):
            return whole
    raise PlatformError("no kernel headers: apt-get install linux-headers-amd64, on Ubuntu linux-headers-generic "
                        "(any version will do)")


def _usable(tree: Path) -> bool:
    return all((tree / name).exists() for name in ("include/linux/kconfig.h", "include/generated/autoconf.h"))


def _make_tree(tree: Path, own: Path, common: Path) -> None:
    tree.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    fresh = Path(tempfile.mkdtemp(prefix=f".{tree.name}-", dir=tree.parent))
    try:
        merge(fresh, own, common)
        fresh.chmod(0o755)
        if tree.exists():
            tree.rename(fresh / ".before")
        fresh.rename(tree)
    except OSError:
        _remove(fresh)
        raise
    _remove(tree / ".before")


def merge(into: Path, first: Path, second: Path) -> None:
    """`into` becomes a directory in which both are seen; where both have a file, the first one's."""
    names = {entry.name for one in (first, second) for entry in one.iterdir()}
    for name in names:
        places = [one / name for one in (first, second) if (one / name).exists()]
        if len(places) == 2 and all(place.is_dir() for place in places):
            (into / name).mkdir()
            merge(into / name, *places)
        elif places:
            (into / name).symlink_to(places[0])


def _remove(tree: Path) -> None:
    if tree.is_symlink() or not tree.is_dir():
        tree.unlink(missing_ok=True)
        return
    for entry in tree.iterdir():
        _remove(entry)
    tree.rmdir()


# attach

def _attach(hook: Hook, program: int, given: argparse.Namespace) -> None:
    path = link_pin(given.bpffs, hook.name)
    if hook.place == TASKS:
        _replace(libbpf.link_tracepoint(program, given.tracefs, TASK_EVENT), hook, given.bpffs)
        return
    if hook.place == SECURITY:
        _replace(libbpf.link_create(program, 0, hook.attach_type), hook, given.bpffs)
        return
    cgroup = place_of(hook, given.cgroup, given.slice)
    if path.exists() and _update(path, program, cgroup):
        return
    with directory(cgroup) as target:
        _replace(libbpf.link_create(program, target, hook.attach_type), hook, given.bpffs)


def _update(path: Path, program: int, cgroup: Path) -> bool:
    """Whether the pinned link is this cgroup's, and now runs `program`.  At no moment there is none, or two."""
    with opened(path) as link:
        if libbpf.link_info(link).cgroup != cgroup.stat().st_ino:
            return False
        libbpf.link_update(link, program)
        return True


def _replace(link: int, hook: Hook, bpffs: Path) -> None:
    """Its pin is renamed over the former one, which detaches that.  Two of newtask write the same, two of LSM refuse
    the same; of the others there is no former one on the same cgroup."""
    fresh = new_pin(bpffs, hook.name)
    try:
        fresh.unlink(missing_ok=True)
        libbpf.pin(link, fresh)
        fresh.rename(link_pin(bpffs, hook.name))
    finally:
        os.close(link)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
