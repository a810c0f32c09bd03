"""`weir guard`: the block without an agent, so that it is there before anything of a crew's can start (at boot)."""
from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Final

from agent.block.kernel import Kernel
from agent.config import Config
from agent.contract.logs import log_to_stderr
from agent.journal import Journal, JournalError
from agent.layout import LayoutError, find_accounts, make_directories, take_lock
from agent.settings.check import load_block
from agent.start import harden, make_kernel

LOG = logging.getLogger("weir.guard")

PATIENCE: Final = 240.0               # seconds that an agent may take to put the block back; a second or two are usual
AGAIN: Final = 0.2                    # seconds between looks


def start_guard(file: str, slice_: str) -> int:
    """Exit code: 0 where every rule and hook is in place by the kernel's own word.  `slice_`: the unit that crews are
    started in; empty: whichever."""
    log_to_stderr()
    if os.geteuid() != 0:
        LOG.error("the guard must run as root")
        return 1
    config, problems = load_block(file)
    for one in problems:
        LOG.warning("%s; what is wrong counts as not written, and the block is made by the defaults", one)
    if slice_ and slice_ != f"{config.runtime.name}.slice":
        LOG.error("the slice of this configuration is %s.slice, and not %s", config.runtime.name, slice_)
        return 1
    if slice_.count("-"):
        LOG.error("%s: systemd has a slice with '-' in its name below another one; choose another name", slice_)
        return 1
    try:
        return _guard(config)
    except (LayoutError, OSError, ValueError, RuntimeError) as reason:
        LOG.error("the block is not whole: %s; what was in place stays", reason)
        return 1


def _guard(config: Config) -> int:
    harden()
    kernel = make_kernel(config)
    try:
        lock = take_lock()
    except LayoutError:               # an agent runs, and the block is its own to keep, and to put back
        end = time.monotonic() + PATIENCE
        while _problems(kernel) and time.monotonic() < end:
            time.sleep(AGAIN)
        return _verdict(kernel, "an agent has it in place")
    try:
        config.run.mkdir(mode=0o755, parents=True, exist_ok=True)
        if before := _problems(kernel):
            kernel.install()
            _record(config, before)
        return _verdict(kernel, "in place; crews are cut off until an agent runs")
    finally:
        os.close(lock)


def _problems(kernel: Kernel) -> list[str]:
    try:
        kernel.recall()
        return kernel.problems()
    except (OSError, RuntimeError) as reason:     # it was taken away, or put back, meanwhile
        return [str(reason)]


def _verdict(kernel: Kernel, said: str) -> int:
    if problems := _problems(kernel):
        LOG.error("the block is not whole: %s", "; ".join(problems))
        return 1
    LOG.info("the block around %s: %s", Path(kernel.slice).name, said)
    return 0


def _record(config: Config, before: list[str]) -> None:
    """As far as it can be: a full disk, or accounts that are not there, must not keep the block away."""
    try:
        accounts = find_accounts(config)
        make_directories(config, accounts)
        journal = Journal(config.journal, accounts.audit.pw_gid)
        try:
            journal.record("guarded", detail={"before": "; ".join(before)})
        finally:
            journal.close()
    except (LayoutError, JournalError, OSError) as reason:
        LOG.warning("this start of the guard is not recorded: %s", reason)
