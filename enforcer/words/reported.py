"""What a crew says of itself: the tool calls that are active in a process, as its listener reports them.

A claim, never more: whoever runs in that process can say anything.  `()`: nothing was said, or no call is active.
"""
from __future__ import annotations

import msgspec


class Call(msgspec.Struct, frozen=True, array_like=True):
    """One tool call.  Texts are printable and bounded; empty: not said."""

    crew: str
    agent: str                        # its role
    task: str                         # its name, or the beginning of its description
    tool: str

    def __str__(self) -> str:
        said = (f"{word} {text}" for word, text in (
            ("tool", self.tool), ("of agent", self.agent), ("in task", self.task), ("of crew", self.crew)) if text)
        return " ".join(said) or "a tool call without a name"


Calls = tuple[Call, ...]


def nothing() -> Calls:
    return ()


def say(calls: Calls, most: int = 16_384) -> str:
    """For people, `most` characters: one call, or what it may have been; "" where nothing was reported."""
    if len(calls) > 1:
        said = f"one of {len(calls)} calls at once: " + "; ".join(map(str, calls))
    else:
        said = str(calls[0]) if calls else ""
    return said if len(said) <= most else said[:most - 3] + "..."
