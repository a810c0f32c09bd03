"""What of a body is recorded and shown to approvers: nothing that has a label, whoever may see it."""
from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from agent.contract.target import Target
from enforcer.policy.detectors import labels_of
from enforcer.policy.masks import REDACTED
from enforcer.protocols.kubernetes.info import Info
from enforcer.protocols.kubernetes.masking.detecting import Detecting
from enforcer.protocols.kubernetes.masking.labels import is_config, is_secret, labels_of_answer
from enforcer.protocols.kubernetes.masking.objects import ObjectMask
from enforcer.protocols.kubernetes.masking.places import mask_all, mask_place
from enforcer.protocols.kubernetes.masking.pointers import around, is_told, parse_pointer, rests, within

# Fields of a Secret, of a list of them, and of DeleteOptions.
_OF_SECRETS: Final = frozenset((
    "apiVersion", "kind", "metadata", "type", "immutable", "data", "stringData", "items", "dryRun", "preconditions",
    "propagationPolicy", "gracePeriodSeconds", "orphanDependents"))


def redact_body(value: Any, info: Info, target: Target) -> Any:
    """A body of a request, or an object of an answer; what was given stays as it is."""
    every = frozenset(labels_of_answer(info, target))
    mask = ObjectMask(info, target, every, renews=False)
    if isinstance(value, list):
        redacted: Any = [_operation(one, mask) for one in _copied(value)]
    elif isinstance(value, dict):
        redacted = mask.mask(_copied(_known(value) if is_secret(info) else value)) if every else value
    else:
        redacted = value
    detected = frozenset(labels_of(target.detectors))
    return _looked_through(redacted, Detecting(detected), is_config(info)) if detected else redacted


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(one) if isinstance(one, dict | list) else one for key, one in value.items()}
    return [_copied(one) if isinstance(one, dict | list) else one for one in value]


def _looked_through(value: Any, look: Detecting, config: bool) -> Any:
    """`config`: in its data the mask has looked already, and there may be much of it."""
    if not (config and isinstance(value, dict) and isinstance(value.get("data"), dict)):
        return _detect(value, look)
    return {key: one if key == "data" else _detect(one, look) for key, one in value.items()}


def _known(value: dict[str, Any]) -> dict[str, Any]:
    """Of a Secret, or what is done to one: a name that it does not have is a misspelled one, and what stands there is
    meant for where it has values."""
    return {name: one if name in _OF_SECRETS or not isinstance(one, str | dict | list) else REDACTED
            for name, one in value.items()}


def _operation(one: Any, mask: ObjectMask) -> Any:
    """Of a JSON patch."""
    if not isinstance(one, dict) or "value" not in one:
        return one
    pointer, value = parse_pointer(one.get("path")), one["value"]
    if not is_told(pointer):
        return {**one, "value": REDACTED}
    if (whole := around(pointer, value)) is not None:
        value = within(pointer, mask.mask_one(whole))
    for rule in mask.rules({}) if pointer else ():
        for rest in rests(pointer, rule.path):
            if rest:
                mask_place(value, replace(rule, path=rest))
            else:
                value = mask_all(value, rule)
    return {**one, "value": value}


def _detect(value: Any, look: Detecting) -> Any:
    if isinstance(value, dict):
        return {key: _detect(one, look) for key, one in value.items()}
    if isinstance(value, list):
        return [_detect(one, look) for one in value]
    return look.text(value) if isinstance(value, str) else value
