"""Pure: a proposal -> weir.toml, groups.toml, the first policies and what lies beside, with comments that say why."""
from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Final

import msgspec

from agent.contract.target import ENFORCE
from agent.init.findings import CERTIFICATE, KEY, PASSWORD, TOKEN, UNIT, Peer, Secret
from agent.init.policies import render_policies
from agent.init.proposal import APPROVERS, Place, Proposal, Workload, group_of, hosts_of, is_here, said_of, where_of
from agent.init.texts import comment, quoted, several
from agent.settings.credential_table import KUBERNETES, POSTGRESQL, SSH

WEIR, GROUPS, POLICIES = "weir.toml", "groups.toml", "policies/first.cedar"
PUBLIC, PRIVATE = 0o644, 0o600
_SPOKEN: Final = {POSTGRESQL: "PostgreSQL", SSH: "SSH", KUBERNETES: "Kubernetes"}


class File(msgspec.Struct, frozen=True):
    """One that is written.  What is secret is in `secret`, and its text is empty."""

    path: str
    text: str
    mode: int
    secret: Secret | None = None


class Missing(msgspec.Struct, frozen=True):
    """One that somebody has to put there, and how."""

    path: str
    what: str
    how: str


class Rendered(msgspec.Struct, frozen=True):
    files: tuple[File, ...]           # what everything else names comes first, weir.toml last
    missing: tuple[Missing, ...]
    remarks: tuple[str, ...] = ()     # what somebody should look at


def render(proposal: Proposal, directory: str, name: str = WEIR) -> Rendered:
    """`directory`, `name`: of weir.toml."""
    files: list[File] = []
    missing: list[Missing] = []
    for place in proposal.targets:
        for one in _beside(place, directory):
            (files if isinstance(one, File) else missing).append(one)  # type: ignore[arg-type]
    files += [File(f"{directory}/{POLICIES}", render_policies(proposal), PUBLIC),
              File(f"{directory}/{GROUPS}", render_groups(proposal), PUBLIC),
              File(f"{directory}/{name}", render_weir(proposal, directory), PUBLIC)]
    return Rendered(tuple(files), tuple(missing), tuple(_remarks(proposal, directory)))


def _remarks(proposal: Proposal, directory: str) -> Iterator[str]:
    for one in proposal.targets:
        peer, kind = one.peer, _SPOKEN[one.peer.protocol]
        if peer.protocol == POSTGRESQL and not peer.user:
            yield f"{one.name}: nobody said which user the crew logs in as: crew_svc stands in {WEIR}, put yours there"
        if peer.protocol != SSH and not peer.authorities and 'tls = "verify-full"' in "".join(_tls(one, directory)):
            yield (f"{one.name}: where its certificate is not of a public authority, put that of its own into "
                   f"{_authorities(one, directory)} and take the # away from tls_ca")
        if one.take and (others := [crew for crew in one.crews if crew not in one.holders]):
            yield (f"{one.name}: what opens it was found with {', '.join(one.holders)}, and is for nobody else: "
                   f"{', '.join(others)} cannot log in before there is a credential for it")
        if 'tls = "disable"' in "".join(_tls(one, directory)) and not is_here(peer):
            yield (f"{one.name}: without TLS, for the crew's client says so (sslmode=disable), and others on the "
                   "network read and change it: verify-full would be right")
        if peer.keys or peer.authorities:
            yield f"{one.name}: by what this {kind} target is known comes from the crew's own files: compare it"
        for secret in peer.secrets if one.take else ():
            yield (f"{one.name}: {secret.place} has the {secret.kind} still: the crew needs it no more.  Take it away "
                   "there, and change it where it opens something: the crew may have kept it")


# weir.toml


def render_weir(proposal: Proposal, directory: str) -> str:
    head = (f"Weir: {directory}/{WEIR}, as `weir init` has made it.  It is yours: change it, then `weir check` and "
            "`weir reload`.  docs/reference-configuration.md has every field; what does not stand here has its "
            "default.")
    parts = [comment(head)]
    parts += [_workload(one, proposal.mode) for one in proposal.workloads]
    parts += [_egress(one) for one in proposal.egress]
    if not proposal.egress:
        parts.append(comment("No [[egress]]: besides its targets a crew reaches nothing, also no model.  `weir egress "
                             "suggest` drafts what it needs, from what it did in the mode `record`."))
    parts += [_target(one, directory) for one in proposal.targets]
    return "\n".join(parts)


