"""Pure: the sections about this host, [[egress]] and [[workload]]: the tables of their fields, and what must hold
between them."""
from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from agent.contract.identity import ServiceIdentity
from agent.contract.names import is_metadata
from agent.contract.target import ENFORCE, MODES
from agent.settings import fields as kinds
from agent.settings.fields import Field, Report, Section, render_path
from agent.settings.page_table import listeners, page_place
from agent.settings.positions import Path as Place
from agent.unit.adoptable import END, REPORT, RESTART, wrong_name
from agent.workload.launch import HOST, PRIVATE
from agent.workload.view import closed

LISTEN: Final = "127.53.53.53"        # nobody's 127.0.0.53


class Runtime(msgspec.Struct, frozen=True):
    name: str
    state: str | None                 # None: by the name; see `Config`
    run: str | None
    user: str
    audit_user: str
    approvers: str
    identity_user: str = "weir-identity"
    notify_user: str = "weir-notify"
    web_user: str = "weir-web"
    vault_user: str = "weir-vault"

    @property
    def own_users(self) -> tuple[str, ...]:
        return self.user, self.audit_user, self.identity_user, self.vault_user, self.web_user, self.notify_user

    def places(self) -> tuple[Path, Path]:
        """Run and state directory."""
        return Path(self.run or f"/run/{self.name}"), Path(self.state or f"/var/lib/{self.name}")


class Enforcer(msgspec.Struct, frozen=True):
    port: int
    max_sessions: int
    hold: int                         # seconds
    durable: str


class Dns(msgspec.Struct, frozen=True):
    resolver: tuple[str, int] | None
    listen: str                       # loopback address, port 53


class Nftables(msgspec.Struct, frozen=True):
    redirect: bool


class Ledger(msgspec.Struct, frozen=True):
    foreign: str                      # holdings.CONNECTION, PROCESS or RECORD


class Recording(msgspec.Struct, frozen=True):
    journal_limit: int                # bytes
    reserve: int                      # bytes
    checkpoint: int                   # seconds
    rotate: int                       # bytes


class EgressPolicy(msgspec.Struct, frozen=True):
    mode: str


class EgressEntry(msgspec.Struct, frozen=True):
    name: str
    addresses: tuple[str, ...]        # and host names
    ports: tuple[int, ...]
    metadata: bool = False
    private: bool = False


class Workload(msgspec.Struct, frozen=True):
    name: str
    users: tuple[str, ...]
    directories: tuple[str, ...]
    read_only: tuple[str, ...]
    network: str
    egress: str | None = None         # mode; None: the policy's
    root: bool = False                # inside, its user is uid 0
    unit: str | None = None           # of systemd's, which `weir adopt` confines
    running: str = "end"              # adoptable.END, REPORT or RESTART: what was open when it was adopted
    person: bool = False              # needs the login of who starts it
    identity: ServiceIdentity | None = None


