"""What `weir init` writes: shown before, checked by the code of `weir check`, written whole or not at all.

What is there is not written over: a file that configures nothing, as it was installed, is replaced; any other one with
`force` alone.  Each that is replaced stays beside it.  A credential that is there stays as it is, always.
"""
from __future__ import annotations

import difflib
import os
import shutil
import stat
import tempfile
import tomllib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from agent.config import FILE_LIMIT, Config, parse_config
from agent.contract.said import safe
from agent.init.files import read_file
from agent.init.rendering import GROUPS, File
from agent.init.texts import quoted
from agent.settings.check import check_policies, load_config
from agent.settings.fields import ConfigError, Problem
from agent.settings.groups_file import parse_groups

NEW, SAME, REPLACED, KEPT, IN_THE_WAY = "new", "unchanged", "replaced", "kept", "in the way"
BACKUP: Final = "before-init"
_BACKUPS: Final = 1000
_NOT_THERE: Final = "there is no such file"


class WritingError(Exception):
    """Why nothing was written."""


class Change(msgspec.Struct, frozen=True):
    file: File
    state: str
    before: str = ""                  # what is there


def plan(files: Iterable[File], force: bool) -> tuple[Change, ...]:
    """Raises WritingError."""
    return tuple(_change(one, force) for one in files)


def _change(file: File, force: bool) -> Change:
    path = Path(file.path)
    if not os.path.lexists(path):
        return Change(file, NEW)
    if file.secret is not None:
        return Change(file, KEPT)
    if not stat.S_ISREG(path.lstat().st_mode):
        raise WritingError(f"{path} is no file: move it away")
    try:
        with path.open("rb") as opened:
            before = opened.read(FILE_LIMIT).decode(errors="replace")
    except OSError as reason:
        raise WritingError(f"{path}: {reason.strerror}") from None
    if before == file.text:
        return Change(file, SAME)
    return Change(file, REPLACED if force or configures_nothing(path.name, before) else IN_THE_WAY, before)


def configures_nothing(name: str, text: str) -> bool:
    """As the installed files: tables, and nothing in them."""
    if not name.endswith(".toml"):
        return False
    try:
        return _is_empty(tomllib.loads(text))
    except tomllib.TOMLDecodeError:
        return False


def _is_empty(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_empty, value.values()))


def refuse_what_is_in_the_way(changes: Sequence[Change]) -> None:
    """Raises WritingError."""
    if there := [change.file.path for change in changes if change.state == IN_THE_WAY]:
        raise WritingError(f"{', '.join(there)} {'is' if len(there) == 1 else 'are'} there already: --dry-run shows "
                           "what would be there instead; --force puts it there, and keeps what is there as "
                           f"FILE.{BACKUP}")


def credentials_of_others(changes: Sequence[Change], config_file: str) -> tuple[str, ...]:
    """Files that hold a credential already, and by what is written would be sent to where nobody has said that it
    belongs: where a crew says that a target is, and what it is called, must not decide what is sent there."""
    after, before = {}, ""
    for change in changes:
        if change.file.path == config_file:
            after, before = _opened(change.file.text, config_file), change.before
            if change.state == SAME:
                before = change.file.text
    there = _opened(before, config_file)
    taken = {one.file.path: one.file.secret.value for one in changes if one.file.secret is not None}
    return tuple(
        f"{path} is there already, and nothing says that it is for {' and '.join(sorted(places))}: move it away, or "
        "give the target another name" for path, places in after.items()
        if os.path.lexists(path) and not places <= there.get(path, set()) and not _holds(path, taken.get(path)))


def policies_of_others(changes: Sequence[Change], config_file: str) -> tuple[str, ...]:
    """Files of policies that stay, and permit or hold something."""
    own = {change.file.path for change in changes}
    there = sorted(Path(os.path.dirname(config_file), "policies").glob("[!.]*.cedar"))
    return tuple(f"{path} is there and counts too: what it permits is permitted besides" for path in there
                 if str(path) not in own and any(line.strip() and not line.strip().startswith("//")
                                                 for line in _text(path).splitlines()))


def _opened(text: str, file: str) -> dict[str, set[str]]:
    """File of a credential -> what it opens, by where Weir dials that."""
    config, _ = parse_config(text, file)
    found: dict[str, set[str]] = {}
    for target in config.targets if config is not None else ():
        for row in target.credentials:
            for path in (row.password_file, row.key_file, row.certificate_file, row.token_file):
                if path is not None:
                    found.setdefault(str(path), set()).add(
                        str(target.upstream) if target.upstream else f"{target.hosts[0]} port {target.port}")
    return found


def _holds(path: str, secret: str | None) -> bool:
    """Whether it is the very one."""
    with suppress(OSError):
        return secret is not None and read_file(path, {os.geteuid()}) == secret.encode()
    return False


# what a person sees


def render_changes(changes: Iterable[Change]) -> Iterator[str]:
    """Lines of a unified diff.  Nothing of a secret is in it."""
    for change in changes:
        file = change.file
        if change.state == KEPT:
            yield f"# {file.path} is there already, and stays as it is"
        elif file.secret is not None:
            yield f"# {file.path}: {file.secret.place}, which is not shown ({file.mode:04o}, root's)"
        elif change.state == SAME:
            yield f"# {file.path} is as it would be"
        else:
            yield from difflib.unified_diff(
                change.before.splitlines(), file.text.splitlines(), "/dev/null" if change.state == NEW else file.path,
                file.path, lineterm="")


