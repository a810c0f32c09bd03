"""Pure: what is right and yet hardly meant, and what is still to be filled in: `weir check` adds it as notes.

Policies are looked at as text, for the names in them; whether they are right is said by agent/settings/check.py.
"""
from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from agent.config import Config
from agent.contract.people import People
from agent.people.identity import LOCAL
from agent.settings.credential_table import KUBERNETES, POSTGRESQL, SSH
from agent.settings.fields import Problem, render_path
from agent.settings.kubernetes_kinds import IMPLIED
from agent.settings.positions import Path as Place
from agent.settings.positions import line_of
from agent.settings.ssh_kinds import DETECTORS
from agent.status import said_of_mode, said_of_nobody

# Parts of an id, as enforcer.policy.model has them (a test compares).
SHAPES: Final = {
    "Target": "TARGET", "Database": "TARGET/DATABASE", "Schema": "TARGET/DATABASE/SCHEMA",
    "Table": "TARGET/DATABASE/SCHEMA/TABLE", "Function": "TARGET/DATABASE/SCHEMA/FUNCTION",
    "Setting": "TARGET/DATABASE/SETTING", "Role": "TARGET/ROLE",
    "Account": "TARGET/ACCOUNT", "Program": "TARGET/ACCOUNT/PROGRAM", "Command": "TARGET/ACCOUNT/PROGRAM/LINE",
    "File": "TARGET/ACCOUNT/PATH", "Subsystem": "TARGET/ACCOUNT/SUBSYSTEM", "Repository": "TARGET/ACCOUNT/PATH",
    "Endpoint": "TARGET/ACCOUNT/HOST PORT", "Socket": "TARGET/ACCOUNT/PATH", "Variable": "TARGET/ACCOUNT/VARIABLE",
    "Namespace": "TARGET/NAMESPACE", "Url": "TARGET/PATH", "Resource": "TARGET/NAMESPACE/RESOURCE",
    "Object": "TARGET/NAMESPACE/RESOURCE/NAME", "Identity": "TARGET/KIND NAME",
}
_OF_SSH: Final = frozenset(kind for kind, shape in SHAPES.items() if "/ACCOUNT" in shape)
_OF_KUBERNETES: Final = frozenset(("Namespace", "Url", "Resource", "Object", "Identity"))
_NAMED: Final = re.compile(rf'\b({"|".join(SHAPES)}|Group|Workload|Label|User)::"([^"\n]*)"')
_APPROVERS: Final = re.compile(r'(?:@hold\("[^"\n]*?approvers=|[",] *break-glass=|[",] *escalate=\w+:)([^",\n]*)')
_PERMIT: Final = re.compile(r"\bpermit\b[^;]*;")
_STAR: Final = re.compile(r'\b(resource\.(?:path|line|name|program|host))\s*==\s*("[^"\n]*\*[^"\n]*")')
_LACKS: Final = {SSH: "clients that name it do not know Weir's host key",
                 KUBERNETES: "clients that name it fail; `weir kubeconfig` prints one for them"}
_REPORTED: Final = re.compile(r"""\bcontext\s*(?:\.\s*|\[\s*"|\bhas\s+"?)reported\b""")
_COMMENT: Final = re.compile(r'(?P<text>"(?:[^"\\]|\\.)*")|//[^\n]*', re.DOTALL)
_OWN: Final = (LOCAL, "weir")         # of no provider


def missing(config: Config) -> Iterator[str]:
    """What a configuration needs before a crew can work, and does not have."""
    if not config.targets:
        yield ("no [[target]]: name your database, SSH host or cluster, and below it under [[target.credential]] what "
               "Weir logs in with: a user and the file with the password, a key, or a token")
    if not config.workloads:
        yield "no [[workload]]: name what `weir run --workload` may start, and the users it may run as"
    if not config.egress:
        yield "no [[egress]]: crews reach no model; name its address and port, unless they need none"
    if not config.groups:
        yield f"{config.directory}/groups.toml puts nobody into a group"
    if not any(_code(text).strip() for text in config.policies.values()):
        examples = next((name for name in config.policies if name.rpartition("/")[2] == "examples.cedar"),
                        "policies/examples.cedar of packaging/default")
        yield (f"{config.directory}/policies/*.cedar permit nothing, so all is denied; "
               f"{examples} shows how")


