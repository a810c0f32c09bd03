"""Pure: [[target]]: the table of its fields, each protocol's own among them, and what must hold between them.

What a protocol alone has says so by `of`: in another's target it is a mistake.  A further protocol adds its fields
here, and its checks to `check_targets`.
"""
from __future__ import annotations

from typing import Final

import msgspec

from agent.contract.target import ColumnLabel, ContentLabel, FieldLabel, Forward
from agent.settings import fields as kinds
from agent.settings import kubernetes_kinds, ssh_kinds
from agent.settings.credential_table import CREDENTIAL, KUBERNETES, POSTGRESQL, SSH, CredentialRow
from agent.settings.fields import Field, Report, Section
from agent.settings.positions import Path as Place

Taken = dict[tuple[str, int], str]    # host and port, or path and 0 -> target


class LabelRow(msgspec.Struct, frozen=True):
    """On a column, on a field of objects, or on what files hold and commands print."""

    label: str
    column: tuple[str, str, str] | None = None       # schema, table, column
    mask: str = "redact"
    path: str | None = None
    command: str | None = None
    field: kubernetes_kinds.Labelled | None = None

    def field_label(self) -> FieldLabel | None:
        return FieldLabel(self.label, *self.field, self.mask) if self.field else None

    def column_label(self) -> ColumnLabel | None:
        return ColumnLabel(self.label, *self.column, self.mask) if self.column else None

    def content_label(self) -> ContentLabel | None:
        return ContentLabel(self.label, self.path or "", self.command or "") if self.path or self.command else None


class TargetEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What a protocol does not have is as it stands here."""

    name: str
    protocol: str
    hosts: tuple[str, ...] = ()
    port: int
    payload: str = "none"
    payload_limit: int = 1 << 20      # bytes
    trust: tuple[str, ...] = ()
    credentials: tuple[CredentialRow, ...] = ()
    labels: tuple[LabelRow, ...] = ()
    tls: str = "disable"
    tls_ca: str | None = None
    databases: tuple[str, ...] = ()
    sockets: tuple[str, ...] = ()
    upstream: str | None = None
    host_keys: tuple[str, ...] = ()   # "TYPE BASE64"
    host_ca: tuple[str, ...] = ()
    known_hosts: str | None = None
    authentication: tuple[str, ...] = ()
    detectors: tuple[str, ...] = ()
    forwards: tuple[Forward, ...] = ()

    @property
    def certified(self) -> bool:
        """Whether crews know it by a certificate."""
        return bool(self.hosts) and self.protocol != SSH


_LABEL: Final = Section("label", LabelRow, True, "A data class on a column, on a field of a cluster's objects, or on "
    "what files hold and commands print.", (
    Field("label", kinds.LABEL, "What it is, for policies: `Label::\"pii.email\"` is in `Label::\"pii\"`.",
          example="pii.email"),
    Field("column", kinds.COLUMN, "Which column.", example="public.customers.email", of=(POSTGRESQL,)),
    Field("field", kubernetes_kinds.FIELD, "Which resource, as `kubectl api-resources` names it, with `.GROUP` where "
          "it has one, and which field of it: names with dots between them; `*` is every item of a list or every key, "
          'a name that has dots stands in quotes: `data."ca.crt"`.  Values of Secrets are `secret`, of Helm\'s '
          "releases `secret.helm`, tokens `secret.token` without a row.", example="configmaps:data.password",
          of=(KUBERNETES,)),
    Field("mask", kinds.MASK, "What those see who may not unmask it.", "redact", "partial", of=(POSTGRESQL,)),
    Field("mask", kubernetes_kinds.FIELD_MASK, "What those see who may not unmask it.", "redact", "partial",
          of=(KUBERNETES,)),
    Field("path", ssh_kinds.FILE_PATTERN, "Which files; `*` stands for anything.  What is read of them has the label.",
          None, "/etc/app/*.key", of=(SSH,)),
    Field("command", kinds.TEXT, "In place of `path`: which commands, as policies see their line; `*` stands for "
          "anything.  What they print has the label.", None, "vault read *", of=(SSH,), instead=True),
), attribute="labels")

_FORWARD: Final = Section("forward", Forward, True, "Pods in which a registered target listens: a port-forward to them "
    "is inspected as that target, with its policies and its credential.", (
    Field("target", kinds.NAME, "Which target.", example="orders", of=(KUBERNETES,)),
    Field("namespace", kubernetes_kinds.NAMESPACE, "Namespace of the pods.", example="data", of=(KUBERNETES,)),
    Field("pods", kubernetes_kinds.PODS, "Their names; `*` stands for anything.", "*", "orders-*", of=(KUBERNETES,)),
    Field("port", kinds.PORT, "The pod's port.", example=5432, of=(KUBERNETES,)),
), attribute="forwards", only=(KUBERNETES,))

TARGET: Final = Section("target", TargetEntry, True, "A registered database, SSH host or cluster.", (
    Field("name", kinds.NAME, "For policies: `Target::\"orders\"`.", example="orders"),
    Field("protocol", kinds.choice(*kinds.protocols()), "What is spoken there.", example=POSTGRESQL),
    Field("hosts", kinds.several(kinds.HOST), "Names and addresses that crews dial; the first is what its certificate "
          "is verified against.  None are needed where `sockets` and `upstream` are named.", [], ["db.lab.example"],
          of=(POSTGRESQL,)),
    Field("hosts", kinds.several(kinds.HOST, least=1), "Names and addresses that crews dial; the first is what Weir "
          "dials.", example=["web.lab.example"], of=(SSH,)),
    Field("hosts", kinds.several(kinds.HOST, least=1), "Names and addresses of its API server that crews dial, as "
          "their kubeconfig has it (in a pod $KUBERNETES_SERVICE_HOST); the first is what Weir dials, and what its "
          "certificate is verified against.", example=["cluster.lab.example"], of=(KUBERNETES,)),
    Field("port", kinds.PORT, "Its port.", example=5432, of=(POSTGRESQL,)),
    Field("port", kinds.PORT, "Its port.", 6443, of=(KUBERNETES,)),
    Field("port", kinds.PORT, "Its port.", 22, of=(SSH,)),
    Field("tls", kinds.choice("verify-full", "verify-ca", "disable"), "How Weir speaks to it.", "verify-full",
          of=(POSTGRESQL,)),
    Field("tls", kinds.choice("verify-full", "verify-ca"), "How Weir speaks to it.", "verify-full", of=(KUBERNETES,)),
    Field("tls_ca", kinds.PATH, "Roots for its certificate, PEM.  Default: the system's.", None, "/etc/weir/db-ca.pem",
          of=(POSTGRESQL,)),
    Field("tls_ca", kinds.PATH, "Roots for its certificate, PEM: what `certificate-authority-data` of its kubeconfig "
          "holds in base64.  Default: the system's.", None, "/etc/weir/cluster-ca.pem", of=(KUBERNETES,)),
    Field("host_keys", kinds.several(ssh_kinds.PUBLIC_KEY), "Its host keys, each as in its "
          "/etc/ssh/ssh_host_*_key.pub.  One of `host_keys`, `known_hosts` and `host_ca` is needed: without, "
          "Weir could not tell it from another host.", [],
          ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG10eEI6aW+ZfURANj2dwOHwSyiuIcF30QoBCZWZmE40"], of=(SSH,)),
    Field("known_hosts", kinds.PATH, "File in the format of known_hosts, with its keys or `@cert-authority` lines; "
          "root's, and nobody else writes it.  A reload reads it again.", None, "/etc/weir/known_hosts", of=(SSH,),
          instead=True),
    Field("host_ca", kinds.several(ssh_kinds.PUBLIC_KEY), "Public keys of the authorities that sign its host "
          "certificate.", [], ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDDOQm8vGPotmkRjKxiu3wprV2mrFyo5mSkxwJHaY3rz"],
          of=(SSH,), instead=True),
    Field("authentication", kinds.several(kinds.choice(*ssh_kinds.METHODS), least=1), "What crews' clients may log in "
          "by.  Whatever they send is taken and goes nowhere: who they are, Weir knows from the kernel.",
          list(ssh_kinds.METHODS), of=(SSH,)),
    Field("trust", kinds.several(kinds.HOME_PATH), "Root files that its clients name (`sslrootcert`): Weir's authority "
          "is added to them in the workload's view.", [], ["~/db-ca.pem"], of=(POSTGRESQL,)),
    Field("trust", kinds.several(kinds.HOME_PATH), "Kubeconfigs and root files (`ca.crt`) that its clients name, "
          "besides ~/.kube/config and what $KUBECONFIG names: in the workload's view they have Weir's authority, and "
          "of kubeconfigs' users for it a token that opens nothing is left.", [], ["~/cluster.yaml"], of=(KUBERNETES,)),
    Field("trust", kinds.several(kinds.HOME_PATH), "Files that its clients name in place of ~/.ssh/known_hosts "
          "(`UserKnownHostsFile`): in the workload's view they have Weir's host keys.", [], ["~/hosts"], of=(SSH,)),
    Field("sockets", kinds.several(kinds.DIALLED), "Unix sockets that crews dial: in their view Weir's own is there.  "
          "Directories that workloads see must not hold them.", [], ["/var/run/postgresql/.s.PGSQL.5432"],
          of=(POSTGRESQL,)),
    Field("upstream", kinds.SOCKET, "Unix socket of the database itself, by which Weir reaches it in place of `hosts`; "
          "`tls` and `tls_ca` do not matter then.  A credential without a password_file: the server takes Weir's user "
          "by its uid (`peer`).", None, "/var/run/postgresql/.s.PGSQL.5432", of=(POSTGRESQL,)),
    Field("databases", kinds.several(kinds.TEXT), "Databases that may be used; none named: every one.", [],
          of=(POSTGRESQL,)),
    Field("detectors", kinds.several(kinds.choice(*ssh_kinds.DETECTORS)), "What is looked for in all that commands "
          "and terminals print, and masked for who may not unmask it.", list(ssh_kinds.DETECTORS), of=(SSH,)),
    Field("detectors", kinds.several(kinds.choice(*ssh_kinds.DETECTORS)), "What is looked for in logs, in values of "
          "ConfigMaps and in what is printed in pods, and masked for who may not unmask it.",
          list(ssh_kinds.DETECTORS), of=(KUBERNETES,)),
    Field("payload", kinds.choice("none", "rows"), "What is recorded of answers, besides counts and digests.", "none",
          of=(POSTGRESQL,)),
    Field("payload", kinds.choice("none", "content"), "What is recorded of files that are read and written, besides "
          "size and digest.", "none", of=(SSH,)),
    Field("payload", kinds.choice("none", "content"), "What is recorded of answers, besides size and digest: as they "
          "were delivered, after masking.", "none", of=(KUBERNETES,)),
    Field("payload_limit", kinds.size("1KiB", "1GiB"), "Bytes of an answer that are kept.", "1MiB", of=(POSTGRESQL,)),
    Field("payload_limit", kinds.size("1KiB", "1GiB"), "Bytes of each stream and file that are kept.", "1MiB",
          of=(SSH,)),
    Field("payload_limit", kinds.size("1KiB", "1GiB"), "Bytes of each answer, body and stream that are kept.", "1MiB",
          of=(KUBERNETES,)),
), (CREDENTIAL, _LABEL, _FORWARD), attribute="targets", chooser="protocol")


def check_targets(report: Report, own: set[tuple[str, int]]) -> Taken:
    """Which target has which host and port.  `own`: the enforcer's listeners."""
    taken: Taken = {}
    for path, target in report.entries("target"):
        for place in ((host, target.port) for host in target.hosts):
            shown = f"{place[0]} port {place[1]}"
            if place in own:
                report.add((*path, "hosts"), f"{shown} is the enforcer's own listener")
            if place in taken:
                report.add((*path, "hosts"), f"{shown} belongs to target {taken[place]!r} already")
            taken.setdefault(place, target.name)
        _check_labels(target, path, report)
        _check_selectors(target, path, report)
        if target.protocol == SSH:
            _check_ssh(target, path, report)
        elif target.protocol == KUBERNETES:
            _check_forwards(target, path, report)
        else:
            _check_database(target, path, taken, report)
    return taken


