"""Reading the configuration on the host that it is for: files, users, policies.  `load_config` is the way in.

Policies are checked by the enforcer's own code in a process of its unprivileged user: the root side parses no Cedar.
"""
from __future__ import annotations

import grp
import os
import re
import shlex
import stat
import subprocess
import tempfile
from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec

from agent.config import DEFAULT_FILE, FILE_LIMIT, POLICY_FILES, Config, nameserver, parse_block, parse_config
from agent.contract.identity import METADATA
from agent.contract.vault import ROOTS, VAULTS
from agent.layout import find_account
from agent.notify.files import wrong_content
from agent.processes import ENVIRONMENT, python_module, unprivileged
from agent.settings.credential_check import check_rows, check_secret, ownership
from agent.settings.credential_table import SSH
from agent.settings.fields import ConfigError, Problem, Report
from agent.settings.groups_file import Groups, check_providers_of, parse_groups
from agent.ssh.verifying import verifying_lines

ROOTS_LIMIT: Final = 1 << 20          # bytes of a tls_ca file: it travels to the enforcer
HOSTS_LIMIT: Final = 1 << 21          # characters of the lines by which SSH hosts are verified: so do they
POLICY_TIMEOUT: Final = 60.0          # seconds
Digests = dict[str, str]              # file -> BLAKE2b-256 of what was read from it, hex
_PLACE: Final = re.compile(r"(?P<file>[^:\n]+):(?P<line>\d+)(?::(?P<column>\d+))?: (?P<message>.*)")


def load_config(path: str | Path) -> Config:
    """Raises ConfigError with everything that is wrong, but for the policies' own errors (`check_policies`)."""
    file = Path(os.path.abspath(path))
    problems: list[Problem] = []
    digests: Digests = {}
    text = _read(file, problems, digests)
    if text is None:
        raise ConfigError(tuple(problems))
    config, report = parse_config(text, str(file))
    problems += report.problems
    groups = _load_groups(file.parent / "groups.toml", config, problems, digests)
    policies = _load_policies(file.parent / "policies", problems, digests)
    before = len(report.problems)
    _check_accounts(report)
    roots, provider_roots = _check_files(report, digests), _check_providers(report, digests)
    known_hosts = _check_known_hosts(report, digests)
    metadata = _check_saml(report, digests)
    notify_roots = _check_notify(report, digests)
    _check_web(report, digests)
    vault_roots = _check_vaults(report, digests)
    check_rows(report)
    problems += report.problems[before:]
    if config is None or problems:
        raise ConfigError(tuple(sorted(problems, key=lambda one: (one.file != str(file), one.file, one.line))))
    dns = config.dns if config.dns.resolver else msgspec.structs.replace(config.dns, resolver=nameserver())
    return msgspec.structs.replace(
        config, groups=groups.groups, people=groups.people, policies=policies, roots=roots,
        known_hosts=known_hosts, vault_roots=vault_roots, notify_roots=notify_roots,
        provider_roots=provider_roots | metadata[0],
        metadata=metadata[1], dns=dns, digests=digests)


def load_block(path: str | Path) -> tuple[Config, tuple[Problem, ...]]:
    """What the block is made by, and what is wrong: there the defaults stand.  Accounts and other files are not looked
    at, for they may not be there yet; of a file that others than root can write, nothing is taken."""
    file, problems = Path(os.path.abspath(path)), list[Problem]()
    text = _read(file, problems)
    config, wrong = parse_block("" if text is None or problems else text, str(file))
    return config, (*problems, *wrong)


def _read(file: Path, problems: list[Problem], digests: Digests | None = None) -> str | None:
    """Text of a file that nobody but root can have written."""
    try:
        with open(file, "rb") as opened:
            status = os.fstat(opened.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise OSError("is not a file")
            content = opened.read(FILE_LIMIT + 1)
    except FileNotFoundError:
        problems.append(Problem(str(file), 0, "", "there is no such file" + _first(file)))
        return None
    except OSError as wrong:
        problems.append(Problem(str(file), 0, "", wrong.strerror or str(wrong)))
        return None
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
        problems.append(Problem(str(file), 0, "", f"others than root can write it: {ownership(status)}; "
                                "chown root and chmod go-w would be right"))
    if len(content) > FILE_LIMIT:
        problems.append(Problem(str(file), 0, "", f"has more than {FILE_LIMIT} bytes"))
        return None
    if digests is not None:
        digests[str(file)] = _digest(content)
    try:
        return content.decode()
    except UnicodeDecodeError as wrong:
        problems.append(Problem(str(file), content.count(b"\n", 0, wrong.start) + 1, "", "is not UTF-8"))
        return None


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=32).hexdigest()


