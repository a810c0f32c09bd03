"""The notify process: it alone speaks with Slack and with webhooks' receivers, and parses what they say.

    python -I -m enforcer.notify.app --channel FD

The agent starts it as the user weir-notify where [slack] or a [[webhook]] is configured, and gives it the secrets of
both.  It ends with the agent (docs/decisions/0031).  Exit: 0 after SIGTERM or the agent's end, 1 where it may not run.
"""
from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from typing import Any

from agent.contract.logs import log_to_stderr
from enforcer.notify.channel import open_channel
from enforcer.privileges import check_privileges, harden
from enforcer.words.errors import PlatformError

LOG = logging.getLogger("weir.notify")


def _unexpected(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    LOG.error("unexpected: %s", type(error).__name__ if error else "no exception")


async def _run(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_unexpected)
    channel = await open_channel(descriptor)
    loop.add_signal_handler(signal.SIGTERM, channel.closed.set)
    await channel.closed.wait()
    await channel.desk.close()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="enforcer.notify.app", description="Started by `weir agent`.")
    parser.add_argument("--channel", type=int, required=True, metavar="FD")
    options = parser.parse_args(argv)
    log_to_stderr()
    for name in ("httpx2", "httpcore2", "websockets"):     # they name addresses, with what stands in them
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
