"""/etc/weir/weir.toml, groups.toml and policies/*.cedar beside it, as frozen structs.

SECTIONS is the one table of fields: the parser, `weir check`, the example file and the reference
(agent/settings/reference.py) all come from it.  Errors come all at once, each with file, line, field and what would be
right.
"""
from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from agent.contract.identity import ServiceIdentity
from agent.contract.locks import LONGEST
from agent.contract.messages import MOST
from agent.contract.names import is_metadata
from agent.contract.people import MOST as NAMES
from agent.contract.people import People
from agent.contract.target import ENFORCE, MODES
from agent.people.identity import LOCAL
from agent.settings import fields as kinds
from agent.settings.credential_table import POSTGRESQL, check_row
from agent.settings.fields import (
    Field,
    Problem,
    Report,
    Section,
    parse_section,
    parse_tables,
    render_path,
)
from agent.settings.notify_table import SLACK, WEBHOOK, SlackEntry, WebhookEntry, check_notify
from agent.settings.positions import Path as Place
from agent.settings.positions import locate
from agent.settings.target_table import TARGET, TargetEntry, check_targets
from agent.settings.vault_table import VAULT, VaultEntry, check_vaults
from agent.unit.adoptable import END, REPORT, RESTART, wrong_name
from agent.workload.launch import HOST, PRIVATE
from agent.workload.view import closed

DEFAULT_FILE: Final = "/etc/weir/weir.toml"
FILE_LIMIT: Final = 4 << 20           # bytes of one file
POLICY_FILES: Final = 1000
RESOLV_CONF: Final = "/etc/resolv.conf"
LISTEN: Final = "127.53.53.53"        # nobody's 127.0.0.53
MEMBERS: Final = ("user", "group", "workload", "subject", "weir")
DNS_PORT: Final = 53                  # resolv.conf(5) has no way to name another


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


class Web(msgspec.Struct, frozen=True):
    """The page; nothing is served without `url`."""

    url: str | None = None            # an origin, as browsers write it
    listen: tuple[str, int] | None = None     # None: RUN/web.sock
    tls_certificate: str | None = None
    tls_key: str | None = None
    idle: int = 1800                  # seconds
    operators: tuple[str, ...] = ()
    auditors: tuple[str, ...] = ()


class Metrics(msgspec.Struct, frozen=True):
    """For monitoring; nothing is served without `listen`."""

    listen: tuple[str, int] | None = None     # kinds.AT_SOCKET: RUN/metrics.sock

    @property
    def place(self) -> tuple[str, int] | None:
        """None: the Unix socket."""
        return None if self.listen == kinds.AT_SOCKET else self.listen


class EgressPolicy(msgspec.Struct, frozen=True):
    mode: str


class ProviderEntry(msgspec.Struct, frozen=True):
    """An identity provider; `agent.contract.identity.Provider` is what its process is told of it."""

    name: str
    issuer: str
    client_id: str
    client_secret_file: str | None
    audience: str | None              # of access tokens and token files; None: client_id
    algorithms: tuple[str, ...]
    ca: str | None
    scopes: tuple[str, ...]
    subject_claim: str
    groups_claim: tuple[str, ...]
    groups: dict[str, str]            # value of that claim -> Weir's group
    required: dict[str, str | bool | int]
    max_session: int                  # seconds
    refresh: int                      # seconds
    introspect: bool = False
    hosts: tuple[str, ...] = ()


class SamlEntry(msgspec.Struct, frozen=True):
    """As `ProviderEntry`; its contract is `SamlProvider`."""

    name: str
    issuer: str                       # its entity ID
    entity_id: str                    # Weir's
    metadata: str | None
    metadata_url: str | None
    ca: str | None
    key_file: str | None
    port: int | None                  # of the loopback listener; None: any
    subject_attribute: str | None     # None: the NameID
    groups_attribute: str
    groups: dict[str, str]            # value of that attribute -> Weir's group
    required: dict[str, str]
    max_session: int                  # seconds


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