def lax(config: Config) -> Iterator[str]:
    """Workloads whose egress is not enforced; a page that somebody cannot use."""
    if config.web.url and not config.logins:
        yield said_of_nobody(config.web.url)
    for what in ("operators", "auditors") if config.web.url else ():
        for group in getattr(config.web, what):
            if group not in {*config.groups, *_given(config)}:
                yield f"[web] {what}: nobody is in a group {group!r}{_known({*config.groups, *_given(config)})}"
    for workload, mode in sorted(config.egress_modes.items()):
        yield said_of_mode(workload, mode) + "; `weir egress suggest` drafts the [[egress]] that it needs"


def notes(config: Config) -> tuple[Problem, ...]:
    """Names in policies that nothing has: such a policy never applies, or such a hold can never be answered; and what
    permits by a crew's own word."""
    known = {
        "Group": {*config.groups, *_given(config)}, "Workload": {one.name for one in config.workloads},
        "Label": set(_labels(config))}
    places = {"Group": "group of groups.toml", "Workload": "[[workload]]", "Label": "[[target.label]]"}
    found = []
    for file, line, kind, name in _names(config.policies):
        if kind in SHAPES:
            wrong = _resource(config, kind, name)
        elif kind == "User":
            wrong = _user(config, name)
        else:
            wrong = "" if name in known[kind] else f"names no {places[kind]}{_known(known[kind])}"
        if wrong:
            found.append(Problem(file, line, "", f'{kind}::"{name}" {wrong}'))
    return (*dict.fromkeys(found), *_stars(config.policies), *_permits_by_word(config.policies))


def _stars(policies: dict[str, str]) -> Iterator[Problem]:
    for file, text in policies.items():
        for number, line in enumerate(_code(text).split("\n"), 1):
            if found := _STAR.search(line):
                yield Problem(file, number, "", f"{found[1]} == {found[2]} is that very text: `*` stands for anything "
                              "only after `like`")


def _permits_by_word(policies: dict[str, str]) -> Iterator[Problem]:
    for file, text in policies.items():
        code = _code(text)
        for match in _PERMIT.finditer(code):
            if _REPORTED.search(match[0]):
                yield Problem(file, code.count("\n", 0, match.start()) + 1, "", "permits by context.reported, which is "
                              "what a crew says of itself: one that lies is permitted too")


def _resource(config: Config, kind: str, name: str) -> str:
    """What is wrong with the id, or empty."""
    parts, shape = name.split("/"), SHAPES[kind]
    wanted = shape.count("/") + 1
    targets = {one.name for one in config.targets}
    if len(parts) != wanted or not all(parts):
        article = "an" if kind[0] in "AEIO" else "a"
        within = "; a `/` within a part is %2F, as in pods%2Flog" if (
            len(parts) > wanted and kind in _OF_KUBERNETES) else ""
        return f"is nothing: {article} {kind} has {wanted} part{'s' * (wanted > 1)}, {kind}::\"{shape}\"{within}"
    if parts[0] not in targets:
        return f"names no [[target]]{_known(targets)}"
    speaks = next(one.protocol for one in config.targets if one.name == parts[0])
    of = SSH if kind in _OF_SSH else KUBERNETES if kind in _OF_KUBERNETES else POSTGRESQL
    if kind != "Target" and of != speaks:
        return f"is nothing: {parts[0]} is a target of protocol {speaks}, which has no {kind}"
    rows = next(one.credentials for one in config.targets if one.name == parts[0])
    if kind in _OF_SSH and not any(row.role in ("*", parts[1]) for row in rows):
        return f"is never reached: no [[target.credential]] of {parts[0]} is for the role {parts[1]}"
    return ""


