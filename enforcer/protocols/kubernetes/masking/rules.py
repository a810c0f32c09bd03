"""What is masked at which places of an object."""
from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from agent.contract.target import FieldLabel, Target
from enforcer.policy.detectors import labels_of
from enforcer.policy.masks import REDACTED, mask_text
from enforcer.protocols.kubernetes.info import Info
from enforcer.protocols.kubernetes.masking.detecting import Detecting
from enforcer.protocols.kubernetes.masking.labels import HELM, SECRET, TOKEN, fields_of, is_config, is_secret, is_token

Path = tuple[str, ...]
Mask = Callable[[bytes], bytes | None]

LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
# Annotations in which other programs keep what they applied, in forms of their own.
REPEATS: Final = frozenset((
    "objectset.rio.cattle.io/applied", "kapp.k14s.io/original", "kapp.k14s.io/original-diff",
    "kopf.zalando.org/last-handled-configuration", "banzaicloud.com/last-applied",
    "config.k8s.io/last-applied-configuration", "pulumi.com/lastAppliedConfiguration",
    "operator.tigera.io/last-applied", "control-plane.alpha.kubernetes.io/last-applied"))
_HELM_TYPE: Final = "helm.sh/release.v1"
_TOKEN_TYPE: Final = "kubernetes.io/service-account-token"     # noqa: S105
TYPES: Final = (_HELM_TYPE, _TOKEN_TYPE)       # of Secrets that have other labels
ACCOUNT: Final = "kubernetes.io/service-account.name"          # annotation of a Secret that has a token


@dataclass(frozen=True, slots=True)
class Rule:
    """`encoded`: the value is base64 in JSON, bytes in protobuf; `mask` sees and gives what it stands for, None is
    null."""

    label: str
    path: Path
    mask: Mask
    encoded: bool = False
    kind: str = "redact"              # as in FieldLabel
    named: bool = False               # by the target's settings
    same: str | None = field(init=False)       # what every text becomes in JSON, None where they differ

    def __post_init__(self) -> None:
        kind, _, text = self.kind.partition(":")
        shown = REDACTED if kind == "redact" else text if kind == "constant" else None
        if shown is not None and self.encoded:
            shown = b64encode(shown.encode()).decode()
        object.__setattr__(self, "same", shown)


def redact(value: bytes) -> bytes:
    return REDACTED.encode()


def rules_of(info: Info, target: Target) -> tuple[Rule, ...]:
    """All that may apply, whatever is masked."""
    named = tuple(_field_rule(one, info) for one in fields_of(info, target))
    if is_secret(info):
        return *named, Rule(SECRET, ("data", "*"), redact, True), Rule(SECRET, ("stringData", "*"), redact)
    if is_token(info):
        return *named, Rule(TOKEN, ("status", "token"), redact), Rule(TOKEN, ("spec", "token"), redact)
    if is_config(info):
        return *named, *_detecting(frozenset(labels_of(target.detectors)))
    return named


def active_rules(
    info: Info, target: Target, masked: frozenset[str], kind: str = "", account: bool = False,
) -> tuple[Rule, ...]:
    """Those that are masked in an object; of a Secret `kind` is its `type`, `account`: it is a service account's."""
    found = []
    for rule in rules_of(info, target):
        label = HELM if kind == _HELM_TYPE and is_secret(info) and not rule.named else rule.label
        if label in masked or label == TOKEN:
            found.append(rule)
        elif label.startswith("detect:"):
            if shown := masked & frozenset(labels_of(target.detectors)):
                found.append(Rule(label, rule.path, Detecting(shown), rule.encoded, "detect"))
    if is_secret(info) and (account or kind == _TOKEN_TYPE):
        found += [Rule(TOKEN, (name, "token"), redact, name == "data") for name in ("data", "stringData")]
    return tuple(found)


def _field_rule(label: FieldLabel, info: Info) -> Rule:
    encoded = label.path[:1] == ("binaryData",) or (is_secret(info) and label.path[:1] == ("data",))
    mask = partial(mask_text, label.mask)
    return Rule(label.label, label.path, mask, encoded and len(label.path) > 1, label.mask, True)


def _detecting(labels: frozenset[str]) -> tuple[Rule, ...]:
    if not labels:
        return ()
    work = Detecting(labels)
    return Rule("detect:", ("data", "*"), work, kind="detect"), Rule(
        "detect:", ("binaryData", "*"), work, True, "detect")