def _first(file: Path) -> str:
    """How weir.toml comes to be there, as README has it."""
    if file.suffix != ".toml" or file.name == "groups.toml":
        return ""
    where = shlex.quote(str(file.parent))
    init = f"sudo weir {'' if str(file) == DEFAULT_FILE else f'--config {shlex.quote(str(file))} '}init writes one"
    if (default := file.with_name("weir.toml.default")).exists():          # of the package
        return f"; {init}, or sudo cp {shlex.quote(str(default))} {shlex.quote(str(file))}, then edit it"
    return (f"; {init}, or in Weir's clone: sudo mkdir -p {where} && sudo cp -rn packaging/default/. {where}/"
            + ("" if file.name == "weir.toml" else f", whose weir.toml is then to be renamed to {file.name}"))


def _load_groups(file: Path, config: Config | None, problems: list[Problem], digests: Digests) -> Groups:
    if not file.exists():
        return Groups()
    text = _read(file, problems, digests)
    if text is None:
        return Groups()
    groups, report = parse_groups(text, str(file))
    if config is not None:
        check_providers_of(groups.people, config, report)
    problems += report.problems
    return groups


def _load_policies(directory: Path, problems: list[Problem], digests: Digests) -> dict[str, str]:
    """By path; no directory is no policy, and nothing is permitted."""
    if not directory.is_dir():
        return {}
    try:
        files = sorted(path for path in directory.iterdir() if path.suffix == ".cedar" and path.name[0] != ".")
    except OSError as wrong:
        problems.append(Problem(str(directory), 0, "", wrong.strerror or str(wrong)))
        return {}
    if len(files) > POLICY_FILES:
        problems.append(Problem(str(directory), 0, "", f"holds more than {POLICY_FILES} files"))
        return {}
    texts = {str(file): _read(file, problems, digests) for file in files}
    if sum(len(text or "") for text in texts.values()) > FILE_LIMIT:
        problems.append(Problem(str(directory), 0, "", f"holds more than {FILE_LIMIT} characters of policy"))
        return {}
    return {file: text for file, text in texts.items() if text is not None}


def _check_accounts(report: Report) -> None:
    runtime = report.made.get(("runtime",))
    own = runtime.own_users if runtime else ()
    uids: dict[int, str] = {}
    web, metrics = report.made.get(("web",)), report.made.get(("metrics",))
    names = ("user", "audit_user", "identity_user", "vault_user", "web_user", "notify_user")
    for name, user in zip(names, own, strict=False):
        # They run only for these.
        if name == "identity_user" and not (report.entries("provider") or report.entries("saml_provider")):
            continue
        if name == "vault_user" and not report.entries("vault") and not any(
                row.issuer for _, row in report.entries("target", "credential")):
            continue
        if name == "web_user" and not (web and web.url) and not (metrics and metrics.listen):
            continue
        if name == "notify_user" and not _notifies(report):
            continue
        account = find_account(user)
        if account is None:
            report.add(("runtime", name), f"there is no user {user!r} on this host; "
                       "Weir's package, or `bootstrap install`, makes it")
        elif account.pw_uid == 0:
            report.add(("runtime", name), "is root; an unprivileged user would be right")
        elif uids.setdefault(account.pw_uid, user) != user:
            report.add(("runtime", name), f"has the uid of {uids[account.pw_uid]}, which is another process' user")
    if runtime and not _group(runtime.approvers):
        report.add(("runtime", "approvers"), f"there is no group {runtime.approvers!r} on this host; "
                   "Weir's package, or `bootstrap install`, makes it")
    for place, workload in report.entries("workload"):
        for user in workload.users:
            account, path = find_account(user), (*place, "users")
            if account is None:
                report.add(path, f"there is no user {user!r} on this host")
            elif account.pw_uid == 0:
                report.add(path, "names root; a workload never runs as root")
            elif user in own or account.pw_uid in uids:
                report.add(path, f"names {user}, which is Weir's own user")


def _group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _check_files(report: Report, digests: Digests) -> dict[str, str]:
    """The targets' roots, PEM by name."""
    roots = {}
    for path, target in report.entries("target"):
        if target.tls_ca and (pem := _check_roots(target.tls_ca, (*path, "tls_ca"), report, digests)):
            roots[target.name] = pem
    for path, row in report.entries("target", "credential"):
        if row.issuer_ca:             # read again at each use
            _check_roots(row.issuer_ca, (*path, "issuer_ca"), report, digests)
    return roots


