"""The notify process: it alone speaks with Slack and with webhooks' receivers, and parses what they say.

    python -I -m enforcer.notify.app --channel FD

The agent starts it as the user weir-notify where [slack] or a [[webhook]] is configured, and gives it the secrets of
both.  It ends with the agent (docs/decisions/0031).  Exit: 0 after SIGTERM or the agent's end, 1 where it may not run.
"""
from __future__ import annotations

import asyncio
import signal
import sys

from enforcer.notify.channel import open_channel
from enforcer.process import parser_of, run


async def _run(descriptor: int) -> None:
    channel = await open_channel(descriptor)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, channel.closed.set)
    await channel.closed.wait()
    await channel.desk.close()


def main(argv: list[str] | None = None) -> int:
    options = parser_of("notify").parse_args(argv)
    return run("notify", lambda: _run(options.channel), ("httpx2", "httpcore2", "websockets"))


if __name__ == "__main__":
    sys.exit(main())
