"""Chain and tree against their definitions, written out another way."""
from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from hashlib import blake2b
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.hot import chain

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "enforcer" / "hot" / "chain.py"


def digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=32).digest()


def tree(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if not leaves:
        return digest(b"")
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return digest(b"\x01" + tree(leaves[:split]) + tree(leaves[split:]))


@given(st.lists(st.binary(max_size=40), max_size=70))
def test_heads_leaves_and_roots(bodies: list[bytes]) -> None:
    links = chain.Chain(7, b"h" * 32)
    head, leaves = b"h" * 32, []
    for number, body in enumerate(bodies, 8):
        leaf = digest(b"\0" + number.to_bytes(8, "big") + body)
        head = digest(b"\2" + head + leaf)
        assert links.add(body) == leaf == chain.make_leaf(number, body)
        leaves.append(leaf)
        assert links.root() == tree(leaves)
    assert (links.head, links.sequence, links.leaves) == (head, 7 + len(bodies), len(bodies))
    links.mark()
    assert links.root() == digest(b"")


def test_a_left_out_event_gives_the_same_head() -> None:
    whole, part = chain.Chain(0, chain.first_head(b"r" * 16)), chain.Chain(0, digest(b"\3" + b"r" * 16))
    for body in (b"a", b"b", b"c"):
        part.add_leaf(whole.add(body))
    assert (whole.head, whole.root()) == (part.head, part.root())


@pytest.mark.slow
def test_compiled_and_uncompiled_agree(tmp_path: Path) -> None:
    pytest.importorskip("mypyc", reason="pip install mypy")
    (tmp_path / "weir_chain.py").write_bytes(SOURCE.read_bytes())
    subprocess.run([sys.executable, "-m", "mypyc", "weir_chain.py"], cwd=tmp_path, check=True, capture_output=True)
    built = next(tmp_path.glob("weir_chain.*.so"))
    spec = importlib.util.spec_from_file_location("weir_chain", built)
    assert spec
    assert spec.loader
    sys.path.insert(0, str(tmp_path))     # mypyc's runtime module may lie beside it
    try:
        compiled = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(compiled)
    finally:
        sys.path.remove(str(tmp_path))
    one, other = chain.Chain(3, b"x" * 32), compiled.Chain(3, b"x" * 32)
    for size in range(300):
        body = os.urandom(size)
        assert one.add(body) == other.add(body)
        assert (one.head, one.root(), one.leaves) == (other.head, other.root(), other.leaves)
    assert chain.make_digest(b"s" * 16, b"c") == compiled.make_digest(b"s" * 16, b"c")
