"""What a layer is given when a connection is accepted and attributed."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent.contract.target import Target
from enforcer.core.gate import Gate
from enforcer.words.commands import Command
from enforcer.words.operations import Principal
from enforcer.words.reported import Calls, nothing


@dataclass(frozen=True, slots=True)
class Context:
    session: str                      # 26 characters, time-ordered
    principal: Principal
    target: Target
    gate: Gate
    now: Callable[[], int]            # nanoseconds UTC
    monotonic: Callable[[], int]      # CLOCK_BOOTTIME nanoseconds
    random: Callable[[int], bytes]    # that many unpredictable bytes
    forwarded_key: bytes              # key of the `forwarded` digests
    durable: str = "writes"           # which operations wait for fdatasync: "writes" | "all" | "none"
    shared: dict[object, object] | None = None   # caches that outlive a session, one a target, bounded by its users
    counts: Callable[[str], bool] = bool                # whether what this ticket's operation went under is still a yes
    push: Callable[[list[Command]], None] = lambda commands: None     # carry out what answers no input
    reported: Callable[[], Calls] = nothing      # the tool calls that the process itself says are active now