def _check_known_hosts(report: Report, digests: Digests) -> dict[str, str]:
    """By what the SSH hosts are verified, by target."""
    found = {}
    for path, target in report.entries("target"):
        if target.protocol != SSH:
            continue
        text, problems = "", list[Problem]()
        if target.known_hosts:
            text = _read(Path(target.known_hosts), problems, digests) or ""
        for problem in problems:
            report.add((*path, "known_hosts"), f"{target.known_hosts}: {problem.message}")
        try:
            found[target.name] = verifying_lines(target, text)
        except ValueError as wrong:
            if not problems:
                report.add((*path, "known_hosts"), f"{target.known_hosts}: {wrong}")
        if sum(map(len, found.values())) > HOSTS_LIMIT:
            report.add((*path, "known_hosts"), f"the keys of all SSH hosts have more than {HOSTS_LIMIT} characters")
    return found


def _check_providers(report: Report, digests: Digests) -> dict[str, str]:
    """The providers' roots, PEM by name; and the files that hold secrets of identities."""
    roots = {}
    for path, provider in report.entries("provider"):
        if provider.ca and (pem := _check_roots(provider.ca, (*path, "ca"), report, digests)):
            roots[provider.name] = pem
        secret = provider.client_secret_file
        if secret and (wrong := check_secret(Path(secret))):
            report.add((*path, "client_secret_file"), f"{secret}: {wrong}")
    for path, workload in report.entries("workload"):
        file = workload.identity.token_file if workload.identity else None
        # One that is not there yet comes later: until then its sessions are refused.
        if file and Path(file).exists() and (wrong := check_secret(Path(file))):
            report.add((*path, "identity"), f"{file}: {wrong}")
    return roots


def _check_vaults(report: Report, digests: Digests) -> dict[str, str]:
    """Their roots, PEM by name; and the files that say there who Weir is."""
    roots: dict[str, str] = {}
    for path, vault in report.entries("vault"):
        if vault.ca and (pem := _check_roots(vault.ca, (*path, "ca"), report, digests)):
            roots[vault.name] = pem
            if len(pem) > ROOTS or sum(map(len, roots.values())) > VAULTS * ROOTS:
                report.add((*path, "ca"), f"{vault.ca} has more than {ROOTS} bytes, or all together more than "
                           f"{VAULTS * ROOTS}; the one authority of this server would be right")
        for name in ("secret_id_file", "jwt_file", "token_file", "certificate_file", "key_file"):
            file = getattr(vault, name)
            # Others than Weir may write these two, and later: until then logins are refused.
            later = name in ("jwt_file", "token_file") and file and not Path(file).exists()
            if file and not later and (wrong := check_secret(Path(file))):
                report.add((*path, name), f"{file}: {wrong}")
    return roots


def _check_saml(report: Report, digests: Digests) -> tuple[dict[str, str], dict[str, bytes]]:
    """Of SAML providers: roots and metadata, by name."""
    roots, metadata = {}, {}
    for path, one in report.entries("saml_provider"):
        if one.ca and (pem := _check_roots(one.ca, (*path, "ca"), report, digests)):
            roots[one.name] = pem
        if one.key_file and (wrong := check_secret(Path(one.key_file))):
            report.add((*path, "key_file"), f"{one.key_file}: {wrong}")
        if one.metadata:
            problems: list[Problem] = []
            text = _read(Path(one.metadata), problems, digests)
            for problem in problems:
                report.add((*path, "metadata"), f"{one.metadata}: {problem.message}")
            metadata[one.name] = (text or "").encode()
            if len(metadata[one.name]) > METADATA:
                report.add((*path, "metadata"), f"{one.metadata} has more than {METADATA} bytes; the metadata of this "
                           "one provider, an EntityDescriptor, would be right")
            elif sum(map(len, metadata.values())) > 4 * METADATA:
                report.add((*path, "metadata"), f"all metadata together has more than {4 * METADATA} bytes; "
                           "`metadata_url` would be right")
    return roots, metadata


def _notifies(report: Report) -> bool:
    slack = report.made.get(("slack",))
    return bool(report.entries("webhook")) or (slack is not None and slack.bot_token_file is not None)


