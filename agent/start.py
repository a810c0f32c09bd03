"""The composition root of the root side: the one place where configuration, kernel side and agent are put together."""
from __future__ import annotations

import asyncio
import ctypes
import importlib
import logging
import os
import resource
from typing import Final

from agent.block.kernel import Kernel
from agent.config import DEFAULT_FILE, DNS_PORT, Config
from agent.contract.logs import log_to_stderr
from agent.journal import Journal, JournalError
from agent.layout import LayoutError, cgroup_root, find_accounts, make_directories, take_lock
from agent.network.handover import Handover
from agent.services import end_all
from agent.settings.check import load_block, load_config
from agent.settings.fields import ConfigError
from agent.supervisor import Agent, processes, remove_own, wait_gone
from agent.unit.stored import take_stored

LOG = logging.getLogger("weir.agent")

DESCRIPTORS: Final = 1 << 16
_PR_SET_DUMPABLE: Final = 4           # linux/prctl.h


def start_agent(file: str) -> int:
    """The life of `weir agent`; its exit code."""
    log_to_stderr()
    if os.geteuid() != 0:
        return _fail("the agent must run as root")
    handover = Handover(take_stored())
    try:
        return _start(file, handover)
    except (ConfigError, LayoutError) as reason:
        handover.give_up()
        return _fail(str(reason))
    except (OSError, ValueError, RuntimeError) as reason:
        handover.give_up()
        return _fail(f"could not start: {reason}; what was in place of the block stays")


def _start(file: str, handover: Handover) -> int:
    config = load_config(file)
    harden()
    lock = take_lock()
    try:
        return asyncio.run(_run(config, handover))
    finally:
        os.close(lock)


async def _run(config: Config, handover: Handover) -> int:
    return await Agent(config, make_kernel(config), cgroups=cgroup_root(), handover=handover).run()


def make_kernel(config: Config) -> Kernel:
    kernel: Kernel = importlib.import_module("agent.block.containment").Containment(
        config.runtime.name, port=config.enforcer.port, resolver=(config.dns.listen, DNS_PORT),
        redirect=config.nftables.redirect, run=config.run, headers=config.state / "headers")
    return kernel


def harden() -> None:
    """Its memory holds credentials for moments: no core dump, nobody's ptrace."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    # Only the soft limit: a lowered hard one would be the crews' too, where not even root may raise it.
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, DESCRIPTORS), hard))
    os.umask(0o022)


def release_without_agent(file: str, kill: bool) -> str:
    """`weir release` where no agent runs: recorded by a journal file of its own.  What went wrong, or empty.

    Of the configuration only what the block is made by matters, and at the default place it may be missing or wrong:
    the guard has made the block by the defaults then.  Elsewhere these would be another Weir's."""
    if os.geteuid() != 0:
        return "the agent is not running; only root may release without it"
    config, problems = load_block(file)
    if problems and file != DEFAULT_FILE:
        return str(ConfigError(problems))
    try:
        lock = take_lock()
    except (LayoutError, OSError) as reason:
        return str(reason)
    try:
        return _release(config, kill)
    except (LayoutError, JournalError, OSError, RuntimeError) as reason:
        return f"the block stays: {reason}"
    finally:
        os.close(lock)


def _release(config: Config, kill: bool) -> str:
    accounts = find_accounts(config)
    make_directories(config, accounts)
    kernel = make_kernel(config)
    inside = processes(kernel.slice)
    if inside and not kill:
        return f"{len(inside)} processes run in the slice; end them, or use --kill"
    # What cannot be recorded is not done: the journal is opened, and written to, before anything is taken away.
    journal = Journal(config.journal, accounts.audit.pw_gid)
    journal.record("releasing", detail={"by": "weir release, without an agent", "killed": len(inside)})
    try:
        if inside:
            end_all(kernel.slice)
            asyncio.run(wait_gone(kernel.slice, 10.0))
        kernel.release()
        remove_own(cgroup_root() / f"{config.runtime.name}.weir")
        journal.record("released", detail={"by": "weir release, without an agent"})
    except Exception as reason:
        journal.record("release.failed", detail={"reason": str(reason)})
        raise
    finally:
        journal.close()
    return ""


def _fail(text: str) -> int:
    for line in text.splitlines():
        LOG.error("%s", line)
    return 1
