"""Which labels an answer may carry, by what was asked for."""
from __future__ import annotations

from typing import Final

from agent.contract.target import FieldLabel, Target
from enforcer.policy.detectors import labels_of
from enforcer.protocols.kubernetes.info import Info

SECRET: Final = "secret"              # noqa: S105 - values of Secrets,
HELM: Final = "secret.helm"           # those in which Helm keeps its releases,
TOKEN: Final = "secret.token"         # noqa: S105 - and tokens of service accounts, which nobody is shown
LOGS: Final = ("pods", "log")
COMMANDS: Final = (("pods", "exec"), ("pods", "attach"))


def labels_of_answer(info: Info, target: Target) -> tuple[str, ...]:
    """Each once."""
    if not _holds_objects(info):
        return ()
    found = [one.label for one in fields_of(info, target)]
    if is_secret(info):
        found += [SECRET, HELM, TOKEN]
    if is_token(info):
        found.append(TOKEN)
    if is_config(info) or is_log(info) or is_command(info):
        found += labels_of(target.detectors)
    return tuple(dict.fromkeys(found))


def never_shown(info: Info) -> bool:
    """There may be a token in the answer, whatever policy says."""
    return _holds_objects(info) and (is_secret(info) or is_token(info))


def fields_of(info: Info, target: Target) -> list[FieldLabel]:
    return [one for one in target.field_labels if (one.group, one.resource) == (info.group, info.resource)]


def is_secret(info: Info) -> bool:
    return (info.group, info.resource) == ("", "secrets")


def is_token(info: Info) -> bool:
    """TokenRequest, and TokenReview, which repeats what it was sent."""
    return (info.group, info.resource, info.subresource) == ("", "serviceaccounts", "token") or (
        info.group, info.resource) == ("authentication.k8s.io", "tokenreviews")


def is_config(info: Info) -> bool:
    return (info.group, info.resource) == ("", "configmaps")


def is_log(info: Info) -> bool:
    return info.group == "" and (info.resource, info.subresource) == LOGS


def is_command(info: Info) -> bool:
    """What runs in a container prints, once the protocol has changed; before, a server says why it has not."""
    return info.group == "" and (info.resource, info.subresource) in COMMANDS


def _holds_objects(info: Info) -> bool:
    return info.is_resource and info.verb != "proxy" and info.subresource != "proxy"