def _workload(one: Workload, mode: str) -> str:
    crew = one.crew
    lines = [comment(f"A crew: {said_of(crew)} ({crew.why})."), "[[workload]]\n", f"name = {quoted(one.name)}\n"]
    if crew.kind == UNIT:
        lines += [comment("`weir adopt` confines it: nothing of the unit itself is changed."),
                  f"unit = {quoted(crew.name)}\n"]
    if crew.user:
        lines += [comment("Who it runs as" + ("." if crew.kind == UNIT else ", and who may start it by `weir run`.")),
                  f"users = {several((crew.user,))}\n"]
    if crew.home:
        lines += [comment("What it sees of the files and may write: the home of its user.  Everything else of the "
                          "host but the system itself is not there for it."), 'directories = ["~"]\n']
    if crew.needs:
        lines += [comment("What it sees besides and may not write: where its program lies."),
                  f"read_only = {several(crew.needs)}\n"]
    if mode != ENFORCE:
        lines += [comment("NOT ENFORCED: what neither a target nor [[egress]] permits passes, and is recorded, so that "
                          "`weir egress suggest` can say what it needs.  Take this line away after that."),
                  f"egress = {quoted(mode)}\n"]
    return "".join(lines)


def _egress(one: Place) -> str:
    return "".join((
        comment(f"Opaque to Weir, and recorded: {_found(one.peer)}."), "[[egress]]\n", f"name = {quoted(one.name)}\n",
        f"addresses = {several(hosts_of(one.peer))}\n", f"ports = [{one.peer.port}]\n"))


def _found(peer: Peer) -> str:
    return "; ".join(peer.why)


def _target(one: Place, directory: str) -> str:
    peer = one.peer
    lines = [comment(f"{_SPOKEN[peer.protocol]}, by {_found(peer)}."), "[[target]]\n", f"name = {quoted(one.name)}\n",
             f"protocol = {quoted(peer.protocol)}\n"]
    if peer.socket:
        lines += [f"port = {peer.port}\n", comment("By its Unix socket: in the crew's view Weir's own is there."),
                  f"sockets = {several((peer.socket,))}\n", f"upstream = {quoted(peer.socket)}\n"]
    else:
        lines += [comment("As the crew dials it, and goes on dialling it."), f"hosts = {several(hosts_of(peer))}\n",
                  f"port = {peer.port}\n"]
        lines += {POSTGRESQL: _tls, SSH: _keys, KUBERNETES: _authority}[peer.protocol](one, directory)
    return "".join(lines) + "\n" + "".join(_credential(one, directory))


def _tls(one: Place, directory: str) -> list[str]:
    peer = one.peer
    if peer.tls == "disable" or (is_here(peer) and peer.tls not in ("verify-ca", "verify-full")):
        why = ("it does not leave this host" if is_here(peer) else "the crew speaks so with it (sslmode=disable).  On "
               "a network others can read and change it: verify-full would be right")
        return [comment(f"Without TLS: {why}."), 'tls = "disable"\n']
    without = ("" if peer.tls in ("require", "verify-ca", "verify-full") else "  Where it speaks no TLS, \"disable\" "
               "would be right: others on the network can read and change that.")
    lines = [comment(f"Its certificate must be right, and name the first of `hosts`.{without}"),
             'tls = "verify-full"\n']
    if peer.authorities:
        lines += [comment("Who signs it: the certificates of the file that the crew's client names."),
                  f"tls_ca = {quoted(_authorities(one, directory))}\n"]
    else:
        lines += [comment("Who signs it: the authorities of the system.  For one of your own, put its certificate "
                          "there and take the # away."), f"#tls_ca = {quoted(_authorities(one, directory))}\n"]
    if peer.root_file:
        lines += [comment("The crew's client names this file of roots: in its view Weir's authority is added to it."),
                  f"trust = {several((peer.root_file,))}\n"]
    return lines


def _keys(one: Place, directory: str) -> list[str]:
    if not one.peer.keys:
        return [comment("By which keys it is known; without, Weir could not tell it from another host."),
                f"known_hosts = {quoted(_known_hosts(one, directory))}\n"]
    keys = "".join(f"  {quoted(key)},\n" for key in one.peer.keys)
    return [comment("By which keys it is known: those of the crew's own known_hosts, which the crew may have written. "
                    "Compare them with `ssh-keygen -lf` of /etc/ssh/ssh_host_*_key.pub there."),
            f"host_keys = [\n{keys}]\n"]


def _authority(one: Place, directory: str) -> list[str]:
    if not one.peer.authorities:
        return [comment("Who signs its certificate: the authorities of the system.  For one of its own, as most "
                        "clusters have, put that there and take the # away."),
                f"#tls_ca = {quoted(_authorities(one, directory))}\n"]
    return [comment("Who signs its certificate: as the crew's kubeconfig says, which the crew may have written. "
                    "Compare it with the cluster's own."), f"tls_ca = {quoted(_authorities(one, directory))}\n"]


