"""Pure: what else on the host could undo what the block does, by what nft lists.

Another table cannot let through what ours drops, and what is rewritten before our check is checked as it is then.
What comes after it can still change: a chain behind ours that sets a packet's destination, duplicates or forwards it,
or hands it to a program.
"""
from __future__ import annotations

import re
from typing import Final

_TABLE: Final = re.compile(r"table (\S+) (\S+) \{")
_CHAIN: Final = re.compile(r"chain (\S+) \{")
_HOOK: Final = re.compile(r"type \S+ hook (\S+) (?:device \S+ |devices = \{[^}]*\} )?priority (-?\d+)")
_CHANGES: Final = re.compile(
    r"(?<![\w-])(?:(?:ip6? daddr|(?:tcp|udp|th) dport|@\w+,\d+,\d+) set|dup to|fwd to|tproxy|queue)\b")
MOST: Final = 5                       # that are said


def find_mangling(ruleset: str, own: str) -> list[str]:
    """`ruleset`: `nft -n -s -y list ruleset`; `own`: name of Weir's table of family inet."""
    found: list[str] = []
    for name, body in _tables(ruleset):
        late = any(hook in ("postrouting", "egress") or (hook == "output" and int(priority) > 0)
                   for hook, priority in _HOOK.findall(body))
        if name != f"inet {own}" and late:
            found += [f"nftables: table {name} changes packets after Weir's check: '{line.strip()}'"
                      for line in body.splitlines() if _CHANGES.search(line)]
    return found[:MOST]


def _tables(ruleset: str) -> list[tuple[str, str]]:
    starts = list(_TABLE.finditer(ruleset))
    ends = [one.start() for one in starts[1:]] + [len(ruleset)]
    return [(f"{one[1]} {one[2]}", ruleset[one.end():end]) for one, end in zip(starts, ends, strict=True)]
