"""Whom a request asks to act as.  Pure.

Source: k8s.io/apiserver, pkg/endpoints/filters/impersonation.go; k8s.io/api authentication/v1, ImpersonateUserHeader.
"""
from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from enforcer.http.messages import Headers
from enforcer.protocols.kubernetes.info import Unclear

PREFIX: Final = b"impersonate-"       # of the headers' names
_EXTRA: Final = b"extra-"
_KINDS: Final = {b"user": "user", b"uid": "uid", b"group": "group"}
_ENCODED: Final = re.compile(rb"(?:[!-$&-~]|%[0-9A-Fa-f]{2})+")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f]")


def identities(headers: Headers) -> tuple[str, ...]:
    """ "user ada", "group ops", "uid 7", "extra scopes=view": each once.  Unclear where a server may read others."""
    found = [_identity(name.removeprefix(PREFIX), said) for name, said in headers if name.startswith(PREFIX)]
    kinds = [one.partition(" ")[0] for one in found]
    if kinds.count("user") > 1 or kinds.count("uid") > 1:
        raise Unclear("several users to impersonate")
    if found and "user" not in kinds:
        raise Unclear("groups, a UID or extras to impersonate without a user")
    return tuple(dict.fromkeys(found))


def _identity(name: bytes, said: bytes) -> str:
    who = _text(said)
    if name.startswith(_EXTRA):
        return f"extra {_key(name.removeprefix(_EXTRA))}={who}"
    if name not in _KINDS:
        raise Unclear("a header Impersonate-... that is not known")
    return f"{_KINDS[name]} {who}"


def _key(name: bytes) -> str:
    """Percent-encoded, after it was put in lower case."""
    if not _ENCODED.fullmatch(name):
        raise Unclear("a header Impersonate-Extra-... that cannot be read")
    key = _text(unquote_to_bytes(name.lower()))
    if "=" in key or "%" in key:
        raise Unclear("a header Impersonate-Extra-... that cannot be read")
    return key


def _text(data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise Unclear("whom to impersonate is not UTF-8") from None
    if not text or text != text.strip() or _CONTROL.search(text):
        raise Unclear("whom to impersonate is nobody")
    return text
