"""`weir reload`, in two steps, so that what is in force is one configuration or the other, whatever fails or ends when.

First everything that can be wrong is looked at beside what runs: files, policies, names, certificates; the enforcer is
given it all, to have it ready (Configure with `prepare`).  What is wrong here has changed nothing.  Trust files have
both authorities by then.

Then PutInForce, which the enforcer carries out in one pass.  From its sending to its answer nobody is attributed and no
approver's groups are looked up (`turn`): what was said by the old configuration is a session before, and is looked at
once more in that pass (agent/stamps.py); what is said later is said by the new one.  An enforcer that ends there is
followed by one that is given the new configuration; one that does not answer is ended.
"""
from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from agent.channel import ChannelError, EnforcerChannel
from agent.config import Config, needs_restart
from agent.contract import messages
from agent.contract.families import APPLIED, REFUSED
from agent.credential.trust import Trust, publish_trust
from agent.layout import Accounts, LayoutError, find_accounts
from agent.metrics.desk import SECTION
from agent.network import local
from agent.network.names import patterns
from agent.network.resolve import Places
from agent.services import CONFIGURE
from agent.settings.check import check_metadata, check_policies, load_config
from agent.settings.fields import ConfigError
from agent.web.listening import why_not

if TYPE_CHECKING:
    from agent.supervisor import Agent

LOG = logging.getLogger("weir.agent")
FORCE: Final = 10.0                   # seconds that the enforcer may take to put in force what it has ready


class _Wrong(Exception):
    """What is wrong; nothing has changed."""


class Ready(msgspec.Struct, frozen=True):
    """All of the new configuration that is made beforehand."""

    config: Config
    accounts: Accounts
    places: Places
    trust: Trust
    channel: EnforcerChannel | None   # of the enforcer that has it ready; None: none runs


def said_of(config: Config) -> Mapping[str, object]:
    """What an event says of a configuration: its digest, and each file's."""
    return {"digest": config.digest, **{f"file {name}": one for name, one in sorted(config.digests.items())}}


class Reloading:
    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.counts = Counter[str]()  # reloads, by what became of them: families.APPLIED, REFUSED
        self.since = time.time_ns()   # when what is in force came into force

    async def reload(self) -> str:
        """What is wrong, and then the old configuration stays."""
        agent = self._agent
        async with agent.reloading:
            before = agent.config.digest
            try:
                await self._reload()
                error = ""
            except _Wrong as wrong:
                error = str(wrong)
            except (ConfigError, ValueError, OSError, LayoutError) as wrong:
                error = str(wrong)
            finally:
                await agent.resolver.set_names(patterns(agent.config))
                agent.forget()
        detail = {"error": error, "digest": before} if error else {**said_of(agent.config), "before": before}
        self.counts[REFUSED if error else APPLIED] += 1
        agent.tell("config.refused" if error else "config.reloaded", detail)
        return error

    async def _reload(self) -> None:
        agent = self._agent
        config = await asyncio.to_thread(load_config, agent.config.file)
        if changed := needs_restart(agent.config, config):
            raise _Wrong(f"{', '.join(changed)}: cannot be changed by a reload; weir stop, then start the agent again")
        if names := local.not_opened(agent.local, config.targets):
            raise _Wrong(f"sockets of target {', '.join(names)}: they are opened when the agent starts; weir stop, "
                         "then start it again")
        if problems := [*await asyncio.to_thread(check_metadata, config),
                        *await asyncio.to_thread(check_policies, config)]:
            raise _Wrong("\n".join(map(str, problems)))
        place = config.web.listen if config.web.url else None
        if place and (not agent.config.web.url or place != agent.config.web.listen) and (wrong := why_not(place)):
            raise _Wrong(wrong)
        place = config.metrics.place
        if place and place != agent.config.metrics.place and (wrong := why_not(place, SECTION)):
            raise _Wrong(wrong)
        await agent.resolver.set_names({*patterns(agent.config), *patterns(config)})
        accounts, places = find_accounts(config), agent.find_places(config)
        trust = await asyncio.to_thread(agent.make_trust, config, places, agent.trust)
        try:
            async with agent.enforcer.alone():
                channel = await self._prepare(config, places, trust)
                agent.kernel.register({*agent.places.all(), *places.all()})
                await self._put_in_force(Ready(config, accounts, agent.find_places(config), trust, channel))
        except BaseException:
            self._take_back()
            raise
        self._settle()

    async def _prepare(self, config: Config, places: Places, trust: Trust) -> EnforcerChannel | None:
        """The channel of the enforcer that has it ready; None where none runs: the next is given it."""
        agent, channel = self._agent, None
        try:
            channel = agent.enforcer.channel
            done = await channel.ask(
                lambda number: msgspec.structs.replace(agent.render(number, config, places, trust), prepare=True),
                messages.Configured, CONFIGURE)
        except ChannelError as reason:
            if channel is not None and not channel.closed.is_set():
                raise _Wrong(f"the enforcer could not be given it: {reason}") from None
            return None
        if done.error:
            raise _Wrong(done.error)
        return channel

    async def _put_in_force(self, ready: Ready) -> None:
        agent, config = self._agent, ready.config
        agent.turn.clear()
        try:
            standing = agent.stamps.standing(lambda start: agent.identities.principal(start, config))
            if ready.channel is not None and not ready.channel.closed.is_set():
                await self._force(ready.channel, standing)
            agent.stamps.keep(standing)
            before = agent.config.egress_modes
            agent.config, agent.trust, agent.accounts, agent.places = config, ready.trust, ready.accounts, ready.places
            self.since = time.time_ns()
        finally:
            agent.turn.set()
        agent.tell_modes(before, config.egress_modes)

    async def _force(self, channel: EnforcerChannel, standing: frozenset[int]) -> None:
        """Raises _Wrong: it has not done it."""
        horizon = self._agent.stamps.horizon
        try:
            done = await channel.ask(
                lambda number: messages.PutInForce(number, standing, horizon), messages.Done, FORCE)
        except ChannelError as reason:
            # Whether it has is not known.  The next one is given what is in force.
            LOG.error("the enforcer did not say whether the new configuration is in force, and is ended: %s", reason)
            self._agent.enforcer.put_down()
        else:
            if done.error:
                raise _Wrong(done.error)

    def _take_back(self) -> None:
        agent = self._agent
        with suppress(ValueError, OSError):
            agent.kernel.register(agent.places.all())
            publish_trust(agent.config.run, agent.trust, running=len(agent.owners) > 0)

    def _settle(self) -> None:
        """It is in force.  What the old one had besides goes; where that fails it is tried again."""
        agent = self._agent
        try:
            agent.kernel.register(agent.places.all())
            publish_trust(agent.config.run, agent.trust, running=len(agent.owners) > 0)
            agent.refresh_files(agent.config)
        except (ValueError, OSError) as reason:
            LOG.error("the new configuration is in force, but not all of its files are: %s", reason)
            agent.reconfigure.set()
        agent.identities.configured()
        agent.web.configured()
        agent.metrics.configured()
        agent.vaults.configured()
        agent.notifications.configured()