def _user(config: Config, name: str) -> str:
    """What is wrong with a subject, or empty."""
    provider, colon, who = name.partition(":")
    if not colon or not who:
        return (f'is nobody: User::"{LOCAL}:{name}" is the user of this host, User::"PROVIDER:SUBJECT" a login of a '
                "[[provider]]")
    providers = _providers(config)
    return "" if provider in (*_OWN, *providers) else f"names no [[provider]]{_known(providers)}"


def members(
    config: Config, file: str, lines: Mapping[Place, int], there: Callable[[str, str], bool],
) -> Iterator[Problem]:
    """Members of groups.toml that nobody is.  `lines`: of that file; `there`: whether the host has this "user" or
    "group"."""
    for group, names in config.groups.items():
        for member in names:
            kind, _, who = member.partition(":")
            if wrong := _member(config, kind, who, there):
                yield Problem(file, line_of(dict(lines), ("groups", group)), f"groups.{group}",
                              f"{member!r} is nobody: {wrong}")


def people(
    people: People, file: str, lines: Mapping[Place, int], there: Callable[[str, str], bool],
) -> Iterator[Problem]:
    """Local users of [people] that the host does not have.  As `members`."""
    for person, names in people.everybody.items():
        for name in names:
            provider, _, user = name.partition(":")
            if provider == LOCAL and not there("user", user):
                yield Problem(file, line_of(dict(lines), ("people", person)), f"people.{person}",
                              f"{name!r} is nobody: this host has no such user")


def _member(config: Config, kind: str, who: str, there: Callable[[str, str], bool]) -> str:
    """Why nobody is this member, or empty."""
    if kind == "workload":
        workloads = {one.name for one in config.workloads}
        return "" if who in workloads else f"there is no such [[workload]]{_near(who, workloads)}"
    if kind == "subject":
        provider, _, user = who.partition(":")
        providers = _providers(config)
        return "" if provider in providers else f"user:{user} is the user of this host" if provider == LOCAL else (
            f"there is no such [[provider]]{_near(provider, providers)}")
    if kind not in ("user", "group") or there(kind, who) or (kind == "user" and who in _dynamic(config)):
        return ""
    own = f"; weir:{who} is the group of this file" if kind == "group" and who in config.groups else ""
    return f"this host has no such {kind}{own}"


def _dynamic(config: Config) -> set[str]:
    """Users that systemd makes for a unit while it runs."""
    return {one.unit.removesuffix(".service").partition("@")[0] for one in config.workloads if one.unit}


def _near(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, sorted(names), 1, 0.6)
    return f"; did you mean {near[0]}?" if near else _known(names)


def _given(config: Config) -> Iterator[str]:
    """Groups that a provider puts subjects into."""
    yield from (group for provider in config.providers for group in provider.groups.values())
    yield from (group for provider in config.saml for group in provider.groups.values())


def _providers(config: Config) -> set[str]:
    return {one.name for one in config.providers} | {one.name for one in config.saml}


def absent(config: Config, lines: Mapping[Place, int], homes: Mapping[str, str], there: Callable[[str], bool]) -> (
        Iterator[Problem]):
    """Directories and trust files that are not there: of a workload for a user of its, of a target for every user.
    `lines`: of weir.toml; `homes`: of users; `there` is asked with absolute paths."""
    def note(path: Place, message: str) -> Problem:
        return Problem(config.file, line_of(dict(lines), path), render_path(path), message)

    for number, workload in enumerate(config.workloads):
        for name in ("directories", "read_only"):
            for one in getattr(workload, name):
                users = [user for user in workload.users if user in homes and not there(_at_home(one, homes[user]))]
                if users or (not workload.users and one.startswith("/") and not there(one)):
                    yield note(("workload", number, name), f"{one} is not there{_for(one, users)}: crews do not see it")
    users = [user for workload in config.workloads for user in workload.users if user in homes]
    for number, target in enumerate(config.targets):
        for place, row in enumerate(target.credentials):
            if row.agent and not there(row.agent):
                yield note(("target", number, "credential", place, "agent"), f"{row.agent} is not there: logins fail "
                           "until an ssh-agent listens at it")
        for one in target.trust:
            if users and not any(there(_at_home(one, homes[user])) for user in users):
                yield note(("target", number, "trust"), f"{one} is not there{_for(one, users)}: "
                           + _LACKS.get(target.protocol, "clients that name it as their root file fail"))