RUNTIME: Final = Section("runtime", Runtime, False, "Names, places and users of this Weir.", (
    Field("name", kinds.RUNTIME_NAME, "Gives the slice, the nftables table and the directories their name.", "weir",
          restart=True),
    Field("state", kinds.PATH, "Recording, journal and certificate authorities.  Default: /var/lib/NAME.", None,
          "/var/lib/weir", restart=True),
    Field("run", kinds.PATH, "Sockets, pins and trust files.  Default: /run/NAME.", None, "/run/weir", restart=True),
    Field("user", kinds.ACCOUNT, "User of the enforcer.", "weir", restart=True),
    Field("audit_user", kinds.ACCOUNT, "User of the recorder; members of its group may read the recording.",
          "weir-audit", restart=True),
    Field("approvers", kinds.ACCOUNT, "Unix group whose members may answer held operations.", "weir-approvers"),
    Field("identity_user", kinds.ACCOUNT, "User of the process that speaks with identity providers, where there is a "
          "[[provider]].", "weir-identity", restart=True),
    Field("notify_user", kinds.ACCOUNT, "User of the process that speaks with Slack and webhooks, where one is "
          "configured.", "weir-notify", restart=True),
    Field("web_user", kinds.ACCOUNT, "User of the processes that serve the page, where [web] has a `url`, and "
          "[metrics].", "weir-web",
          restart=True),
    Field("vault_user", kinds.ACCOUNT, "User of the processes that speak with Vault, where there is a [[vault]], "
          "and with the `issuer` of a [[target.credential]].",
          "weir-vault", restart=True),
))
ENFORCER: Final = Section("enforcer", Enforcer, False, "The one process that crews reach.", (
    Field("port", kinds.HIGH_PORT, "Port of its listeners on 127.0.0.1 and ::1.", 15432, restart=True),
    Field("max_sessions", kinds.count(1, 100000), "Sessions at a time; one more is refused. The last tenth is for "
          "workloads with less than half of them.", 1000),
    Field("hold", kinds.duration("1s", "7d"), "How long a held operation waits where its rule does not say.", "15m"),
    Field("durable", kinds.choice("writes", "all", "none"), "Which operations wait until their record is on disk.",
          "writes"),
))
DNS: Final = Section("dns", Dns, False, "Names.", (
    Field("resolver", kinds.RESOLVER, "The DNS server that Weir's resolver asks, for names of targets and egress "
          "entries only; crews do not reach it.  Default: the first of /etc/resolv.conf.", None, "10.77.0.53",
          restart=True),
    Field("listen", kinds.LOOPBACK, "Where Weir's resolver answers crews, port 53: nothing else may have it.",
          LISTEN, restart=True),
))
NFTABLES: Final = Section("nftables", Nftables, False, "The second layer of the block.", (
    Field("redirect", kinds.BOOLEAN, "Send to the enforcer what the probes did not rewrite; costs every process on "
          "the host connection tracking.  Without it such connections are dropped.", True, restart=True),
))
LEDGER: Final = Section("ledger", Ledger, False, "What no hook sees: found by looking.", (
    Field("foreign", kinds.choice("connection", "process", "record"), "What is ended where a crew holds a socket that "
          "was made outside (handed in, inherited): the connection, and where there is none the process; always the "
          "process; or nothing.  It is an alarm in each case.", "connection"),
))
RECORDING: Final = Section("recording", Recording, False, "Bounds of journal and recording.", (
    Field("journal_limit", kinds.size("1MiB", "64GiB"), "Bytes that may wait for the recorder before operations are "
          "refused.", "64MiB", restart=True),
    Field("reserve", kinds.size("1MiB", "1TiB"), "Bytes that stay free on the disk: operations are refused before.",
          "256MiB", restart=True),
    Field("checkpoint", kinds.duration("1s", "1h"), "Time between signed checkpoints.", "10s", restart=True),
    Field("rotate", kinds.size("1MiB", "1TiB"), "Size at which a new recording file begins; it also does each day.",
          "1GiB", restart=True),
))
EGRESS_POLICY: Final = Section("egress_policy", EgressPolicy, False, "What becomes of what neither a target nor "
    "[[egress]] permits.", (
    Field("mode", kinds.choice(*MODES), "`enforce` refuses it; `shadow` lets TCP through and records what would have "
          "been refused, and why; `record` lets it through and records it.  In each mode targets go through their "
          "protocol, and loopback and addresses of cloud metadata stay refused.", ENFORCE),
))
EGRESS: Final = Section("egress", EgressEntry, True, "Somewhere that crews may talk to as an opaque, recorded flow: a "
    "model's API, a package index.", (
    Field("name", kinds.NAME, "For the recording.", example="model"),
    Field("addresses", kinds.several(kinds.EGRESS_HOST, least=1), "Addresses or names; `*.NAME` is every name below "
          "it.  Where a name leads, a TLS or plain HTTP connection has to name that name too.", example=["10.77.0.3"]),
    Field("ports", kinds.several(kinds.PORT, least=1), "TCP ports.", example=[443]),
    Field("metadata", kinds.BOOLEAN, "Permit the listed addresses that clouds hand out machines' credentials on, and "
          "other link-local ones.", False),
    Field("private", kinds.BOOLEAN, "Permit names below a wildcard to lead to addresses that are not public "
          "(10.0.0.0/8, fc00::/7, ...).  Whoever owns such a name says where it leads: to any inside service at these "
          "ports.", False),
), attribute="egress")
WORKLOAD: Final = Section("workload", Workload, True, "What `weir run --workload NAME` may start, or a unit of "
    "systemd's that `weir adopt` confines.", (
    Field("name", kinds.NAME, "For policies, groups and the recording.", example="crew"),
    Field("users", kinds.several(kinds.ACCOUNT), "Who it may run as, and who may start it (besides root).  Needed, but "
          "for a unit with DynamicUser=.", [], ["crew"]),
    Field("directories", kinds.several(kinds.HOME_PATH), "What it sees of the files and may write.", [], ["~"]),
    Field("read_only", kinds.several(kinds.HOME_PATH), "What it sees besides the system and may not write.", [],
          ["/opt/crew"]),
    Field("egress", kinds.choice(*MODES), "Its mode of egress.  Default: that of [egress_policy].", None, ENFORCE),
    Field("root", kinds.BOOLEAN, "Inside, its user is root: uid 0 of a user namespace that maps only the user's own "
          "uid, without any capability.  For tools and images that insist on it; files belong to the user.", False),
    Field("network", kinds.choice(PRIVATE, HOST), "`private`: each start has a network namespace of its own with only "
          "`lo` and Weir in it; `host`: it is in the host's, as a `unit` always is.  "
          "`weir run --network` may ask for `private` in any case, for `host` only where it stands here, or as root.",
          PRIVATE),
    Field("unit", kinds.UNIT, "A service of systemd's that is this workload: `weir adopt UNIT` writes the drop-in that "
          "confines it.  Its User= is one of `users`.", None, "crew.service"),
    Field("running", kinds.choice(END, REPORT, RESTART), "What becomes of connections that the unit has open when "
          "it is adopted: they are ended; or only reported, and their packets dropped; or the unit is restarted.  In "
          "the first two it is contained at once, and confined in full from its next start on.", END),
    Field("person", kinds.BOOLEAN, "Starts only for who is logged in (`weir login`), and speaks for that person.",
          False),
    Field("identity", kinds.SERVICE_IDENTITY, "Where no person stands behind it: a provider and a file that holds a "
          "JWT of its (root's, mode 0600; read again when it changes), or the provider alone, for its client "
          "credentials.",
          None, {"provider": "corp", "token_file": "/run/spire/crew.jwt"}),
), attribute="workloads")