class Config(msgspec.Struct, frozen=True):
    """Everything, checked.  `groups`: name -> members, and `people`, as groups.toml has them; `policies`: file name ->
    Cedar text; `roots`: target -> PEM, like `provider_roots`, `vault_roots` and, of webhooks and "" for Slack,
    `notify_roots`; `known_hosts`: SSH target -> lines by which it is verified; `metadata`: SAML provider -> its file,
    unread."""

    file: str
    runtime: Runtime
    enforcer: Enforcer
    dns: Dns
    nftables: Nftables
    ledger: Ledger
    recording: Recording
    egress_policy: EgressPolicy
    egress: tuple[EgressEntry, ...]
    workloads: tuple[Workload, ...]
    targets: tuple[TargetEntry, ...]
    providers: tuple[ProviderEntry, ...] = ()
    saml: tuple[SamlEntry, ...] = ()
    web: Web = Web()
    metrics: Metrics = Metrics()
    vaults: tuple[VaultEntry, ...] = ()
    slack: SlackEntry = SlackEntry()
    webhooks: tuple[WebhookEntry, ...] = ()
    groups: dict[str, tuple[str, ...]] = {}
    people: People = People()
    policies: dict[str, str] = {}
    roots: dict[str, str] = {}
    known_hosts: dict[str, str] = {}
    vault_roots: dict[str, str] = {}
    provider_roots: dict[str, str] = {}
    metadata: dict[str, bytes] = {}
    notify_roots: dict[str, str] = {}
    digests: dict[str, str] = {}      # every file that was read for it -> BLAKE2b-256 of the content, hex

    @property
    def digest(self) -> str:
        """Of the whole, hex: BLAKE2b-256 over a line "DIGEST  FILE" for each of `digests`, in the files' order."""
        lines = "".join(f"{digest}  {file}\n" for file, digest in sorted(self.digests.items()))
        return blake2b(lines.encode(errors="surrogateescape"), digest_size=32).hexdigest()

    @property
    def directory(self) -> Path:
        return Path(self.file).parent

    @property
    def own_directories(self) -> tuple[str, ...]:
        """Weir's, which no crew sees any of: another Weir's configuration, too."""
        return tuple(dict.fromkeys(map(str, (self.directory, Path(DEFAULT_FILE).parent, self.run, self.state))))

    def workload(self, name: str) -> Workload | None:
        return next((one for one in self.workloads if one.name == name), None)

    @property
    def logins(self) -> tuple[ProviderEntry | SamlEntry, ...]:
        """Whatever people log in at."""
        return self.providers + self.saml

    def provider(self, name: str) -> ProviderEntry | SamlEntry | None:
        return next((one for one in self.logins if one.name == name), None)

    @property
    def notifies(self) -> bool:
        """Whether holds are told elsewhere."""
        return self.slack.bot_token_file is not None or bool(self.webhooks)

    def webhook(self, name: str) -> WebhookEntry | None:
        return next((one for one in self.webhooks if one.name == name), None)

    def workload_of(self, unit: str) -> Workload | None:
        return next((one for one in self.workloads if one.unit == unit), None)

    @property
    def egress_modes(self) -> dict[str, str]:
        """Of the workloads whose egress is not enforced."""
        every = {one.name: one.egress or self.egress_policy.mode for one in self.workloads}
        return {name: mode for name, mode in every.items() if mode != ENFORCE}

    @property
    def run(self) -> Path:
        return self.runtime.places()[0]

    @property
    def state(self) -> Path:
        return self.runtime.places()[1]

    @property
    def journal(self) -> Path:
        return self.state / "journal"

    @property
    def recordings(self) -> Path:
        return self.state / "recording"

    @property
    def control(self) -> Path:
        return self.run / "control.sock"

    @property
    def web_socket(self) -> Path:
        return self.run / "web.sock"

    @property
    def metrics_socket(self) -> Path:
        return self.run / "metrics.sock"


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
WEB: Final = Section("web", Web, False, "The page at which approvers answer, in a browser; they log in by the "
    "[[provider]]s and [[saml_provider]]s.", (
    Field("url", kinds.PAGE, "Its address as browsers have it.  Providers send people back to `url`/login/NAME/back, "
          "and with SAML to `url`/saml/NAME/acs: they must know these.  Default: there is no page.", None,
          "https://weir.lab.example"),
    Field("listen", kinds.LISTEN, "`unix`: RUN/web.sock, for `ssh -L` or a server on this host that has the "
          "certificate; or an address, which is a loopback one where there is no TLS.", kinds.UNIX, "10.77.0.2:8443"),
    Field("tls_certificate", kinds.PATH, "Its certificate and those above it, PEM.", None, "/etc/weir/web.pem"),
    Field("tls_key", kinds.PATH, "Its key, PEM; root's, mode 0600.  A reload reads both again.", None,
          "/etc/weir/credentials/web.key"),
    Field("idle", kinds.duration("1m", "1d"), "A login at the page ends when nobody has used it for so long, and as "
          "each does after its provider's `max_session`.", "30m"),
    Field("operators", kinds.several(kinds.NAME), "Groups whose members may end sessions there.", [], ["dba"]),
    Field("auditors", kinds.several(kinds.NAME), "Groups whose members see there which sessions are open, and "
          "recordings.", [], ["audit"]),
))
METRICS: Final = Section("metrics", Metrics, False, "Figures of this Weir for Prometheus at /metrics, and for whoever "
    "asks whether it works /healthz and /readyz.", (
    Field("listen", kinds.METRICS, "`unix`: RUN/metrics.sock; or a loopback address, which every process of this host "
          "that is no crew's may read.  Default: nothing is served.", None, "127.0.0.1:9464"),
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
PROVIDER: Final = Section("provider", ProviderEntry, True, "An OpenID Connect provider: who may `weir login`, and "
    "whose tokens are believed.", (
    Field("name", kinds.PROVIDER_NAME, "Subjects of its are `NAME:` and the subject claim.", example="corp"),
    Field("issuer", kinds.ISSUER, "Its issuer identifier, as its tokens have it; its configuration is below it, at "
          "/.well-known/openid-configuration.", example="https://idp.lab.example/realms/corp"),
    Field("client_id", kinds.TEXT, "Weir's client there.", example="weir"),
    Field("client_secret_file", kinds.PATH, "File that holds the client's secret and nothing else; root's, mode 0600. "
          "A public client has none.", None, "/etc/weir/credentials/corp"),
    Field("audience", kinds.TEXT, "That access tokens and token files must be for.  Default: the client_id.", None,
          "weir"),
    Field("algorithms", kinds.several(kinds.choice(*kinds.ALGORITHMS), least=1), "Signature algorithms that count.",
          list(kinds.ALGORITHMS[:4])),
    Field("ca", kinds.PATH, "Roots for its certificate, PEM.  Default: the system's.", None, "/etc/weir/idp-ca.pem"),
    Field("hosts", kinds.several(kinds.HOST_PORT), "Other hosts than the issuer's that its configuration may send Weir "
          "to.", [], ["oauth2.lab.example", "keys.lab.example:8443"]),
    Field("scopes", kinds.several(kinds.SCOPE), "That are asked for; `openid` always is.", [], ["profile"]),
    Field("subject_claim", kinds.TEXT, "Claim that names the subject; it must never be given to another person.",
          "sub"),
    Field("groups_claim", kinds.CLAIM_PATH, "Claim that lists groups or roles; inner ones after a dot.", "groups",
          "realm_access.roles"),
    Field("groups", kinds.GROUPS, "As `[provider.groups]`: value of that claim, and the group of Weir's that it puts "
          "the subject into.  Other values count for nothing.", {}, {"dba": "dba", "/staff/data": "data"}),
    Field("required", kinds.REQUIRED_CLAIMS, "As `[provider.required]`: claims that must be there, with this very "
          "value; `true` for a text or number is not enough.", {}, {"email_verified": True}),
    Field("max_session", kinds.duration("1m", "30d"), "A login ends after this, whatever the provider says.", "12h"),
    Field("refresh", kinds.duration("1s", "1h"), "How often a login is refreshed there, at least: groups are read "
          "again, and who was locked out there is out here.", "1m"),
    Field("introspect", kinds.BOOLEAN, "Ask there as often (RFC 7662) whether a token that is not refreshed, that of a "
          "`token_file`, still holds.  Needs `client_secret_file`.", False),
), attribute="providers")
SAML: Final = Section("saml_provider", SamlEntry, True, "A SAML 2.0 identity provider: who may `weir login`, by a "
    "browser on this machine.", (
    Field("name", kinds.PROVIDER_NAME, "Subjects of its are `NAME:` and their name there.", example="sso"),
    Field("issuer", kinds.ENTITY, "Its entity ID, as its metadata and its answers have it.",
          example="https://idp.lab.example/saml"),
    Field("entity_id", kinds.ENTITY, "Weir's own there: the audience of its answers.", example="urn:weir:lab"),
    Field("metadata", kinds.PATH, "File with its metadata, one EntityDescriptor; root's, and nobody else writes it.  A "
          "reload reads it again.", None, "/etc/weir/sso.xml"),
    Field("metadata_url", kinds.HTTPS, "Instead of `metadata`: where it is, read again after an hour.", None,
          "https://idp.lab.example/metadata.xml", instead=True),
    Field("ca", kinds.PATH, "Roots for the certificate of `metadata_url`, PEM.  Default: the system's.", None,
          "/etc/weir/idp-ca.pem", instead=True),
    Field("key_file", kinds.PATH, "Weir's RSA key, PEM; root's, mode 0600.  With it requests are signed, and encrypted "
          "assertions read.", None, "/etc/weir/credentials/saml.pem"),
    Field("port", kinds.HIGH_PORT, "Port of the address that answers are posted to, http://127.0.0.1:PORT/acs/NAME, "
          "for a provider that must know it.  Default: any that is free.", None, 15439),
    Field("subject_attribute", kinds.TEXT, "Attribute that names the subject, never given to another person.  Default: "
          "the NameID, where it is not transient.", None, "uid"),
    Field("groups_attribute", kinds.TEXT, "Attribute that lists groups or roles.", "groups", "Role"),
    Field("groups", kinds.GROUPS, "As `[saml_provider.groups]`: value of that attribute, and the group of Weir's that "
          "it puts the subject into.  Other values count for nothing.", {}, {"dba": "dba", "/staff/data": "data"}),
    Field("required", kinds.REQUIRED_ATTRIBUTES, "As `[saml_provider.required]`: attributes that must be there, with "
          "this one value.", {}, {"department": "data"}),
    Field("max_session", kinds.duration("1m", "30d"), "A login ends after this, or when the provider's answer says, "
          "whichever is sooner: SAML has no refresh.", "12h"),
), attribute="saml")
SINGLE: Final = (RUNTIME, ENFORCER, DNS, NFTABLES, LEDGER, RECORDING, WEB, METRICS, EGRESS_POLICY, SLACK)
MANY: Final = (EGRESS, PROVIDER, SAML, VAULT, WEBHOOK, WORKLOAD, TARGET)
SECTIONS: Final = (*SINGLE, *MANY)
BLOCK: Final = (RUNTIME, ENFORCER, DNS, NFTABLES)      # what probes and rules are made by
_HOMES: Final = kinds.places(SECTIONS)


def parse_config(text: str, file: str) -> tuple[Config | None, Report]:
    """Pure: the structs and everything that is wrong within this one text.  None where a part could not be built."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as wrong:
        return None, Report(file, {}, [_syntax(file, str(wrong), text)])
    return _build(raw, Report(file, locate(text), homes=_HOMES))


def parse_block(text: str, file: str) -> tuple[Config, tuple[Problem, ...]]:
    """Pure: what the block alone is made by.  A section with a mistake is as if it was not there; nothing else of the
    text matters."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as wrong:
        raw, problems = {}, [_syntax(file, str(wrong), text)]
    else:
        problems = []
    right: dict[str, Any] = {}
    for name in {section.name for section in BLOCK}.intersection(raw):
        _, report = _build({name: raw[name]}, Report(file, locate(text), homes=_HOMES))
        problems += report.problems
        right |= {} if report.problems else {name: raw[name]}
    config, _ = _build(right, Report(file, {}))
    assert config is not None
    return config, tuple(problems)


def _build(raw: Mapping[str, Any], report: Report) -> tuple[Config | None, Report]:
    kinds.check_names(raw, {section.name: section.written() for section in SECTIONS}, (), report)
    values: dict[str, Any] = {
        section.name: parse_section(section, raw.get(section.name, {}), (section.name,), report) for section in SINGLE}
    for section in MANY:
        values[section.attribute] = parse_tables(section, raw, (), report)
    _check_names(report)
    _check_workloads(report)
    _check_identities(report)
    _check_saml(report)
    check_notify(report, [one.name for name in ("provider", "saml_provider") for _, one in report.entries(name)])
    _check_web(report)
    _check_places(report)
    _check_egress(report, check_targets(report, _listeners(report)))
    for path, row in report.entries("target", "credential"):
        target = report.made.get(path[:2])
        check_row(row, report.protocols.get(path[:2], POSTGRESQL), target is not None and target.upstream is not None,
                  path, report)
    check_vaults(report)
    return None if report.problems else Config(file=report.file, **values), report


def _syntax(file: str, said: str, text: str) -> Problem:
    """tomllib says "... (at line 3, column 7)" or "(at end of document)"."""
    message, _, place = said.partition(" (at ")
    found = re.match(r"line (\d+), column (\d+)", place)
    line, column = (int(found[1]), int(found[2])) if found else (0, 0)
    value = "".join(text.split("\n")[line - 1:line])[column - 1:] if line else ""
    unquoted = message == "Invalid value" and re.match(r"[A-Za-z_/~*.]", value)
    twice = message == "Cannot overwrite a value"
    return Problem(file, line, "", f"not TOML: {message[:1].lower()}{message[1:]}"
                   + (": a text stands in quotes" if unquoted else "")
                   + (": it stands in this section already; is the [[...]] above it still a comment?" if twice else "")
                   + (" at the end of the file" if place.startswith("end") else ""))


def _check_names(report: Report) -> None:
    seen: dict[tuple[str, str], str] = {}
    for path, entry in [one for section in MANY for one in report.entries(section.name)]:
        # `weir login --provider` has one name for both.
        key, shown = (str(path[0]).removeprefix("saml_"), entry.name), render_path(path)
        if (first := seen.setdefault(key, shown)) != shown:
            report.add((*path, "name"), f"{entry.name!r} is also the name of {first}")


def _check_workloads(report: Report) -> None:
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


def _check_identities(report: Report) -> None:
    providers = {one.name: one for _, one in report.entries("provider")}
    by_saml = {one.name for _, one in report.entries("saml_provider")}
    # Of these nobody knows the names.
    wrong = report.wrong("provider") or report.wrong("saml_provider")
    for path, one in report.entries("provider"):
        if one.introspect and one.client_secret_file is None:
            report.add((*path, "introspect"), "nobody is answered there who does not say who it is: name "
                       "`client_secret_file` too")
    for path, workload in report.entries("workload"):
        if workload.person and workload.unit:
            report.add((*path, "person"), "nobody starts a unit: leave `unit` or `person` out")
        if workload.person and workload.identity:
            report.add((*path, "person"), "it has an `identity` of its own: leave one of them out")
        if workload.person and not providers and not by_saml and not wrong:
            report.add((*path, "person"), "nobody can log in: there is no [[provider]] or [[saml_provider]]")
        if workload.identity is None or wrong:
            continue
        provider = providers.get(workload.identity.provider)
        if workload.identity.provider in by_saml:
            report.add((*path, "identity"), f"{workload.identity.provider!r} is a [[saml_provider]], which knows "
                       "people alone; a [[provider]] would be right")
        elif provider is None:
            known = ", ".join(providers) or "none"
            report.add((*path, "identity"), f"there is no [[provider]] {workload.identity.provider!r}; there is: "
                       f"{known}")
        elif workload.identity.token_file is None and provider.client_secret_file is None:
            report.add((*path, "identity"), f"names no token_file, and provider {provider.name!r} no "
                       "client_secret_file: one of them would be right")


def _check_saml(report: Report) -> None:
    enforcer = report.made.get(("enforcer",))
    for path, one in report.entries("saml_provider"):
        if (one.metadata is None) == (one.metadata_url is None):
            there = "both are there" if one.metadata else "none is there"
            report.add((*path, "metadata"), f"{there}; one of `metadata`, a file, and `metadata_url`, an address, "
                       "would be right")
        if one.ca and one.metadata_url is None:
            report.add((*path, "ca"), "is not used without `metadata_url`: leave it out")
        if enforcer and one.port == enforcer.port:
            report.add((*path, "port"), f"{one.port} is the enforcer's own; another would be right")


def _check_web(report: Report) -> None:
    web, runtime = report.made.get(("web",)), report.made.get(("runtime",))
    if web is None:
        return
    if web.url is None and web != Web(idle=web.idle, operators=web.operators, auditors=web.auditors):
        report.add(("web", "url"), f"is missing, and without it there is no page; {kinds.PAGE.right} would be right")
    if (web.tls_certificate is None) != (web.tls_key is None):
        there, missing = ("tls_key", "tls_certificate") if web.tls_key else ("tls_certificate", "tls_key")
        report.add(("web", there), f"needs `{missing}`")
    if web.listen is None and web.tls_key:
        report.add(("web", "tls_key"), "is not used at a Unix socket: whoever stands before it has the certificate")
    if web.listen is not None and not web.tls_key and not kinds.is_loopback(web.listen[0]):
        report.add(("web", "listen"), "is open to others than this machine, and without TLS: name `tls_certificate` "
                   "and `tls_key`, or a loopback address")
    if web.url and web.url.startswith("http:") and web.tls_key:
        report.add(("web", "url"), "is http, and there is a certificate: https would be right")
    if web.listen in _listeners(report):
        report.add(("web", "listen"), "is the enforcer's own listener")
    metrics = report.made.get(("metrics",))
    page = (web.listen,) if web.url and web.listen else ()
    if metrics is not None and metrics.listen in (*_listeners(report), *page):
        report.add(("metrics", "listen"), "is another listener of Weir's; another port would be right")
    others = (runtime.user, runtime.audit_user, runtime.identity_user, runtime.notify_user) if runtime else ()
    if (web.url or (metrics and metrics.listen)) and runtime and runtime.web_user in others:
        report.add(("runtime", "web_user"), "is another process' user too: whoever breaks the page would have what "
                   "that one has")


def _listeners(report: Report) -> set[tuple[str, int]]:
    enforcer = report.made.get(("enforcer",))
    return {(host, enforcer.port) for host in ("127.0.0.1", "::1", "localhost")} if enforcer else set()


def _check_egress(report: Report, taken: dict[tuple[str, int], str]) -> None:
    own, page, metrics = _listeners(report), _page_place(report), report.made.get(("metrics",))
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


def _page_place(report: Report) -> tuple[str, int] | None:
    """Host and port of the page."""
    web = report.made.get(("web",))
    if web is None or web.url is None:
        return None
    found = urlsplit(web.url)
    return found.hostname or "", found.port or (443 if found.scheme == "https" else 80)


def _check_places(report: Report) -> None:
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


class Groups(msgspec.Struct, frozen=True):
    """groups.toml."""

    groups: dict[str, tuple[str, ...]] = {}      # name -> members
    people: People = People()


def parse_groups(text: str, file: str) -> tuple[Groups, Report]:
    """groups.toml: `[groups]`, each a name and a list of members, each of one of MEMBERS; `[people]`, each a name and a
    list of subjects."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as wrong:
        return Groups(), Report(file, {}, [_syntax(file, str(wrong), text)])
    report = Report(file, locate(text))
    kinds.check_names(raw, {"groups": "[groups]", "people": "[people]"}, (), report)
    groups = {name: _members(name, value, report) for name, value in _of_groups(raw, "groups", report).items()}
    _check_nesting(groups, report)
    people = {name: _names_of(name, value, report) for name, value in _of_groups(raw, "people", report).items()}
    _check_people(people, report)
    return Groups(groups, People(people)), report


def _of_groups(raw: Mapping[str, Any], table: str, report: Report) -> dict[str, Any]:
    found = raw.get(table, {})
    if not isinstance(found, dict):
        report.add((table,), f"is a table: write [{table}] and the {table} below")
        return {}
    if len(found) > MOST:
        report.add((table,), f"has {len(found)} {table}; {MOST} at most")
    return found


def _names_of(person: str, value: Any, report: Report) -> tuple[str, ...]:
    right = 'a list like ["local:ada", "corp:ada@example.org"] would be right'
    try:
        kinds.NAME.parse(person)
        names: tuple[str, ...] = kinds.several(kinds.TEXT).parse(value)
    except ValueError as wrong:
        report.add(("people", person), f"{wrong}; {right}")
        return ()
    if len(names) > NAMES:
        report.add(("people", person), f"has {len(names)} names; {NAMES} at most")
        return ()
    for name in names:
        provider, colon, who = name.partition(":")
        if not provider or not colon or not who or len(name) > LONGEST:
            report.add(("people", person), f"{name!r} is no name of a person; local:USER or PROVIDER:SUBJECT, of "
                       f"{LONGEST} characters at most, would be right")
    return names


def _check_people(people: Mapping[str, tuple[str, ...]], report: Report) -> None:
    """No name is two people's."""
    seen: dict[str, str] = {}
    for person, names in people.items():
        for name in names:
            if (first := seen.setdefault(name, person)) != person:
                report.add(("people", person), f"{name!r} is a name of {first!r} already; one list with all of the "
                           "person's names would be right")


def check_providers_of(people: People, config: Config, report: Report) -> None:
    """A name of a provider that is not there would be nobody's, and somebody could then answer what they asked."""
    known = (LOCAL, *(one.name for one in config.logins))
    for person, names in people.everybody.items():
        for name in names:
            provider, colon, user = name.partition(":")
            if colon and provider not in known:
                hint = f"; {LOCAL}:{user} is the user of this host" if provider == "user" else ""
                report.add(("people", person), f"{name!r} names no provider; there is: {', '.join(known)}{hint}")


def _check_nesting(groups: Mapping[str, tuple[str, ...]], report: Report) -> None:
    """Every inner group is there, and none is in itself."""
    inner = {name: [one.removeprefix("weir:") for one in members if one.startswith("weir:")]
             for name, members in groups.items()}
    for name, found in inner.items():
        unknown = [one for one in found if one not in groups]
        for one in unknown:
            report.add(("groups", name), f"'weir:{one}' names no group of this file")
        if not unknown and name in _reached(name, inner):
            report.add(("groups", name), "is a member of itself: leave out one of the `weir:` members that lead there")


def _reached(start: str, inner: Mapping[str, list[str]]) -> set[str]:
    found: set[str] = set()
    waiting = list(inner[start])
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            waiting += inner.get(name, [])
    return found


def _members(name: str, value: Any, report: Report) -> tuple[str, ...]:
    try:
        kinds.NAME.parse(name)
        members: tuple[str, ...] = kinds.several(kinds.TEXT).parse(value)
    except ValueError as wrong:
        report.add(("groups", name), f"{wrong}; a list like [\"user:ada\", \"group:staff\", \"workload:crew\"] would "
                   "be right")
        return ()
    for member in members:
        kind, colon, who = member.partition(":")
        if kind not in MEMBERS or not colon or not who or (kind == "subject" and ":" not in who):
            report.add(("groups", name), f"{member!r} is no member; user:NAME, group:UNIXGROUP, workload:NAME, "
                       "subject:PROVIDER:NAME or weir:GROUP would be right")
    return members


def needs_restart(old: Config, new: Config) -> list[str]:
    """Fields that differ and that a reload cannot change."""
    changed = []
    for section in SINGLE:
        before, after = getattr(old, section.name), getattr(new, section.name)
        changed += [f"{section.name}.{one.name}" for one in section.fields
                    if one.restart and getattr(before, one.name) != getattr(after, one.name)]
    return changed


def nameserver(path: str = RESOLV_CONF) -> tuple[str, int] | None:
    """The first of resolv.conf(5) that is an address."""
    try:
        lines = Path(path).read_text(errors="replace")[:1 << 16].splitlines()
    except OSError:
        return None
    for words in (line.split() for line in lines):
        if len(words) > 1 and words[0] == "nameserver":
            try:
                return kinds.RESOLVER.parse(words[1])  # type: ignore[no-any-return]
            except ValueError:
                continue
    return None

