"""The hash chain of a recording and the Merkle tree of a checkpoint's interval.

    leaf_n = BLAKE2b-256(0x00 || n as 8 bytes big-endian || canonical bytes of event n)
    head_n = BLAKE2b-256(0x02 || head_{n-1} || leaf_n)
    head_0 = BLAKE2b-256(0x03 || recording id, 16 random bytes)
    node   = BLAKE2b-256(0x01 || left || right), trees shaped as in RFC 6962, section 2.1

A leaf holds its number, so an event cannot be moved; a head needs only the leaves, so an event can be left out of an
export.  This file runs compiled by mypyc and uncompiled alike.
"""
from __future__ import annotations

from hashlib import blake2b
from typing import Final

DIGEST: Final = 32


def make_leaf(sequence: int, body: bytes) -> bytes:
    return blake2b(b"\x00" + sequence.to_bytes(8, "big") + body, digest_size=32).digest()


def make_head(before: bytes, leaf: bytes) -> bytes:
    return blake2b(b"\x02" + before + leaf, digest_size=32).digest()


def make_node(left: bytes, right: bytes) -> bytes:
    return blake2b(b"\x01" + left + right, digest_size=32).digest()


def first_head(recording: bytes) -> bytes:
    return blake2b(b"\x03" + recording, digest_size=32).digest()


def make_digest(salt: bytes, content: bytes) -> bytes:
    """What an event holds in place of a text, parameters or payload."""
    return blake2b(content, digest_size=32, key=salt).digest()


class Chain:
    """`sequence` and `head` of the last event; the tree grows from the last `mark()`.  Memory: one digest a level."""

    def __init__(self, sequence: int, head: bytes) -> None:
        self.sequence: int = sequence
        self.head: bytes = head
        self.leaves: int = 0                      # since mark()
        self._peaks: list[bytes] = []             # roots of perfect trees, the largest first: the bits of `leaves`

    def add(self, body: bytes) -> bytes:
        """The next event.  Gives its leaf."""
        leaf = blake2b(b"\x00" + (self.sequence + 1).to_bytes(8, "big") + body, digest_size=32).digest()
        self.add_leaf(leaf)
        return leaf

    def add_leaf(self, leaf: bytes) -> None:
        """The next event, of which only the leaf is known."""
        self.sequence += 1
        self.head = blake2b(b"\x02" + self.head + leaf, digest_size=32).digest()
        bits = self.leaves
        node = leaf
        while bits & 1:
            node = make_node(self._peaks.pop(), node)
            bits >>= 1
        self._peaks.append(node)
        self.leaves += 1

    def root(self) -> bytes:
        """Merkle root over the leaves since mark(); of none, the digest of nothing (RFC 6962)."""
        if not self._peaks:
            return blake2b(b"", digest_size=32).digest()
        root = self._peaks[-1]
        for position in range(len(self._peaks) - 2, -1, -1):
            root = make_node(self._peaks[position], root)
        return root

    def mark(self) -> None:
        """A new interval begins."""
        self.leaves = 0
        self._peaks = []