def _check_notify(report: Report, digests: Digests) -> dict[str, str]:
    """The roots of webhooks, PEM by name, and "" for Slack's; and the files that hold their secrets."""
    roots, tables = {}, [(("slack",), report.made.get(("slack",))), *report.entries("webhook")]
    for path, one in tables:
        if one is None:
            continue
        for name in ("bot_token_file", "app_token_file", "signing_secret_file", "secret_file"):
            file = getattr(one, name, None)
            if file and (wrong := check_secret(Path(file))):
                report.add((*path, name), f"{file}: {wrong}")
            elif file and os.access(file, os.R_OK) and (wrong := wrong_content(file, name)):
                report.add((*path, name), wrong)
        if one.ca and (pem := _check_roots(one.ca, (*path, "ca"), report, digests)):
            roots[getattr(one, "name", "")] = pem
    return roots


def _check_web(report: Report, digests: Digests) -> None:
    web = report.made.get(("web",))
    if web is not None and web.tls_certificate:
        _check_roots(web.tls_certificate, ("web", "tls_certificate"), report, digests)
    if web is not None and web.tls_key and (wrong := check_secret(Path(web.tls_key))):
        report.add(("web", "tls_key"), f"{web.tls_key}: {wrong}")


def _check_roots(file: str, path: tuple[str | int, ...], report: Report, digests: Digests) -> str:
    try:
        with open(file, "rb") as opened:
            content = opened.read(ROOTS_LIMIT + 1)
    except OSError as wrong:
        report.add(path, f"{file}: {wrong.strerror}")
        return ""
    if len(content) > ROOTS_LIMIT or b"-----BEGIN CERTIFICATE-----" not in content or not content.isascii():
        report.add(path, f"{file} holds no certificate, or more than {ROOTS_LIMIT} bytes; a PEM file would be right")
        return ""
    digests[file] = _digest(content)
    return content.decode()


def check_metadata(config: Config) -> tuple[Problem, ...]:
    """By `python -I -m enforcer.identity.saml.check`, as the identity process' user: the root side parses no XML."""
    with tempfile.TemporaryDirectory(prefix="weir-check-") as scratch:
        os.chmod(scratch, 0o755)      # noqa: S103  metadata is no secret
        places, arguments = {}, []
        for number, one in enumerate(config.saml):
            if one.name in config.metadata:
                copy = Path(scratch, f"{number}.xml")
                copy.write_bytes(config.metadata[one.name])
                copy.chmod(0o644)
                places[str(copy)] = one.metadata or ""
                arguments += [str(copy), one.issuer]
        if not places:
            return ()
        return _run_check("enforcer.identity.saml.check", arguments, config.runtime.identity_user, places, config.file)


def check_policies(config: Config) -> tuple[Problem, ...]:
    """By `python -I -m enforcer.policy.check FILE...` as the enforcer's user.  The files are copied for it: it may not
    be able to read those of /etc/weir."""
    if not config.policies:
        return ()
    with tempfile.TemporaryDirectory(prefix="weir-check-") as scratch:
        os.chmod(scratch, 0o755)      # noqa: S103  the texts are no secret
        places = {}
        for number, (name, text) in enumerate(config.policies.items()):
            directory = Path(scratch, str(number))
            directory.mkdir(mode=0o755)
            copy = directory / Path(name).name
            copy.write_text(text)
            copy.chmod(0o644)
            places[str(copy)] = name
        return _run_check("enforcer.policy.check", [*places], config.runtime.user, places,
                          str(config.directory / "policies"))


def _run_check(
    module: str, arguments: list[str], user: str, places: dict[str, str], whole: str,
) -> tuple[Problem, ...]:
    """`places`: copy -> file; `whole`: what is named where no file is."""
    command = [*python_module(module), *arguments]
    if os.geteuid() == 0:
        command = unprivileged(command, user, role="check", reads=[*places])
    try:
        done = subprocess.run(command, capture_output=True, timeout=POLICY_TIMEOUT, env=ENVIRONMENT, cwd="/",
                              stdin=subprocess.DEVNULL, start_new_session=True)
    except subprocess.TimeoutExpired:
        return (Problem(whole, 0, "", "checking them took more than a minute"),)
    if done.returncode == 0:
        return ()
    said = (done.stdout + done.stderr).decode(errors="replace")[:1 << 20]
    found = tuple(
        Problem(places[match["file"]], int(match["line"]), "", _named(match["message"], places),
                int(match["column"] or 0))
        for match in _PLACE.finditer(said) if match["file"] in places)
    if found:
        return found
    last = said.strip().splitlines()[-1:] or [f"the check ended with {done.returncode}"]
    return (Problem(whole, 0, "", last[0]),)


def _named(text: str, places: dict[str, str]) -> str:
    """With the names of the files themselves, not of their copies."""
    for copy, name in places.items():
        text = text.replace(f"{copy}:", f"{name}:")
    return text