def _check_forwards(target: TargetEntry, path: Place, report: Report) -> None:
    """Names of targets that have a mistake nobody knows."""
    known = {one.name: one.protocol for _, one in report.entries("target")}
    seen: dict[tuple[str, str, int], int] = {}
    for number, row in enumerate(target.forwards):
        place = (*path, "forward", number)
        if row.target not in known and not report.wrong("target"):
            report.add((*place, "target"), f"there is no [[target]] {row.target!r}; there is: "
                       f"{', '.join(sorted(known))}")
        elif known.get(row.target) == KUBERNETES:
            report.add((*place, "target"), f"{row.target} is a cluster, which is reached by its own name; a database "
                       "or an SSH host would be right")
        if (first := seen.setdefault((row.namespace, row.pods, row.port), number)) != number:
            report.add(place, f"is for the same pods and port as forward[{first + 1}]")


def _check_database(target: TargetEntry, path: Place, taken: Taken, report: Report) -> None:
    for one in target.sockets:
        if (first := taken.setdefault((one, 0), target.name)) != target.name:
            report.add((*path, "sockets"), f"{one} belongs to target {first!r} already")
    if not target.hosts and not (target.sockets and target.upstream):
        report.add(path, "has no `hosts`: without, both `sockets` and `upstream` are needed")
    if target.tls == "disable" and target.tls_ca:
        report.add((*path, "tls_ca"), 'is not used with tls = "disable": leave one of them out')


