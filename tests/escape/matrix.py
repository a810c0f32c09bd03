"""tests/escape/matrix.toml: every technique with its verdict in each state.

    python -m escape.matrix           writes the table in docs/containment.md again
"""
from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Literal

import msgspec

from agent.techniques import FAMILIES
from agent.workload import landlock

STATES = ("both", "ebpf", "nftables")
NEITHER = "neither"                   # without both, in a network of its own: there is nowhere to go
FILE = Path(__file__).resolve().parent / "matrix.toml"
PAGE = FILE.parents[2] / "docs" / "containment.md"
BETWEEN = re.compile(r"(<!-- matrix -->\n).*?(<!-- end of the matrix -->)", re.S)

Verdict = Literal["stopped", "detected", "not contained"]


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    both: Verdict
    ebpf: Verdict
    nftables: Verdict
    by: str                           # what stops it; where nothing does, what there is to know
    # Whose word it is: the server's (its sockets, and its wire), also by the attempt's source port or by a part of the
    # token; or the kernel's answer to the technique itself, where nothing could arrive.
    witness: Literal["server", "port", "wire", "itself"] = "server"
    # Who shows, without Weir, that the way exists: the same user elsewhere, root elsewhere, root on the crew's host.
    control: Literal["user", "root", "host"] = "user"
    vm: str = ""                      # why there is no control on a development machine: it has one in tests/vm
    # The host's own may be there in place of the stand-in, and does not do what that does: this row shows its way.
    instead: str = ""
    since: str = ""                   # the first Linux that knows the way: before, there is no control
    # Stopped by Landlock's scopes or by BPF LSM: before Linux 6.12 and without BPF LSM it is not contained.
    landlock: bool = False
    alone: bool = False               # the attempt would change the others' verdicts
    event: str = ""                   # of the recording, where the verdict is "detected"
    # As mapped root (`root = true` of a workload) every technique is tried in ./bootstrap test-all, and in ./bootstrap
    # test those for which it may matter, with both layers.
    root: bool = False
    rooted: dict[str, Verdict] = {}   # state -> verdict as mapped root, where it is another
    shared: bool = False              # needs a process of the same user outside that helps: docs/containment.md
    network: bool = False             # stopped by a network of its own, whatever the kernel

    def verdict(self, state: str, lsm: bool = False, root: bool = False) -> Verdict:
        """On this kernel.  `lsm`: BPF LSM's programs are in place; they are in each state.  `root`: as mapped root."""
        if self.landlock and landlock.version() < landlock.SCOPES and not lsm:
            return "not contained"
        return self.written(state, root)

    def private(self, state: str, lsm: bool = False) -> Verdict:
        """In a network of its own.  What gets out there does so by sockets from outside, which come, or help, over a
        Unix socket: the rules do not see them either."""
        if self.network:
            return "stopped"
        return self.verdict("nftables" if state == NEITHER else state, lsm)

    def written(self, state: str, root: bool = False) -> Verdict:
        return (self.rooted if root else {}).get(state) or getattr(self, state)


def read_rows() -> dict[str, Row]:
    return msgspec.toml.decode(FILE.read_bytes(), type=dict[str, Row])


def render_table() -> str:
    rows, lines = read_rows(), [
        "| technique | both | both, as root | eBPF alone | nftables alone | neither, own network | by what |",
        "|---|---|---|---|---|---|---|"]
    for family, techniques in FAMILIES.items():
        lines.append(f"| **{family}** | | | | | | |")
        for name in techniques:
            row = rows[name]
            notes = [f"its control runs in tests/vm: {row.vm}"] if row.vm else []
            where = " in the host's network" if row.network else ""
            notes += [f"before Linux 6.12 without BPF LSM{where}: not contained"] if row.landlock else []
            words = row.by + (f" ({'; '.join(notes)})" if notes else "")
            verdicts = [row.written("both"), row.written("both", root=True), *map(row.written, STATES[1:]),
                        row.written("nftables")]
            lines.append(f"| {name} | {' | '.join(verdicts)} | {words} |")
    return "\n".join(lines) + "\n"


def render_page(text: str) -> str:
    return BETWEEN.sub(lambda found: found[1] + render_table() + found[2], text)


if __name__ == "__main__":
    PAGE.write_text(render_page(PAGE.read_text()))
    sys.exit(0)
