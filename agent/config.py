"""/etc/weir/weir.toml, groups.toml and policies/*.cedar beside it, as frozen structs.

SECTIONS is the one table of fields: the parser, `weir check`, the example file and the reference
(agent/settings/reference.py) all come from it.  Errors come all at once, each with file, line, field and what would be
right.
"""
from __future__ import annotations

import tomllib
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import msgspec

from agent.contract.people import People
from agent.contract.target import ENFORCE
from agent.settings import fields as kinds
from agent.settings.credential_table import POSTGRESQL, check_row
from agent.settings.fields import Problem, Report, parse_section, parse_tables, render_path
from agent.settings.host_table import (
    DNS,
    EGRESS,
    EGRESS_POLICY,
    ENFORCER,
    LEDGER,
    NFTABLES,
    RECORDING,
    RUNTIME,
    WORKLOAD,
    Dns,
    EgressEntry,
    EgressPolicy,
    Enforcer,
    Ledger,
    Nftables,
    Recording,
    Runtime,
    Workload,
    check_egress,
    check_places,
    check_workloads,
)
from agent.settings.identity_table import (
    PROVIDER,
    SAML,
    ProviderEntry,
    SamlEntry,
    check_identities,
    check_saml,
)
from agent.settings.notify_table import SLACK, WEBHOOK, SlackEntry, WebhookEntry, check_notify
from agent.settings.page_table import METRICS, WEB, Metrics, Web, check_web, listeners
from agent.settings.positions import locate
from agent.settings.syntax import syntax_problem
from agent.settings.target_table import TARGET, TargetEntry, check_targets
from agent.settings.vault_table import VAULT, VaultEntry, check_vaults

DEFAULT_FILE: Final = "/etc/weir/weir.toml"
FILE_LIMIT: Final = 4 << 20           # bytes of one file
POLICY_FILES: Final = 1000
RESOLV_CONF: Final = "/etc/resolv.conf"
DNS_PORT: Final = 53                  # resolv.conf(5) has no way to name another


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
        return None, Report(file, {}, [syntax_problem(file, str(wrong), text)])
    return _build(raw, Report(file, locate(text), homes=_HOMES))


def parse_block(text: str, file: str) -> tuple[Config, tuple[Problem, ...]]:
    """Pure: what the block alone is made by.  A section with a mistake is as if it was not there; nothing else of the
    text matters."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as wrong:
        raw, problems = {}, [syntax_problem(file, str(wrong), text)]
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
    check_workloads(report)
    check_identities(report)
    check_saml(report)
    check_notify(report, [one.name for name in ("provider", "saml_provider") for _, one in report.entries(name)])
    check_web(report)
    check_places(report)
    check_egress(report, check_targets(report, listeners(report)))
    for path, row in report.entries("target", "credential"):
        target = report.made.get(path[:2])
        check_row(row, report.protocols.get(path[:2], POSTGRESQL), target is not None and target.upstream is not None,
                  path, report)
    check_vaults(report)
    return None if report.problems else Config(file=report.file, **values), report


def _check_names(report: Report) -> None:
    seen: dict[tuple[str, str], str] = {}
    for path, entry in [one for section in MANY for one in report.entries(section.name)]:
        # `weir login --provider` has one name for both.
        key, shown = (str(path[0]).removeprefix("saml_"), entry.name), render_path(path)
        if (first := seen.setdefault(key, shown)) != shown:
            report.add((*path, "name"), f"{entry.name!r} is also the name of {first}")


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

