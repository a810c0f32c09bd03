"""The identity process: what providers say is parsed here, and tokens are kept here, in memory alone.

    python -I -m enforcer.identity.app --channel FD

The agent starts it as the user weir-identity where a [[provider]] is configured.  It ends with the agent, and with it
every login (docs/decisions/0025).  Exit: 0 after SIGTERM or the agent's end, 1 where it may not run.
"""
from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from typing import Any

from agent.contract.logs import log_to_stderr
from enforcer.identity.channel import open_channel
from enforcer.privileges import check_privileges, harden
from enforcer.words.errors import PlatformError

LOG = logging.getLogger("weir.identity")


def _unexpected(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    LOG.error("unexpected: %s", type(error).__name__ if error else "no exception")


async def _run(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_unexpected)
    channel = await open_channel(descriptor)
    loop.add_signal_handler(signal.SIGTERM, channel.closed.set)
    await channel.closed.wait()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="enforcer.identity.app", description="Started by `weir agent`.")
    parser.add_argument("--channel", type=int, required=True, metavar="FD")
    options = parser.parse_args(argv)
    log_to_stderr()
    for name in ("httpx2", "httpcore2", "authlib"):      # they name addresses, with what stands in them
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        check_privileges()
        harden()
    except PlatformError as error:
        LOG.error("%s", error)
        return 1
    asyncio.run(_run(options.channel))
    return 0


if __name__ == "__main__":
    sys.exit(main())