def _check_ssh(target: TargetEntry, path: Place, report: Report) -> None:
    if not target.host_keys and not target.known_hosts and not target.host_ca:
        port = f" -p {target.port}" if target.port != 22 else ""
        report.add(path, "has no `host_keys`, `known_hosts` or `host_ca`, and Weir could not tell it from another "
                   f"host: ssh-keyscan{port} {target.hosts[0]} prints its keys, and ssh-keygen -lf there, on the host "
                   "itself, says whether they are")


def _check_selectors(target: TargetEntry, path: Place, report: Report) -> None:
    if not target.credentials:
        report.add(path, "has no [[target.credential]]: nobody could log in")
    seen: dict[tuple[str, str, str], int] = {}
    what = {SSH: "role and group", KUBERNETES: "group"}.get(target.protocol, "database, role and group")
    for number, row in enumerate(target.credentials):
        if (first := seen.setdefault((row.database, row.role, row.group), number)) != number:
            report.add((*path, "credential", number), f"is for the same {what} as credential[{first + 1}]")
        without = 'tls = "disable"' if target.tls == "disable" else "`upstream`" if target.upstream else ""
        if target.protocol == POSTGRESQL and row.needs_tls and without and (row.certificate or target.tls == "disable"):
            report.add((*path, "credential", number, row.needs_tls), f"needs TLS, and this target has {without}")


def _check_labels(target: TargetEntry, path: Place, report: Report) -> None:
    seen: dict[object, int] = {}
    for number, row in enumerate(target.labels):
        if row.column is None and row.field is None and bool(row.path) == bool(row.command):
            report.add((*path, "label", number), "names " + ("both `path` and `command`" if row.path else "nothing")
                       + "; one of `path` and `command` would be right")
            continue
        name = next(one for one in ("column", "field", "path", "command") if getattr(row, one))
        what = getattr(row, name) if row.column or row.field else (name, getattr(row, name), row.label)
        if (first := seen.setdefault(what, number)) != number:
            report.add((*path, "label", number, name), f"is labelled by label[{first + 1}] already")
