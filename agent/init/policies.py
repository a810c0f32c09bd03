"""Pure: a proposal -> the first policies: reading is permitted, what changes anything is held, the rest is denied.

Whatever was found was written by others.  In a comment it stands without anything that ends a line or moves a cursor;
a name that could mean something else within an id is not put into one.
"""
from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from agent.init.proposal import APPROVERS, Place, Proposal, group_of
from agent.init.texts import comment, quoted, several
from agent.settings.credential_table import KUBERNETES, POSTGRESQL, SSH

_HOLD: Final = f"approvers={APPROVERS}, within=15m"
HARMLESS: Final = ("df -h", "free -m", "hostname", "id", "ls", "pwd", "uname -a", "uptime", "whoami")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")


def render_policies(proposal: Proposal) -> str:
    head = ("Weir: the first policies, as `weir init` has made them.  What no policy permits is denied, and a forbid "
            "wins over every permit.  docs/policy.md explains all of it; `weir policy explain` says what would be "
            "answered.")
    parts = [comment(head, "//")]
    for one in proposal.targets:
        found = "; ".join(one.peer.why)
        parts.append(comment(f"{one.name}, by {found}.", "//") + "".join(
            {POSTGRESQL: _sql, SSH: _ssh, KUBERNETES: _cluster}[one.peer.protocol](one)))
    if not proposal.targets:
        parts.append(comment("There is no target yet: nothing is permitted.", "//"))
    return "\n".join(parts)


def _rule(name: str, why: str, text: str, hold: str = "") -> str:
    held = f" @hold({quoted(hold)})" if hold else ""
    return f"\n{comment(why, '//')}@id({quoted(name)}){held}\n{text}\n"


def _connects(name: str, who: str, where: str) -> str:
    return _rule(f"{name}-connects", "It may log in.  Without this nothing else helps.",
                 f'permit ({who}, action == Action::"connect", resource {where});')


def _for(one: Place, kind: str) -> Iterator[tuple[str, str, str]]:
    """Of each crew that talks to it: the beginning of a rule's name, who it is, and what of the target it talks to,
    where that has a name that can stand in an id."""
    for crew in one.crews:
        inner = one.within(crew)
        where = f'{kind}::"{one.name}/{inner}"' if _PLAIN.fullmatch(inner) else f'Target::"{one.name}"'
        yield f"{crew}-{one.name}", f'principal in Group::"{group_of(crew)}"', where


def _sql(one: Place) -> Iterator[str]:
    target = f'Target::"{one.name}"'
    for name, who, where in _for(one, "Database"):
        yield _connects(name, who, f"in {where}")
        yield _rule(f"{name}-reads", "It may read: that is what it needs at least.  Take tables away by a forbid, or "
                    "name those that it needs in place of all.",
                    f'permit ({who}, action in Action::"sql:read", resource in {where});')
        yield _rule(f"{name}-writes", "It may write, once somebody has said yes: see the next one.",
                    f'permit ({who}, action in Action::"sql:write", resource in {where});')
    yield _rule(f"{one.name}-writes-are-held", "Whatever changes rows waits until one of the approvers answers.  "
                "Narrow it to what you want to look at: [Action::\"sql:delete\"], or single tables.",
                f'forbid (principal, action in Action::"sql:write", resource in {target})\n'
                "unless { context.approved };",
                _HOLD)
    yield _rule(f"{one.name}-nothing-destructive", "Nobody changes tables, empties them, or steps out of what policies "
                "see, whatever else is permitted.",
                f'forbid (principal, action in [Action::"sql:ddl", Action::"sql:truncate", Action::"sql:admin",\n'
                f'  Action::"sql:do", Action::"sql:copy-file", Action::"sql:set-role"], resource in {target});')


def _ssh(one: Place) -> Iterator[str]:
    target = f'Target::"{one.name}"'
    for name, who, where in _for(one, "Account"):
        yield _connects(name, who, f"in {where}")
        yield _rule(f"{name}-reads-files", "It may read files, by sftp, scp and rsync.  Name the paths that it needs: "
                    "&& resource.path like \"/var/log/app/*\".",
                    f'permit ({who}, action in Action::"file:read", resource in {where});')
        yield _rule(f"{name}-works", "It may run commands and write files, once somebody has said yes: see below.",
                    f'permit ({who}, action in [Action::"ssh:exec", Action::"file:write"],\n  resource in {where});')
    yield _rule(f"{one.name}-commands-are-held", "Commands wait until one of the approvers answers, but for these, to "
                "the word, which change nothing.  Add those of yours that do not either.",
                f'forbid (principal, action == Action::"ssh:exec", resource in {target})\n'
                f"when {{\n  !(resource.literal &&\n    {several(HARMLESS)}.contains(resource.line))\n}}\n"
                "unless { context.approved };", _HOLD)
    yield _rule(f"{one.name}-changes-are-held", "So does whatever changes files.",
                f'forbid (principal, action in Action::"file:write", resource in {target})\n'
                'when { resource.path != "/dev/null" } unless { context.approved };', _HOLD)
    yield _rule(f"{one.name}-no-keys", "Nobody reads or writes what logs somebody in, whatever else is permitted.",
                f'forbid (principal, action in [Action::"file:read", Action::"file:write"], resource in {target})\n'
                'when {\n  resource.path like "*/.ssh" || resource.path like "*/.ssh/*" ||\n  resource.path like '
                '"/etc/shadow*" || resource.path like "/etc/ssh/*"\n};')
    yield _rule(f"{one.name}-no-whole-directories", "The same, where scp -r or rsync would fetch it with what lies "
                "around it.", f'forbid (principal, action in Action::"file:read", resource in {target})\n'
                "when { resource.recursive };")
    yield "\n" + comment("Shells, tunnels, agent and whatever cannot be told are denied: nothing permits them.", "//")


def _cluster(one: Place) -> Iterator[str]:
    target = f'Target::"{one.name}"'
    changes = '[Action::"k8s:write", Action::"k8s:exec", Action::"k8s:attach", Action::"k8s:portforward"]'
    for name, who, where in _for(one, "Namespace"):
        yield _connects(name, who, f"== {target}")
        yield _rule(f"{name}-reads", "It may look at everything there; values of Secrets are masked, for nothing "
                    "permits `unmask`.", f'permit ({who}, action in Action::"k8s:read", resource in {where});')
        yield _rule(f"{name}-changes", "It may change what is there and get into pods, once somebody has said yes.",
                    f"permit ({who},\n  action in {changes},\n  resource in {where});")
    yield _rule(f"{one.name}-changes-are-held", "Changes and ways into pods wait until one of the approvers answers; "
                "one yes is for what one command asks for.",
                f"forbid (principal,\n  action in {changes},\n  resource in {target}) unless {{ context.approved }};",
                f"{_HOLD}, reuse=command")
    yield _rule(f"{one.name}-no-nodes", "Nothing that gets at the nodes, whatever else is permitted.",
                f'forbid (principal, action in Action::"k8s:write", resource in {target})\n'
                "when { resource.privileged || resource.host_namespaces || resource.host_path };")
    yield "\n" + comment("Proxies, impersonation and calls of what is no resource are denied: nothing permits them.",
                         "//")
