"""Secret keys of the agent's that are files in the state directory, and their rotation (docs/decisions/0033).

forwarded   of the digests of what was forwarded; the ones before are kept, by name, for earlier recordings
approval    of the HMAC that approvals are bound by; what was bound by the one before is over
mask        of the `hash` mask; until it is rotated once it is made from the forwarded key
link        of the links by which webhooks' approvers answer; what was signed by the one before leads to nothing

A new one is on the disk, by rename, before it counts: who is killed at any step leaves the old one or the new one.
"""
from __future__ import annotations

import os
import secrets
from hashlib import blake2b
from pathlib import Path
from typing import Final

from agent.contract.control import KeyView
from agent.layout import FORWARDED_KEY, KEY_BYTES, approval_key, forwarded_key, link_key, read_key, write_whole

FORWARDED, APPROVAL, MASK, LINK = "forwarded", "approval", "mask", "link"
MASK_KEY: Final = "mask.key"
USES: Final = {
    FORWARDED: "digests of what was forwarded", APPROVAL: "what approvals are bound by", MASK: "the `hash` mask",
    LINK: "links by which webhooks' approvers answer"}


class Keys:
    """Raises LayoutError where a file holds no key, OSError."""

    def __init__(self, state: Path, audit: int) -> None:
        self._state, self._audit = state, audit
        self.forwarded, self.approval, self.link = forwarded_key(state, audit), approval_key(state), link_key(state)
        self.mask = read_key(state / MASK_KEY, "values masked before look different from then on") or derived(
            self.forwarded)

    def views(self) -> tuple[KeyView, ...]:
        return tuple(KeyView(name, USES[name], name_of(getattr(self, name)), self._since(name)) for name in USES)

    def rotate(self, name: str) -> tuple[str, str]:
        """Blocks.  Names of the key before and of the new one.  Raises OSError: the old one stays."""
        before, fresh = getattr(self, name), secrets.token_bytes(KEY_BYTES)
        if name == FORWARDED:
            if not (self._state / MASK_KEY).exists():  # made from this one until now: masked values stay what they were
                write_whole(self._state / MASK_KEY, self.mask, 0o600)
            write_whole(self._state / f"forwarded-{name_of(before)}.key", before, 0o640, self._audit)
            write_whole(self._state / FORWARDED_KEY, fresh, 0o640, self._audit)
        else:
            write_whole(self._state / f"{name}.key", fresh, 0o600)
        setattr(self, name, fresh)
        return name_of(before), name_of(fresh)

    def _since(self, name: str) -> int:
        for file in (self._state / f"{name}.key", self._state / FORWARDED_KEY):
            try:
                return os.stat(file).st_mtime_ns
            except FileNotFoundError:
                continue
        return 0


def name_of(key: bytes) -> str:
    """As enforcer.recording.signing.name_key names one."""
    return blake2b(key, digest_size=32).hexdigest()[:16]


def derived(forwarded: bytes) -> bytes:
    return blake2b(b"masks", digest_size=32, key=forwarded).digest()
