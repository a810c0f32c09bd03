"""Pure: what fields of SSH targets may hold."""
from __future__ import annotations

from typing import Any, Final

from agent.settings.fields import TEXT, Kind, SaidWhole
from agent.ssh.keys import KeyWrong, parse_public

METHODS: Final = ("none", "publickey", "password", "keyboard-interactive")      # RFC 4252, 5-8; RFC 4256
# Each, and the label of what it finds: as in enforcer/policy/detectors.py, which a test compares.
DETECTORS: Final = {
    "private-key": "secret.private-key", "aws-key": "secret.aws-key", "google-key": "secret.google-key",
    "github-token": "secret.token.github", "slack-token": "secret.token.slack", "jwt": "secret.token.jwt",
    "card-number": "pci.card-number", "iban": "pii.iban", "password-in-url": "secret.password",
}


def _public_key(value: Any) -> str:
    text = TEXT.parse(value)
    if "PRIVATE" in text:
        raise SaidWhole("it is a private key, which never stands in this file; what its .pub file has would be right")
    try:
        return parse_public(text)
    except KeyWrong as wrong:
        raise ValueError(str(wrong)) from None


def _file_pattern(value: Any) -> str:
    text: str = TEXT.parse(value)
    if not text.startswith(("/", "*")) or "//" in text or {".", ".."} & set(text.split("/")):
        raise ValueError(f"{text[:80]!r} is no absolute path")
    return text


PUBLIC_KEY: Final = Kind('a public key, like "ssh-ed25519 AAAA..."', _public_key)
FILE_PATTERN: Final = Kind("an absolute path, in which `*` stands for anything", _file_pattern)
