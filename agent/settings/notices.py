"""What `weir check` notes on the host that the configuration is for: the edge of agent/settings/advice.py.

Nothing of it is looked at by the agent: a path in a crew's home directory may be whatever the crew made it.
"""
from __future__ import annotations

import grp
import os
import pwd
import time
from collections.abc import Iterator
from pathlib import Path

from agent.config import Config
from agent.credential.secrets import PASSWORD_LIMIT, SecretError, read_secret
from agent.kubernetes.login import TokenWrong, checked
from agent.layout import find_account
from agent.settings import advice
from agent.settings.credential_check import shown
from agent.settings.credential_table import KUBERNETES, SSH, CredentialRow
from agent.settings.fields import Problem, render_path
from agent.settings.positions import Path as Place
from agent.settings.positions import line_of, locate
from agent.ssh.keys import KEY_LIMIT, parse_certificate


def notes(config: Config) -> tuple[Problem, ...]:
    """What is right and yet hardly meant, and what could not be looked at."""
    groups, lines = config.directory / "groups.toml", _lines(Path(config.file))
    return (*advice.notes(config), *advice.members(config, str(groups), _lines(groups), _account),
            *advice.people(config.people, str(groups), _lines(groups), _account),
            *advice.absent(config, lines, _homes(config), _there), *advice.answering(config, lines, _account),
            *_credentials(config, lines))


def _lines(file: Path) -> dict[Place, int]:
    """Of a file that has been read before: without them where it is gone meanwhile."""
    try:
        return locate(file.read_text())
    except (OSError, UnicodeDecodeError):
        return {}


def _account(kind: str, name: str) -> bool:
    try:
        pwd.getpwnam(name) if kind == "user" else grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _homes(config: Config) -> dict[str, str]:
    users = dict.fromkeys(user for workload in config.workloads for user in workload.users)
    return {user: account.pw_dir for user in users if (account := find_account(user))}


def _there(path: str) -> bool:
    """Also where nobody says."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _credentials(config: Config, lines: dict[Place, int]) -> Iterator[Problem]:
    if os.geteuid() != 0:
        if any(advice.secret_files(config)):
            yield Problem(config.file, 0, "", "credentials were not looked at: not root; `sudo weir check` does")
        return
    for number, target in enumerate(config.targets):
        for count, row in enumerate(target.credentials):
            path = ("target", number, "credential", count, "password_file")
            if row.password_file and _several_lines(row.password_file):
                yield Problem(config.file, line_of(lines, path), render_path(path), f"{row.password_file} has more "
                              "than one line: all of them are the password")
            path = ("target", number, "credential", count, "certificate_file")
            if target.protocol == SSH and row.certificate_file and _expired(row.certificate_file):
                yield Problem(config.file, line_of(lines, path), render_path(path), f"{row.certificate_file} has "
                              "expired: logins fail until there is another")
            if target.protocol == KUBERNETES and (wrong := _not_valid(row)):
                path = ("target", number, "credential", count, "token_file" if row.token_file else "certificate_file")
                yield Problem(config.file, line_of(lines, path), render_path(path), f"{wrong}: logins fail until there "
                              "is another")


def _expired(file: str) -> bool:
    try:
        return parse_certificate(Path(file).read_text()[:KEY_LIMIT]).valid_before <= time.time()
    except (OSError, ValueError):
        return False                  # a mistake, which the check itself names


def _not_valid(row: CredentialRow) -> str:
    """Of a cluster's credential in files: what is wrong with it by the clock, or empty."""
    try:
        if row.token_file or row.certificate_file:
            checked(shown(row), time.time())
    except TokenWrong as wrong:
        return str(wrong)
    except (OSError, UnicodeDecodeError):
        pass
    return ""


def _several_lines(file: str) -> bool:
    """As agent/credential/secrets.py takes it: without what ends it."""
    try:
        return b"\n" in read_secret(file, PASSWORD_LIMIT, "password_file").rstrip(b"\r\n")
    except SecretError:
        return False                  # the agent says it, at use
