"""The launcher's loop: what goes wrong with one is not the end of the others."""
from __future__ import annotations

import os

from agent.workload.launcher import Loop


def test_what_fails_is_told_and_the_others_go_on() -> None:
    loop, done = Loop(), []
    pipes = [os.pipe() for _ in range(3)]

    def fail() -> None:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    def take(number: int) -> None:
        os.read(pipes[number][0], 1)
        done.append(f"read {number}")

    def end(number: int) -> None:
        loop.forget(pipes[number][0])
        done.append(f"ended {number}")

    try:
        loop.watch(pipes[0][0], fail, lambda: end(0))
        loop.watch(pipes[1][0], lambda: take(1), lambda: end(1))
        loop.after("late", 0.0, fail, lambda: done.append("ended late"))
        loop.after("later", 0.0, lambda: done.append("went off"), lambda: end(2))
        for _, there in pipes:
            os.write(there, b"x")
        loop.once()
        os.write(pipes[1][1], b"x")
        loop.once()
    finally:
        for pipe in pipes:
            for fd in pipe:
                os.close(fd)
    assert sorted(done) == ["ended 0", "ended late", "read 1", "read 1", "went off"]
