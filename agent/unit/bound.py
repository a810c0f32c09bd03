"""The files that are bound into an adopted unit: written when it is adopted, kept up to date by the agent.

A bind shows the file that had the name when the unit started: what is added later is written into that very file, and
nothing is replaced while the unit runs.  They lie in the state directory, for a unit may start before the agent.
"""
from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from agent.credential.trust import write_into, write_public
from agent.ssh.host_keys import KNOWN, SYSTEM
from agent.ssh.known_hosts import merge
from agent.unit.planning import BUNDLE, MERGED, RESOLV, Planned

_AUTHORITIES = "weir.pem"             # of RUN/trust: every authority of Weir's
_END = b"-----END CERTIFICATE-----"


def write_files(planned: Planned, directory: Path, trust: Path, running: bool) -> None:
    """`directory`: of the unit; `trust`: RUN/trust.  Raises OSError; FileNotFoundError where the agent has not yet been
    there."""
    for path in (directory.parent, directory, Path(planned.plan.root)):
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.chmod(0o755)
    for name in {Path(source).name for source, _ in planned.plan.files}:
        bring(directory / name, _content(name, planned.added, trust), running)

def forget_files(planned: Planned, directory: Path) -> None:
    """What the drop-in that is in force does not name.  Raises OSError."""
    wanted = {Path(source).name for source, _ in planned.plan.files}
    for path in directory.iterdir():
        if path.name not in wanted and not path.is_dir():
            path.unlink()


def refresh(directory: Path, trust: Path, running: bool) -> None:
    """What has changed in RUN/trust.  Raises OSError."""
    if not directory.is_dir():
        return
    for path in directory.iterdir():
        if path.name == RESOLV:
            write_into(path, (trust / RESOLV).read_bytes())
        elif path.name == SYSTEM and (trust / SYSTEM).is_file():
            write_into(path, (trust / SYSTEM).read_bytes())
        elif path.suffix == MERGED and (trust / KNOWN).is_file():
            write_into(path, merge(path.read_bytes(), (trust / KNOWN).read_bytes()))
        elif path.name == BUNDLE and not running:
            bring(path, _content(BUNDLE, {}, trust), running)
        elif path.suffix == ".pem":
            there = path.read_bytes()
            missing = b"".join(one for one in _certificates((trust / _AUTHORITIES).read_bytes()) if one not in there)
            bring(path, there + missing, running)


def remove_files(directory: Path) -> None:
    """Of a unit that is a crew's no more.  Raises OSError."""
    if directory.is_dir():
        shutil.rmtree(directory)


def bring(path: Path, content: bytes, running: bool) -> None:
    there = path.read_bytes() if path.is_file() else None
    if there == content:
        return
    if there is not None and content.startswith(there):
        with path.open("ab") as file:
            file.write(content[len(there):])
    elif there is None or not running:
        write_public(path, content)


def _content(name: str, added: Mapping[str, bytes], trust: Path) -> bytes:
    if name in (RESOLV, BUNDLE, SYSTEM):
        return (trust / name).read_bytes()
    own = added[name]
    if name.endswith(MERGED):
        return merge(own, (trust / KNOWN).read_bytes())
    return own + (b"" if own.endswith(b"\n") else b"\n") + (trust / _AUTHORITIES).read_bytes()


def _certificates(pem: bytes) -> list[bytes]:
    return [one.lstrip() + _END + b"\n" for one in pem.split(_END)[:-1]]