def answering(config: Config, lines: Mapping[Place, int], there: Callable[[str, str], bool]) -> Iterator[Problem]:
    """Who is to answer by Slack or by a webhook's links, and cannot.  As `members`; `lines`: of weir.toml."""
    def note(path: Place, message: str) -> Problem:
        return Problem(config.file, line_of(dict(lines), path), render_path(path), message)

    def nobody(subject: str) -> bool:
        provider, _, user = subject.partition(":")
        return provider == LOCAL and not there("user", user)

    for number, hook in enumerate(config.webhooks):
        if hook.approver and nobody(hook.approver):
            yield note(("webhook", number, "approver"), f"{hook.approver!r} is nobody: this host has no such user")
        if hook.approver and not config.web.url:
            yield note(("webhook", number, "approver"), "its events hold no links: there is no page ([web] url)")
    for user, subject in config.slack.people.items():
        if nobody(subject):
            yield note(("slack", "people", user), f"{subject!r} is nobody: this host has no such user")
    known = {*config.groups, *_given(config)}
    for group in config.slack.channels:
        if group not in known:
            yield note(("slack", "channels", group), f"nobody is in a group {group!r}{_known(known)}")


def _at_home(path: str, home: str) -> str:
    return home.rstrip("/") + path[1:] if path.startswith("~") else path


def _for(path: str, users: Iterable[str]) -> str:
    return f" for {', '.join(dict.fromkeys(users))}" if path.startswith("~") else ""


def secret_files(config: Config) -> Iterator[str]:
    """Files of root's that hold a secret."""
    rows = (row for target in config.targets for row in target.credentials)
    named = [file for row in rows for file in (
        row.password_file, row.certificate_file, row.key_file, row.token_file, row.client_secret_file,
        row.refresh_token_file)]
    named += [provider.client_secret_file for provider in config.providers]
    named += [provider.key_file for provider in config.saml]
    named += [file for one in config.vaults for file in (
        one.secret_id_file, one.jwt_file, one.token_file, one.certificate_file, one.key_file)]
    named += [one.identity.token_file for one in config.workloads if one.identity]
    yield from filter(None, named)


def _labels(config: Config) -> Iterator[str]:
    """Labels, and what they are in: pii.email is in pii."""
    for target in config.targets:
        implied = IMPLIED if target.protocol == KUBERNETES else ()
        found = (*(row.label for row in target.labels), *(DETECTORS[name] for name in target.detectors), *implied)
        for label in found:
            parts = label.split(".")
            yield from (".".join(parts[:count + 1]) for count in range(len(parts)))


def _known(names: Iterable[str]) -> str:
    return f": there is {', '.join(sorted(names))}" if names else ": there is none"


def _names(policies: dict[str, str]) -> Iterator[tuple[str, int, str, str]]:
    """(file, line, kind, name) of what policies name."""
    for file, text in policies.items():
        for number, line in enumerate(_code(text).split("\n"), 1):
            for match in _NAMED.finditer(line):
                yield file, number, match[1], match[2]
            for match in _APPROVERS.finditer(line):
                yield from ((file, number, "Group", name) for name in match[1].split())


def _code(text: str) -> str:
    """Without comments; lines stay where they are."""
    return _COMMENT.sub(lambda found: found["text"] or "", text)
