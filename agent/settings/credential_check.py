"""What [[target.credential]] rows name, on this host: files, the unit's credentials, helpers, their users."""
from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Collection
from pathlib import Path

from agent import rooted
from agent.contract.credential import Credential
from agent.credential.unit_credentials import VARIABLE, open_credential
from agent.kubernetes.login import TokenWrong, checked
from agent.layout import find_account
from agent.settings.credential_table import KUBERNETES, PARTS, SSH, CredentialRow
from agent.settings.fields import Report
from agent.settings.positions import Path as Place
from agent.ssh.keys import KEY_LIMIT, KeyWrong, belongs, parse_certificate, parse_private


def check_rows(report: Report) -> None:
    runtime = report.made.get(("runtime",))
    own = runtime.own_users if runtime else ()
    crews = {user for _, workload in report.entries("workload") for user in workload.users}
    for path, row in report.entries("target", "credential"):
        protocol = report.protocols.get(path[:2])
        wrong = _check_files(row, path, report)
        if not wrong and protocol == SSH:
            _check_login(row, path, report)
        elif not wrong and protocol == KUBERNETES:
            _check_bearer(row, path, report)
        if row.exec and (why := _wrong_program(row.exec[0])):
            report.add((*path, "exec"), f"{row.exec[0]}: {why}; a program in a directory of root's, as "
                       "/usr/local/libexec, would be right")
        if row.exec_user and (why := _wrong_helper(row.exec_user, own, crews)):
            report.add((*path, "exec_user"), why)


def _check_files(row: CredentialRow, path: Place, report: Report) -> bool:
    """Whether something is wrong."""
    before = len(report.problems)
    for part in PARTS:
        file, name = getattr(row, f"{part}_file"), getattr(row, f"{part}_credential")
        if file and (wrong := check_secret(Path(file))):
            report.add((*path, f"{part}_file"), f"{file}: {wrong}")
        if name and VARIABLE in os.environ and (wrong := _check_unit_credential(name)):
            report.add((*path, f"{part}_credential"), f"{name}: {wrong}")
    return len(report.problems) != before


def _check_login(row: CredentialRow, path: Place, report: Report) -> None:
    """What an SSH server would be shown.  Whether it takes that, it alone knows; a certificate that has expired may be
    renewed at any time."""
    key = certificate = None
    for name, file in (("key_file", row.key_file), ("certificate_file", row.certificate_file)):
        try:
            content = Path(file).read_bytes()[:KEY_LIMIT] if file else b""
            if content and name == "key_file":
                key = parse_private(content)
            elif content:
                certificate = parse_certificate(content.decode("ascii", "replace"))
        except KeyWrong as wrong:
            report.add((*path, name), f"{file} {wrong}")
        except OSError as wrong:
            report.add((*path, name), f"{file}: {wrong.strerror}")
    if key is not None and certificate is not None and not belongs(certificate, key):
        report.add((*path, "certificate_file"), f"{row.certificate_file} is of another key than {row.key_file}")
    if row.agent and Path(row.agent).exists() and not Path(row.agent).is_socket():
        report.add((*path, "agent"), f"{row.agent} is no socket; SSH_AUTH_SOCK of an ssh-agent would be right")


def _check_bearer(row: CredentialRow, path: Place, report: Report) -> None:
    """What an API server would be shown, as `_check_login`; one that has expired may be renewed at any time."""
    for name in ("client_secret_file", "refresh_token_file"):
        if (file := getattr(row, name)) and (wrong := check_secret(Path(file))):
            report.add((*path, name), f"{file}: {wrong}")
    try:
        if row.token_file or (row.certificate_file and row.key_file):
            checked(shown(row), 0)
    except TokenWrong as wrong:
        report.add((*path, "token_file" if row.token_file else "certificate_file"), str(wrong))
    except (OSError, UnicodeDecodeError):
        pass                          # what is wrong with the files themselves was said


def shown(row: CredentialRow) -> Credential:
    """What its files hold.  Raises OSError, UnicodeDecodeError."""
    token, certificate, key = (
        Path(file).read_bytes()[:1 << 18].decode() if file else ""
        for file in (row.token_file, row.certificate_file, row.key_file))
    return Credential("", certificate=certificate, key=key, token=token)


def _wrong_program(program: str) -> str:
    """What is wrong with it, or empty."""
    try:
        rooted.program(program)
    except (rooted.NotRooted, OSError) as wrong:
        return getattr(wrong, "strerror", None) or str(wrong)
    return ""


def _check_unit_credential(name: str) -> str:
    """What is wrong with it, or empty.  Only the agent's unit is handed them: elsewhere nobody can look."""
    try:
        fd = open_credential(name)
    except OSError as wrong:
        return wrong.strerror or str(wrong)
    try:
        return wrong_secret(os.fstat(fd))
    finally:
        os.close(fd)


def _wrong_helper(user: str, own: Collection[str], crews: Collection[str]) -> str:
    """Processes of one uid may read each other's memory."""
    account = find_account(user)
    if account is None:
        return f"there is no user {user!r} on this host"
    if account.pw_uid == 0 or account.pw_gid == 0:
        return f"{user} is root; a user without privileges would be right"
    uids = {one.pw_uid: name for name in (*own, *crews) if (one := find_account(name))}
    if account.pw_uid in uids:
        who = "a workload's" if user in crews or uids[account.pw_uid] in crews else "Weir's own"
        return f"{user} is {who} user, whose processes could read the secret; one of the helper's own would be right"
    return ""


def check_secret(file: Path) -> str:
    """What is wrong with a file that holds a secret, or empty."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return "there is no such file"
    except OSError as wrong:
        return f"{wrong.strerror}" + ("" if os.geteuid() == 0 else ": run this as root")
    return wrong_secret(status)


def wrong_secret(status: os.stat_result) -> str:
    if not stat.S_ISREG(status.st_mode):
        return "is not a file"
    if not status.st_size:
        return "is empty"
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o077:
        return f"others than root can read it: {ownership(status)}; chown root and chmod 0600 would be right"
    return ""


def ownership(status: os.stat_result) -> str:
    try:
        owner = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        owner = f"uid {status.st_uid}"
    return f"owner {owner}, mode {stat.S_IMODE(status.st_mode):04o}"