def check_places(report: Report) -> None:
    runtime = report.made.get(("runtime",))
    if runtime is None:
        return
    run, state = runtime.places()
    if run == state or run in state.parents or state in run.parents:
        report.add(("runtime",), f"run ({run}) and state ({state}) lie in one another")
    for path, name in ((run, "run"), (state, "state")):
        if len(path.parts) < 3:
            report.add(("runtime", name), f"{path} is not a directory of Weir's own")
    if runtime.identity_user in (runtime.user, runtime.audit_user):
        report.add(("runtime", "identity_user"), "is another process' user too: the tokens of all logins are kept by "
                   "it alone")
    if runtime.vault_user in (runtime.user, runtime.audit_user, runtime.identity_user):
        report.add(("runtime", "vault_user"), "is another process' user too: what Vault gives is kept by it alone")
    if runtime.user == runtime.audit_user:
        report.add(("runtime", "audit_user"), "is the enforcer's user too: whoever breaks the enforcer could then "
                   "change the recording")


def check_workloads(report: Report) -> None:
    runtime = report.made.get(("runtime",))
    units: dict[str, str] = {}
    for path, workload in report.entries("workload"):
        if not workload.users and not workload.unit:
            report.add((*path, "users"), f"is missing or empty; {kinds.several(kinds.ACCOUNT).right} would be right")
        if not workload.unit:
            _check_seen(workload, path, report)
            continue
        if wrong := wrong_name(workload.unit, runtime.name if runtime else ""):
            report.add((*path, "unit"), wrong)
        if (first := units.setdefault(workload.unit, render_path(path))) != render_path(path):
            report.add((*path, "unit"), f"{workload.unit} is {first} already")


def _check_seen(workload: Workload, path: Place, report: Report) -> None:
    """What `weir run` would refuse whoever starts it; of a unit `weir adopt` says it."""
    for name in ("directories", "read_only"):
        for one in getattr(workload, name):
            if why := "" if one.startswith("~") else closed(one, one):
                report.add((*path, name), f"{one} {why}: name directories of the crew's own")


def check_egress(report: Report, taken: dict[tuple[str, int], str]) -> None:
    own, page, metrics = listeners(report), page_place(report), report.made.get(("metrics",))
    for path, entry in report.entries("egress"):
        for host in entry.addresses:
            if kinds.is_address(host) and is_metadata(host) and not entry.metadata:
                report.add((*path, "addresses"), f"{host} hands out this machine's own credentials, or is link-local; "
                           "metadata = true would permit it")
        for place in ((host, port) for host in entry.addresses for port in entry.ports):
            shown = f"{place[0]} port {place[1]}"
            if place in taken:
                report.add((*path, "addresses"), f"{shown} is target {taken[place]!r}, which never is an opaque flow")
            if place in own:
                report.add((*path, "addresses"), f"{shown} is the enforcer's own listener")
            if metrics is not None and place == metrics.listen:
                report.add((*path, "addresses"), f"{shown} is where Weir's figures are ([metrics] listen): no "
                           "place for crews")
            if place == page:
                report.add((*path, "addresses"), f"{shown} is where people answer what crews ask for ([web] url): no "
                           "place for crews")
