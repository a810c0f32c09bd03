"""Keys in files: each rotation leaves what earlier recordings need, and works whoever is killed at whatever step."""
from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

from agent import keys as module
from agent import layout
from agent.keys import APPROVAL, FORWARDED, LINK, MASK, USES, Keys, name_of
from agent.layout import LayoutError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the files are root's: run as root")


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_each_alone(tmp_path: Path) -> None:
    keys = Keys(tmp_path, 65534)
    before = {name: getattr(keys, name) for name in USES}
    assert before[MASK] == blake2b(b"masks", digest_size=32, key=before[FORWARDED]).digest(), "as it always was"
    for name in USES:
        old, new = keys.rotate(name)
        assert old == name_of(before[name]) != new
        assert new == name_of(getattr(keys, name))
        again = Keys(tmp_path, 65534)
        assert {one: getattr(again, one) for one in USES} == {one: getattr(keys, one) for one in USES}
        assert {one for one in USES if getattr(keys, one) != before[one]} == {name}, "values masked stay what they were"
        before[name] = getattr(keys, name)
    kept = [path for path in tmp_path.glob("forwarded-*.key")]
    assert [(path.name, mode(path), path.stat().st_gid) for path in kept] == [
        (f"forwarded-{name_of(kept[0].read_bytes())}.key", 0o640, 65534)]
    assert {path.name: mode(path) for path in tmp_path.glob("*.key") if path not in kept} == {
        "forwarded.key": 0o640, "approval.key": 0o600, "mask.key": 0o600, "link.key": 0o600}
    assert [(one.name, one.id) for one in keys.views()] == [(name, name_of(before[name])) for name in USES]
    assert not any(key.hex() in repr(keys.views()) or repr(key) in repr(keys.views()) for key in before.values())


def test_what_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "mask.key").write_bytes(b"short")
    with pytest.raises(LayoutError, match=r"mask\.key does not hold 32 bytes"):
        Keys(tmp_path, 0)


def killed_at(step: int, work: Callable[[], Any], monkeypatch_on: list[tuple[Any, str]]) -> bool:
    child = os.fork()
    if child == 0:
        count = 0

        def stepping(inner: Callable[..., Any]) -> Callable[..., Any]:
            def outer(*args: Any, **named: Any) -> Any:
                nonlocal count
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1
                return inner(*args, **named)
            return outer

        try:
            for where, name in monkeypatch_on:
                setattr(where, name, stepping(getattr(where, name)))
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("name", [FORWARDED, APPROVAL, MASK, LINK])
def test_killed_at_each_step(tmp_path: Path, name: str) -> None:
    """The old key or the new one, the mask's the same unless it is the one, and earlier digests have their key."""
    step, seen = 0, set()
    while True:
        state = tmp_path / str(step)
        state.mkdir()
        first = Keys(state, 0)
        before = {one: getattr(first, one) for one in USES}
        killed = killed_at(step, partial(first.rotate, name), [
            (layout.os, "open"), (layout.os, "fsync"), (Path, "rename"), (module, "write_whole")])
        found = Keys(state, 0)
        new = getattr(found, name) != before[name]
        assert all(getattr(found, one) == before[one] for one in USES if one != name)
        if name == FORWARDED and new:
            assert (state / f"forwarded-{name_of(before[name])}.key").read_bytes() == before[name]
        found.rotate(name)
        seen.add(new)
        step += 1
        if not killed:
            break
    assert seen == {False, True}
    assert step > 4
