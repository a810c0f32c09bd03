"""The completeness oracle of Kubernetes: what the API server's audit log says, and what the recording says.

Each request that Weir sends has its name in the audit log, `Audit-ID: SESSION-OPERATION`.  So both are the same set:
every event of the server's names an operation that was permitted and recorded with the same method and target, and
every operation that was permitted is an event, unless its result says that the server never had it.  The connections of
a port-forward are operations of the session that its event names.
"""
from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lab.kubernetes import Event
from lab.ssh_oracle import Done, read

# What has a result like this may have been given up before the server had it.
UNSENT = frozenset(("error", "cancelled", ""))
STREAMS = ("exec", "attach", "port-forward")


def recorded(recording: Path, target: str) -> dict[str, Done]:
    """By the name that the server was given: what a crew asked and was permitted."""
    done = read(recording, "kubernetes").get(target, ())
    return {f"{one.session}-{one.number}": one for one in done if one.actor == "crew"}


def complaints(done: dict[str, Done], events: Iterable[Event]) -> list[str]:
    """`done`: what was recorded while `events` were written."""
    found = {one.raw["auditID"]: one for one in events}
    forwarded = {name.partition("-")[0] for name, one in found.items() if one.resource == "pods/portforward"}
    wrong = [f"the server was asked what is not recorded: {one.verb} {one.uri} ({name})"
             for name, one in found.items() if name not in done]
    wrong += [f"recorded as sent, and the server was never asked: {one}" for name, one in done.items()
              if name not in found and one.status not in UNSENT and not (
                  _connection(one) and one.session in forwarded)]
    wrong += [f"recorded as {done[name]}, and the server read {one.uri}" for name, one in found.items()
              if name in done and not _same(done[name], one)]
    return wrong


def _connection(one: Done) -> bool:
    return one.verb == "port-forward" and not one.text.startswith(b"port-forward ")


def _same(done: Done, event: Event) -> bool:
    """Of streams the line is kubectl's; of the rest method and target are the server's own words."""
    line = done.text.partition(b"\n")[0].decode()
    if done.verb in STREAMS:
        return event.name in line.split() and event.resource.partition("/")[2] == done.verb.replace("-", "")
    return line.partition(" ")[2] == event.uri
