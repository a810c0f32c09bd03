"""Ways round: each function tries to bring TOKEN to the server by its own means.  Standard library only: this folder is
copied and run as it is by the system's Python, inside a workload and, as the control, outside of any.

usage: python3 -m techniques NAME TOKEN KEY=VALUE ...      (keys: common.Where)
       python3 -m techniques batch                         rounds of attempts from stdin, one a line; so are the answers

A function that returns believes that it got through; one that did not raises OSError.  Whether something arrived is
for the server to say; only where nothing can arrive (a socket of another family, a signal) this word is the verdict.
"""
from __future__ import annotations

from . import calls, datagrams, doors, families, streams, tasks, weirs
from .common import Where, parse_where, start_of

FAMILIES = {
    "TCP": streams.TECHNIQUES, "datagrams and raw IP": datagrams.TECHNIQUES, "other families": families.TECHNIQUES,
    "system calls": calls.TECHNIQUES, "tasks, namespaces, privilege": tasks.TECHNIQUES, "other hands": doors.TECHNIQUES,
    "Weir itself": weirs.TECHNIQUES,
}
TECHNIQUES = {name: work for family in FAMILIES.values() for name, work in family.items()}

__all__ = ["FAMILIES", "TECHNIQUES", "Where", "parse_where", "start_of"]
