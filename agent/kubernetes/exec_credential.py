"""Pure: what a helper of a cluster prints: as Weir's own helpers, or as kubectl's exec plugins do.

Source: k8s.io/client-go, pkg/apis/clientauthentication/v1, ExecCredential.
"""
from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec

from agent.contract.credential import Credential
from agent.credential.secrets import PEM_LIMIT, SecretError
from agent.kubernetes.login import TOKEN_LIMIT

_GROUP: Final = "client.authentication.k8s.io"
# What a plugin is told; $KUBERNETES_EXEC_INFO, which those that want to know the version need.
VARIABLES: Final = {"KUBERNETES_EXEC_INFO": '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1",'
                                            '"spec":{"interactive":false}}'}

_Token = Annotated[str, msgspec.Meta(max_length=TOKEN_LIMIT)]
_Pem = Annotated[str, msgspec.Meta(max_length=PEM_LIMIT)]


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    expiration_timestamp: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    token: _Token | None = None
    client_certificate_data: _Pem | None = None
    client_key_data: _Pem | None = None


class _Plugin(msgspec.Struct, frozen=True):
    api_version: Literal["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"] = msgspec.field(
        name="apiVersion")
    kind: Literal["ExecCredential"]
    status: _Status


class _Own(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    user: Annotated[str, msgspec.Meta(max_length=256)] = ""
    token: _Token = ""
    certificate: _Pem = ""
    key: _Pem = ""
    expires: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class _Kind(msgspec.Struct, frozen=True):
    kind: str | None = None


def parse_exec(output: bytes, user: str, now: float) -> tuple[Credential, float]:
    """The credential, and when it expires (Unix seconds, 0: not said).  `user`: the row's, "" where it has none.
    Raises SecretError, without a word of the output."""
    try:
        plugin = msgspec.json.decode(output, type=_Kind).kind is not None
        said = _of_plugin(msgspec.json.decode(output, type=_Plugin)) if plugin else msgspec.json.decode(
            output, type=_Own)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise SecretError(f"printed something else than an ExecCredential of {_GROUP}/v1 or the JSON object that a "
                          "helper prints") from None
    if user and said.user not in ("", user):
        raise SecretError("printed another user than the row names")
    if bool(said.certificate) != bool(said.key) or not (said.token or said.certificate):
        raise SecretError("printed neither a token nor a certificate with its key")
    expires = said.expires.timestamp() if said.expires else 0.0
    if said.expires and expires <= now:
        raise SecretError("printed a credential that has expired")
    found = Credential(said.user or user, certificate=said.certificate, key=said.key, token=said.token,
                       expires=int(expires))
    return found, expires


def _of_plugin(said: _Plugin) -> _Own:
    status = said.status
    return _Own("", status.token or "", status.client_certificate_data or "", status.client_key_data or "",
                status.expiration_timestamp)
