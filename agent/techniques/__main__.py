"""One attempt, or many at a time."""
from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from . import TECHNIQUES, parse_where

AT_A_TIME = 8
LONGEST = 60.0                        # seconds for one attempt


def attempt(name: str, token: str, *words: str) -> int:
    try:
        TECHNIQUES[name](token.encode(), parse_where(words))
    except OSError as error:
        print(f"{name}: {error}", flush=True)
        return 1
    print(f"{name}: through", flush=True)
    return 0


def _alone(words: list[str]) -> list[object]:
    """In a process of its own: some are killed for what they try.  Descriptors stay open: some look for them."""
    try:
        done = subprocess.run([sys.executable, "-m", "techniques", *words], stdin=subprocess.DEVNULL, timeout=LONGEST,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, close_fds=False)
    except subprocess.TimeoutExpired:
        return [words[0], -1, f"no end within {LONGEST:.0f} s"]
    return [words[0], done.returncode, done.stdout[-2000:]]


def batch() -> int:
    """Each line is one round: a list of attempts, which run together; then one line with all their answers."""
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for line in sys.stdin:
            print(json.dumps(list(pool.map(_alone, json.loads(line)))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(batch() if sys.argv[1:] == ["batch"] else attempt(*sys.argv[1:]))
