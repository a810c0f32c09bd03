"""Pure: whether what a [[target.credential]] gave can log in by SSH, before it is handed on.  No server is asked."""
from __future__ import annotations

from typing import Final

import msgspec

from agent.contract.credential import Credential
from agent.ssh.keys import KeyWrong, belongs, parse_certificate, parse_private, render_private

_FOR_EVER: Final = (1 << 64) - 1      # PROTOCOL.certkeys


def checked(found: Credential, now: float) -> Credential:
    """Its key in OpenSSH's format, and its end where a certificate has one.  Raises KeyWrong, without a word of it."""
    if not found.key:
        if found.certificate:
            raise KeyWrong("its certificate has no key")
        return found
    try:
        key = parse_private(found.key.encode())
    except KeyWrong as wrong:
        raise KeyWrong(f"its key {wrong}") from None
    made = msgspec.structs.replace(found, key=render_private(key))
    if not found.certificate:
        return made
    try:
        certificate = parse_certificate(found.certificate)
    except KeyWrong as wrong:
        raise KeyWrong(f"its certificate {wrong}") from None
    if not belongs(certificate, key):
        raise KeyWrong("its certificate is of another key")
    if certificate.valid_before <= now:
        raise KeyWrong("its certificate has expired")
    end = 0 if certificate.valid_before == _FOR_EVER else min(certificate.valid_before, 1 << 62)
    ends = [one for one in (found.expires, end) if one]
    return msgspec.structs.replace(made, certificate=found.certificate.strip(), expires=min(ends, default=0))