# checked


def check(
    changes: Sequence[Change], config_file: str, missing: Collection[str],
) -> tuple[Config | None, tuple[Problem, ...]]:
    """As `weir check` would, once they are written: a copy of the directory is checked.  `missing`: files that somebody
    is told to put there.  Without a mistake the configuration is given on, as far as it can be without these."""
    directory = os.path.dirname(config_file)
    expected = {*missing, *(change.file.path for change in changes if change.file.secret is not None)}
    with tempfile.TemporaryDirectory(prefix="weir-init-") as stage:
        _fill(Path(stage), directory, changes)
        file = Path(stage, os.path.basename(config_file))
        text = file.read_text()
        try:
            load_config(file)
            problems: tuple[Problem, ...] = ()
        except ConfigError as wrong:
            problems = tuple(one for one in wrong.problems if not _is_expected(one.message, stage, directory, expected))
        config, _ = parse_config(text, str(file))
        if config is not None:
            groups, _ = parse_groups(_text(Path(stage, GROUPS)), str(Path(stage, GROUPS)))
            config = msgspec.structs.replace(config, groups=groups.groups, people=groups.people, policies={
                str(path): _text(path) for path in sorted(Path(stage, "policies").glob("[!.]*.cedar"))})
            problems += check_policies(config)
        named = tuple(_named(one, stage, directory) for one in problems)
        real = next(change.file.text for change in changes if change.file.path == config_file)
        return (_moved(real, config_file, config) if not named else None), named


def _fill(stage: Path, directory: str, changes: Sequence[Change]) -> None:
    """What will lie there, but for secrets; paths within lead to the copy."""
    (stage / "policies").mkdir()
    for path in Path(directory, "policies").glob("[!.]*.cedar"):
        with suppress(OSError):
            shutil.copyfile(path, stage / "policies" / path.name)
    for change in changes:
        if change.file.secret is None:
            copy = stage / os.path.relpath(change.file.path, directory)
            copy.write_text(change.file.text.replace(f"{quoted(directory)[:-1]}/", f"{quoted(str(stage))[:-1]}/"))
            copy.chmod(0o644)


def _text(path: Path) -> str:
    return path.read_text(errors="replace")


def _is_expected(message: str, stage: str, directory: str, expected: Collection[str]) -> bool:
    return any(f"{stage}{path.removeprefix(directory)}: {_NOT_THERE}" in message for path in expected)


def _named(one: Problem, stage: str, directory: str) -> Problem:
    return msgspec.structs.replace(one, file=one.file.replace(stage, directory),
                                   message=one.message.replace(stage, directory))


def _moved(text: str, file: str, checked: Config | None) -> Config | None:
    """The same, by the name that it will have."""
    config, _ = parse_config(text, file)
    return config if checked is None or config is None else msgspec.structs.replace(
        config, groups=checked.groups, people=checked.people)


# written


def write(changes: Sequence[Change]) -> dict[str, str]:
    """File -> what it was kept as.  Where one cannot be written those before it are taken back.  Raises
    WritingError."""
    done: list[tuple[str, str]] = []
    try:
        for change in changes:
            if change.state in (NEW, REPLACED):
                if change.state == REPLACED:
                    done.append((change.file.path, _keep(change.file.path)))
                _write(change.file, done if change.state == NEW else None)
    except BaseException as reason:   # also who interrupts it does not leave half of it
        _take_back(done)
        if isinstance(reason, OSError):
            raise WritingError(f"{safe(str(reason.filename or ''))}: {reason.strerror}; nothing was written") from None
        raise
    return {path: backup for path, backup in done if backup}


def _keep(path: str) -> str:
    """The same file by another name."""
    for number in range(1, _BACKUPS):
        backup = f"{path}.{BACKUP}" + (f"-{number}" if number > 1 else "")
        with suppress(FileExistsError):
            os.link(path, backup, follow_symlinks=False)
            return backup
    raise FileExistsError(17, "there are a thousand backups of it already", path)


def _write(file: File, new: list[tuple[str, str]] | None) -> None:
    """By rename, on disk before it counts; what has come to be there meanwhile is not replaced.  `new`: nothing was
    there, and this is to say that something is."""
    path = Path(file.path)
    path.parent.mkdir(mode=0o700 if file.secret is not None else 0o755, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.init-{os.getpid()}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "w") as opened:
            opened.write(file.text if file.secret is None else file.secret.value)
            os.fchmod(opened.fileno(), file.mode)
            opened.flush()
            os.fsync(opened.fileno())
        if new is not None:
            os.link(fresh, path)
            new.append((file.path, ""))
        else:
            fresh.rename(path)
    finally:
        fresh.unlink(missing_ok=True)


def _take_back(done: Sequence[tuple[str, str]]) -> None:
    for path, backup in reversed(done):
        with suppress(OSError):
            if backup and os.path.samefile(backup, path):     # rename(2) would leave both
                os.unlink(backup)
            elif backup:
                os.rename(backup, path)
            else:
                os.unlink(path)
