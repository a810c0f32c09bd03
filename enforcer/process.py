"""How each process beside the enforcer begins: options, log, and that it holds nothing before it hears anything."""
from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from agent.contract.logs import log_to_stderr
from enforcer.privileges import check_privileges, harden
from enforcer.words.errors import PlatformError


def parser_of(part: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"enforcer.{part}.app", description="Started by `weir agent`.")
    parser.add_argument("--channel", type=int, required=True, metavar="FD")
    return parser


def run(part: str, work: Callable[[], Awaitable[None]], quiet: Sequence[str] = ()) -> int:
    """Its exit code.  `part`: its folder, and name in the log; `quiet`: loggers of packages that name addresses,
    with what stands in them."""
    log = logging.getLogger(f"weir.{part}")
    log_to_stderr()
    for name in quiet:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        check_privileges()
        harden()
    except PlatformError as error:
        log.error("%s", error)
        return 1
    asyncio.run(_run(work, log))
    return 0


async def _run(work: Callable[[], Awaitable[None]], log: logging.Logger) -> None:
    def unexpected(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        log.error("unexpected: %s", type(error).__name__ if error else "no exception")

    asyncio.get_running_loop().set_exception_handler(unexpected)
    await work()
