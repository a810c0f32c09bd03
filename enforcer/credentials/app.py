"""The credentials process: what Vault says is parsed here, and its tokens and leases are kept here, in memory alone.

    python -I -m enforcer.credentials.app --channel FD

The agent starts it as the user weir-vault where a [[vault]] is configured.  When the agent ends, it gives every lease
back and ends, too (docs/decisions/0034).  Exit: 0 after SIGTERM or the agent's end, 1 where it may not run.
"""
from __future__ import annotations

import asyncio
import signal
import sys

from enforcer.credentials.channel import open_channel
from enforcer.process import parser_of, run


async def _run(descriptor: int) -> None:
    channel = await open_channel(descriptor)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, channel.closed.set)
    await channel.closed.wait()
    await channel.vaults.close()


def main(argv: list[str] | None = None) -> int:
    options = parser_of("credentials").parse_args(argv)
    return run("credentials", lambda: _run(options.channel), ("httpx2", "httpcore2"))


if __name__ == "__main__":
    sys.exit(main())
