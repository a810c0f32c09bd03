"""The identity process: what providers say is parsed here, and tokens are kept here, in memory alone.

    python -I -m enforcer.identity.app --channel FD

The agent starts it as the user weir-identity where a [[provider]] is configured.  It ends with the agent, and with it
every login (docs/decisions/0025).  Exit: 0 after SIGTERM or the agent's end, 1 where it may not run.
"""
from __future__ import annotations

import asyncio
import signal
import sys

from enforcer.identity.channel import open_channel
from enforcer.process import parser_of, run


async def _run(descriptor: int) -> None:
    channel = await open_channel(descriptor)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, channel.closed.set)
    await channel.closed.wait()


def main(argv: list[str] | None = None) -> int:
    options = parser_of("identity").parse_args(argv)
    return run("identity", lambda: _run(options.channel), ("httpx2", "httpcore2", "authlib"))


if __name__ == "__main__":
    sys.exit(main())