def _credential(one: Place, directory: str) -> Iterator[str]:
    yield comment("What Weir logs in with.  Whatever the crew itself sends goes nowhere.")
    if not one.take or set(one.holders) == set(one.crews):
        yield from _row(one, directory)
        return
    for crew in one.holders:
        yield comment(f"It was found with {crew}, and is for that crew alone: others of this target need their own.")
        yield from _row(one, directory, group_of(crew))


def _row(one: Place, directory: str, group: str = "") -> Iterator[str]:
    peer = one.peer
    yield "[[target.credential]]\n"
    if group:
        yield f"group = {quoted(group)}\n"
    if peer.protocol == POSTGRESQL:
        yield f"user = {quoted(peer.user or 'crew_svc')}\n"
    elif peer.protocol == SSH and peer.user:
        yield f"user = {quoted(peer.user)}\n"
    if peer.socket and not peer.secrets:
        yield comment("Without a password: the server takes Weir's user by its uid (`peer`), as docs/operator.md says "
                      "under \"Local databases\".")
        return
    for field, name, what in _needed(peer):
        yield comment(f"{what}, and nothing else; root's, mode 0600.  Vault and others: docs/operator.md, "
                      "\"Credentials\".")
        yield f"{field} = {quoted(_secret_file(one, name, directory))}\n"
    if peer.protocol == SSH and not one.take:
        yield comment(f"In its place Weir can sign certificates of its own for the account: `weir ca {one.name}` "
                      "prints what the host is to trust for that.")
        yield '#certificate = "issue"\n'


_FIELDS: Final = {PASSWORD: ("password_file", "", "The password"), TOKEN: ("token_file", ".token", "The bearer token"),
                  KEY: ("key_file", ".key", "The private key"),
                  CERTIFICATE: ("certificate_file", ".pem", "The client certificate")}
_USUAL: Final = {POSTGRESQL: (PASSWORD,), SSH: (KEY,), KUBERNETES: (TOKEN,)}


def _needed(peer: Peer) -> Iterator[tuple[str, str, str]]:
    """Field, end of the file's name, and what is in it."""
    for kind in tuple(one.kind for one in peer.secrets) or _USUAL[peer.protocol]:
        yield _FIELDS[kind]


def _secret_file(one: Place, end: str, directory: str) -> str:
    return f"{directory}/credentials/{one.name}{end}"


def _authorities(one: Place, directory: str) -> str:
    return f"{directory}/{one.name}-ca.pem"


def _known_hosts(one: Place, directory: str) -> str:
    return f"{directory}/{one.name}-known_hosts"


# files beside it


def _beside(one: Place, directory: str) -> Iterator[File | Missing]:
    peer = one.peer
    if peer.authorities:
        yield File(_authorities(one, directory), peer.authorities, PUBLIC)
    if peer.protocol == SSH and not peer.keys:
        path, port = _known_hosts(one, directory), f" -p {peer.port}" if peer.port != 22 else ""
        word = shlex.quote(path)
        yield Missing(path, f"the host keys of {one.name}",
                      f"ssh-keyscan{port} {peer.hosts[0]} | sudo tee {word}   # compare: ssh-keygen -lf {word}")
    taken = {one.kind: one for one in peer.secrets} if one.take else {}
    if peer.socket and not peer.secrets:
        return
    for kind in tuple(secret.kind for secret in peer.secrets) or _USUAL[peer.protocol]:
        _, end, what = _FIELDS[kind]
        path = _secret_file(one, end, directory)
        if kind in taken:
            yield File(path, "", PRIVATE, taken[kind])
        else:
            word = shlex.quote(path)
            yield Missing(path, f"{what.lower()} for {one.name}, which is sent to {where_of(peer)}",
                          f"sudo install -m 600 -D /dev/null {word} && sudoedit {word}")


# groups.toml


def _key(name: str) -> str:
    """A dot would be a table."""
    return quoted(name) if "." in name else name


def render_groups(proposal: Proposal) -> str:
    lines = [comment("Weir: who is in which group, for policies and approvals.  Members are user:NAME, group:UNIXGROUP "
                     "and workload:NAME; docs/reference-configuration.md has the others."), "\n[groups]\n",
             comment("Who answers what is held: the members of this host's group.  sudo usermod -aG weir-approvers "
                     "NAME"), f'{APPROVERS} = ["group:weir-approvers"]\n']
    for one in proposal.workloads:
        if group_of(one.name) != one.name:
            lines.append(comment("The name without `crew-` is that of who approves."))
        lines += [comment(f"Everybody who acts through the workload {one.name}."),
                  f"{_key(group_of(one.name))} = {several((f'workload:{one.name}',))}\n"]
    return "".join(lines)
