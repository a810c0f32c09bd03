"""One attempt, or many at a time."""
from __future__ import annotations

import json
import os
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field

from . import TECHNIQUES, parse_where

AT_A_TIME = 16                        # most of them wait
LONGEST = 60.0                        # seconds for one attempt
SAID = 2000                           # characters of it that are kept


def attempt(name: str, token: str, *words: str) -> int:
    try:
        TECHNIQUES[name](token.encode(), parse_where(words))
    except OSError as error:
        print(f"{name}: {error}", flush=True)
        return 1
    print(f"{name}: through", flush=True)
    return 0


@dataclass
class _Child:
    """An attempt in a process of its own: some are killed for what they try."""

    number: int                       # of its line
    name: str
    pid: int
    output: int
    until: float
    said: bytearray = field(default_factory=bytearray)

    def end(self) -> list[object]:
        """Once it has closed its output, or its time is over."""
        os.close(self.output)
        while (done := os.waitpid(self.pid, os.WNOHANG)) == (0, 0):
            if time.monotonic() > self.until:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                return [self.name, -1, f"no end within {LONGEST:.0f} s"]
            time.sleep(0.002)
        return [self.name, os.waitstatus_to_exitcode(done[1]), self.said.decode(errors="replace")[-SAID:]]


def _start(number: int, words: Sequence[str]) -> _Child:
    """Forked: an interpreter of its own would take longer than most attempts do.  Descriptors stay open, for some look
    for them."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            for place, fd in ((0, os.open(os.devnull, os.O_RDONLY)), (1, theirs), (2, theirs)):
                os.dup2(fd, place)
            os.close(theirs)
            code = attempt(*words)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    os.close(theirs)
    return _Child(number, words[0], pid, ours, time.monotonic() + LONGEST)


def together(lines: Sequence[Sequence[str]]) -> list[list[object]]:
    """Attempts, AT_A_TIME at a time; what came of each: its name, exit code and output."""
    found: dict[int, list[object]] = {}
    left, running = list(enumerate(lines)), dict[int, _Child]()
    with selectors.DefaultSelector() as selector:
        while left or running:
            while left and len(running) < AT_A_TIME:
                child = _start(*left.pop(0))
                running[child.output] = child
                selector.register(child.output, selectors.EVENT_READ)
            over = {fd for fd, child in running.items() if time.monotonic() > child.until}
            for key, _ in selector.select(1.0):
                running[key.fd].said += (some := os.read(key.fd, 65536))
                over |= {key.fd} if not some else set()
            for fd in over:
                selector.unregister(fd)
                child = running.pop(fd)
                found[child.number] = child.end()
    return [found[number] for number in range(len(lines))]


def batch() -> int:
    """Each line is one round: a list of attempts, which run together; then one line with all their answers."""
    for line in sys.stdin:
        print(json.dumps(together(json.loads(line))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(batch() if sys.argv[1:] == ["batch"] else attempt(*sys.argv[1:]))
