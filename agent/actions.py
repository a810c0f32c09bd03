"""What is done when somebody who may asks over the control socket: workloads are started, questions answered."""
from __future__ import annotations

import asyncio
import os
import pwd
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from agent.channel import ChannelError
from agent.config import DNS_PORT
from agent.confined import view
from agent.contract import control, messages
from agent.contract.control import Answered, Failed, Message, Refused
from agent.contract.groups import groups_of
from agent.contract.locks import REASON
from agent.control import OWN_ERROR, Deciding, IdentityRequest, Lately, Peer
from agent.journal import backlog, plain
from agent.network import local
from agent.network.networks import label, own_descriptor, why_no_more
from agent.people.identity import subject_of
from agent.people.locks import subjects_of
from agent.status import egress_views, hints, target_views, workload_views
from agent.workload.arguments import mask_text
from agent.workload.launch import HOST, Ended, Launched
from agent.workload.owners import Start
from agent.workload.sharing import Weakness
from agent.workload.workloads import Account, Refusal, Surroundings, resolve_run

if TYPE_CHECKING:
    from agent.supervisor import Agent

STATISTICS = 1.0                      # seconds that the status waits for the enforcer's
DECIDED = 15.0                        # seconds that an answer may take: what counts is kept first
ELEVATED = 24 * 3600                  # seconds of an elevation at most
TICKET = 256                          # characters of a ticket's or target's name that are looked at

_Item = TypeVar("_Item")


class Launches:
    """Workloads that the present launcher runs."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._running: set[int] = set()
        self._refused = Lately()

    def has(self, owner: int) -> bool:
        return owner in self._running

    def add(self, owner: int) -> None:
        self._running.add(owner)

    def discard(self, owner: int) -> None:
        """Without an event."""
        self._running.discard(owner)
        if start := self._agent.owners.find(owner):
            with suppress(OSError):
                Path(start.cgroup).rmdir()
        self._agent.networks.close(owner)
        self._agent.owners.end(owner)

    async def network(self, owner: int, workload: str, kind: str) -> int:
        """A descriptor of the namespace for a start, the caller's to close.  Raises OSError, PlatformError,
        ChannelError: there is none, and nothing may be started."""
        if kind == HOST:
            return own_descriptor()
        return (await self._agent.networks.open(owner, label(workload, owner))).namespace.descriptor()

    async def run(
        self, request: control.Run, peer: Peer, connection: socket.socket, fds: list[int],
    ) -> Message | None:
        """None: launcher and caller speak with each other from here on."""
        with self._agent.sharing.asking(peer.pid):
            return await self._run(request, peer, connection, fds)

    async def _run(
        self, request: control.Run, peer: Peer, connection: socket.socket, fds: list[int],
    ) -> Message | None:
        agent = self._agent
        if not agent.health.contained:
            state, reasons = agent.health.state()
            return Failed(OWN_ERROR, f"Weir is {state} and starts nothing: {'; '.join(reasons)}")
        caller, named = _caller(peer), _account(request.user) if request.user else None
        if caller is None:
            return Failed(OWN_ERROR, f"uid {peer.uid} has no name on this host")
        workload = agent.config.workload(request.workload)
        allowed = resolve_run(request, workload, caller, named, self._surroundings())
        if isinstance(allowed, Refusal):
            self._tell_refused(peer, caller, allowed.text, workload.name if workload else "")
            return Failed(allowed.code, allowed.text)
        assert workload is not None
        login, refusal = agent.identities.bind(workload, peer)
        if refusal:
            self._tell_refused(peer, caller, refusal, workload.name)
            return Failed(OWN_ERROR, refusal)
        if locked := self._locked(workload.name, caller.name, (named or caller).name, login):
            self._tell_refused(peer, caller, locked, workload.name)
            return Failed(OWN_ERROR, locked)
        owner = agent.owners.draw()   # only here: whoever may start nothing uses up none, and has nothing written
        launch = msgspec.structs.replace(
            allowed, number=owner, owner=owner, cgroup=str(agent.kernel.slice / f"{allowed.workload}-{owner}"))
        account = named or caller
        start = Start(owner, launch.workload, launch.uid, account.name, _unix_groups(launch.gid, launch.groups),
                      launch.cgroup, time.time_ns(), command=plain(mask_text(os.fsdecode(launch.argv[0]))),
                      caller=peer.pid, root=launch.root, network=launch.network, login=login)
        weak = await asyncio.to_thread(agent.sharing.find, start)
        try:
            if launch.network != HOST and (full := self._full(launch.uid)):
                raise OSError(full)
            network = await self.network(owner, launch.workload, launch.network)
        except (OSError, RuntimeError, ChannelError) as reason:
            agent.networks.close(owner)
            self._tell_refused(peer, caller, f"no network: {reason}", launch.workload)
            return Failed(OWN_ERROR, f"nothing was started, for it has no {launch.network} network: {reason}")
        self._running.add(owner)
        try:
            agent.owners.put(start)
            launch = msgspec.structs.replace(launch, notes=(*self._for(start), *_notes(start, weak)))
            said = await agent.launcher.launch(launch, connection.fileno(), fds, network)
        except (OSError, ValueError) as reason:
            self.discard(owner)
            return Failed(OWN_ERROR, str(reason))
        finally:
            os.close(network)
        if isinstance(said, Launched):
            agent.owners.put(msgspec.structs.replace(start, pid=said.pid))
            agent.tell("launch", {
                "owner": owner, "uid": launch.uid, "user": account.name, "by": caller.name, "pid": said.pid,
                "command": start.command, "cgroup": launch.cgroup, "network": launch.network,
                **({"login": login} if login else {}), **({"inside": "root"} if launch.root else {})}, launch.workload)
            agent.sharing.take(start, weak)
        return None

    def _locked(self, workload: str, caller: str, user: str, login: str) -> str:
        """Why nobody of these may start it, or ""."""
        logins = self._agent.identities.logins
        behind = logins.opened(login) if login else logins.of_workload(workload)
        subjects = (*subjects_of(caller), *subjects_of(user, behind.subject if behind else ""))
        return self._agent.locks.why(subjects, workload)

    def _for(self, start: Start) -> tuple[str, ...]:
        """For whom it speaks, where that is not the user."""
        who = self._agent.identities.principal(start)
        if isinstance(who, str):
            return (f"its connections are refused: {who}",)
        return (f"it speaks for {who.subject}",) if who.login else ()

    def _tell_refused(self, peer: Peer, caller: Account, reason: str, workload: str) -> None:
        """Once a second for each user: what is asked is theirs to choose, and so is how often."""
        if times := self._refused.again(peer.uid):
            self._agent.tell("launch.refused", {"by": caller.name, "reason": reason, "times": times}, workload)

    def _full(self, uid: int) -> str:
        """Why this user's workloads are given no other network, "" where they are."""
        owners = self._agent.networks.owners
        starts = (self._agent.owners.find(owner) for owner in owners)
        return why_no_more(len(owners), sum(start is not None and start.uid == uid for start in starts))

    def _surroundings(self) -> Surroundings:
        """Without a number: that is drawn for who may start something."""
        agent = self._agent
        config = agent.config
        return Surroundings(
            number=0, owner=0, cgroup="", hidden=config.own_directories,
            withheld=agent.accounts.own_groups, trust=agent.trust,
            resolv=str(agent.resolv) if agent.resolv.exists() else "",
            socket_directory=str(config.run / local.DIRECTORY), sockets=(*local.links(config.targets), local.REPORTING),
            real_sockets=local.real_sockets(config.targets))

    def ended(self, ended: Ended) -> None:
        """The launcher's word; also for what never ran.  Not when the agent stops: what runs goes on, and the next
        agent sees its end."""
        if self._agent.health.stopping:
            return
        start = self._agent.owners.find(ended.number)
        self._running.discard(ended.number)
        self._agent.networks.close(ended.number)
        if start is None:
            return
        self._agent.owners.end(ended.number)
        detail: dict[str, object] = {"owner": ended.number, "user": start.user, "code": ended.code}
        self._agent.tell("exit", detail | ({"reason": ended.text} if ended.text else {}), start.workload)


class Questions:
    """agent.control.Actions."""

    def __init__(self, agent: Agent) -> None:
        self._agent, self._lately = agent, Lately()

    async def run(
        self, request: control.Run, peer: Peer, connection: socket.socket, fds: list[int],
    ) -> Message | None:
        return await self._agent.launches.run(request, peer, connection, fds)

    async def status(self) -> Message:
        agent = self._agent
        config, places = agent.config, agent.places
        state, reasons = agent.health.state()
        statistics = await self._statistics()
        lag = backlog(config.journal)
        leafs = [address for leaf in agent.trust.leafs.values() for address in leaf.left_out]
        return control.Status(
            state=state, reasons=reasons, runtime=config.runtime.name, since=agent.since, pid=os.getpid(),
            config=config.file, redirect=config.nftables.redirect, listeners=tuple(map(_shown, agent.listeners)),
            enforcer=agent.enforcer.view(), recorder=agent.recorder.view(), lag=lag,
            targets=target_views(config, places), egress=egress_views(config, places),
            workloads=workload_views(agent.owners, agent.sharing.of), statistics=statistics,
            hints=(*agent.ledger.broken_glass(),
                   *hints(config, places, agent.resolver.failures, statistics, leafs, lag, agent.watch.beside),
                   *agent.containers.hints(), *agent.units.hints(), *agent.identities.hints(), *agent.vaults.hints(),
                   *agent.web.hints(), *agent.notifications.hints(), *agent.rotation.hints(),
                   *agent.metrics.hints(), *view.hints()),
            identity=agent.identities.process.view() if agent.identities.process else None,
            notify=agent.notifications.view(), web=agent.web.view(), page=config.web.url or "",
            metrics=agent.metrics.view(),
            modes=config.egress_modes, dns=f"{config.dns.listen}:{DNS_PORT}", upstream=_server(config.dns.resolver),
            lsm=agent.kernel.lsm, locks=tuple(agent.locks),
            configuration=control.ConfigurationView(config.digest, agent.reloads.since, config.digests))

    async def _statistics(self) -> dict[str, int]:
        try:
            found = await self._agent.enforcer.channel.ask(
                messages.AskStatistics, messages.StatisticsAnswer, STATISTICS)
        except ChannelError:
            return {}
        return found.values

    async def approvals(self) -> Message:
        try:
            found = await self._agent.enforcer.channel.ask(messages.ListHolds, messages.HoldsAnswer)
        except ChannelError as reason:
            return Refused(str(reason))
        return _fitting(control.Approvals, found.holds)

    async def decide(self, request: Deciding, peer: Peer) -> Message:
        """By whom is the kernel's word."""
        await self._agent.turn.wait()
        if locked := self._locked(peer):
            return Answered(locked)
        return Answered(await self.answer(request, subject_of(peer.user), self._groups_of(peer)))

    async def answer(self, request: Deciding, by: str, groups: tuple[str, ...], way: str = "") -> str:
        """Why it does not count, or "".  By whom is recorded here: whoever has broken the enforcer cannot make it up.
        `way`: where it was answered, "" for the control socket."""
        ticket, reason = request.ticket[:TICKET], request.reason[:messages.TEXT]
        names = self._agent.identities.names(by)[1:]
        glass = isinstance(request, control.BreakGlass)
        approve = glass or (isinstance(request, control.Decide) and request.approve)

        def make(number: int) -> messages.Message:
            if isinstance(request, control.Revoke):
                return messages.RevokeHold(number, ticket, by, groups, reason, names)
            return messages.DecideHold(number, ticket, approve, by, groups, reason, glass, names)

        try:
            error = (await self._agent.enforcer.channel.ask(make, messages.HoldDecided, DECIDED)).error
        except ChannelError as wrong:
            error = str(wrong)
        answer = "revoke" if isinstance(request, control.Revoke) else "break-glass" if glass else (
            "approve" if approve else "deny")
        if not error:
            self._agent.notifications.answered(ticket, answer, by, reason)
        self.tell_answer(by, {
            "ticket": ticket, "answer": answer, "by": by, "reason": reason, "error": error,
            **({"way": way} if way else {})})
        return error

    async def elevate(self, request: control.Elevate, peer: Peer) -> Message:
        """For whom `weir run` would speak."""
        await self._agent.turn.wait()
        who = self._agent.identities.person(peer)
        if not 1 <= request.seconds <= ELEVATED:
            return control.Requested("", f"from a second to {ELEVATED // 3600} hours")
        if locked := self._locked(peer):
            return control.Requested("", locked)
        try:
            found = await self._agent.enforcer.channel.ask(
                lambda number: messages.AskElevation(
                    number, who.subject, peer.user, peer.uid, who.groups, request.target[:TICKET], request.seconds,
                    request.reason[:messages.TEXT]), messages.ElevationAsked, DECIDED)
        except ChannelError as reason:
            return control.Requested("", str(reason))
        self.tell_answer(who.subject, {
            "ticket": found.ticket, "answer": "elevate", "by": who.subject, "target": request.target[:TICKET],
            "seconds": request.seconds, "reason": request.reason[:messages.TEXT], "error": found.error})
        return control.Requested(found.ticket, found.error)

    def _locked(self, peer: Peer) -> str:
        """Why this person may ask for nothing and answer nothing, or ""."""
        locked = self._agent.locks.why(self._agent.identities.names(subject_of(peer.user)))
        if locked and self._lately.again((peer.uid, locked)):
            self._agent.tell("control.refused", {
                "pid": peer.pid, "uid": peer.uid, "asked": "approvals", "reason": locked})
        return locked

    def _groups_of(self, peer: Peer) -> tuple[str, ...]:
        return groups_of(self._agent.config.groups, user=peer.user, unix=peer.unix_groups)

    def tell_answer(self, by: str, detail: dict[str, object]) -> None:
        """What counts each time; of what does not one of a kind a second for a user, who chooses the ticket's name."""
        times = self._lately.again((by, detail["answer"])) if detail["error"] else 1
        if times:
            self._agent.tell("approval.answered", detail | ({"times": times} if times > 1 else {}))

    async def sessions(self) -> Message:
        try:
            found = await self._agent.enforcer.channel.ask(messages.ListSessions, messages.SessionsAnswer)
        except ChannelError as reason:
            return Refused(str(reason))
        return _fitting(control.OpenSessions, found.sessions)

    async def kill(self, request: control.KillSession, peer: Peer) -> Message:
        return await self.end_session(request, subject_of(peer.user))

    async def end_session(self, request: control.KillSession, by: str, way: str = "") -> control.Killed:
        reason = request.reason
        if len(reason) > REASON or not reason.isprintable():
            return control.Killed(f"a reason is one line of at most {REASON} characters")
        why = f"killed by {by}" + (f": {reason}" if reason else "")
        try:
            ended = await self._agent.enforcer.channel.ask(
                lambda number: messages.EndSession(number, request.session[:TICKET], why), messages.SessionEnded)
        except ChannelError as wrong:
            return control.Killed(str(wrong))
        view = ended.session
        if times := self._lately.again((by, "kill")) if ended.error else 1:
            self._agent.tell("session.killed", {
                "session": view.session if view else request.session[:TICKET], "by": by, "reason": reason,
                "error": ended.error, **({"subject": view.subject, "target": view.target} if view else {}),
                **({"way": way} if way else {}), **({"times": times} if times > 1 else {}),
            }, view.workload if view else "")
        return control.Killed(ended.error, view)

    async def lock(self, request: control.PutLock | control.LiftLock, peer: Peer) -> Message:
        locks, by = self._agent.locks, subject_of(peer.user)
        if isinstance(request, control.PutLock):
            return await locks.lock(request, by)
        return await locks.unlock(request, by)

    async def test_notify(self) -> Message:
        try:
            return control.NotifyTested("", await self._agent.notifications.test())
        except ChannelError as reason:
            return control.NotifyTested(str(reason))

    async def ledger(self) -> Message:
        return self._agent.ledger.view()

    async def acknowledge(self, peer: Peer) -> Message:
        self._agent.ledger.acknowledge(peer.user)
        return Answered()

    async def adopt(self, request: control.Adopt | control.Abandon, peer: Peer) -> Message:
        units = self._agent.units
        if isinstance(request, control.Adopt):
            return await units.adopt(request, peer.user)
        return Answered(await units.abandon(request, peer.user))

    async def identity(self, request: IdentityRequest, peer: Peer) -> Message:
        return await self._agent.identities.answer(request, peer)

    async def stop(self) -> Message:
        self._agent.stop()
        return Answered()

    async def release(self, kill: bool) -> Message:
        return await self._agent.release(kill)

    async def keys(self) -> Message:
        return await self._agent.rotation.keys()

    async def rotate(self, request: control.RotateKey | control.RotateAuthority, peer: Peer) -> Message:
        if isinstance(request, control.RotateKey):
            return await self._agent.rotation.key(request, peer)
        return await self._agent.rotation.authority(request, peer)

    async def reload(self) -> Message:
        return Answered(await self._agent.reloads.reload())


def _notes(start: Start, weak: tuple[Weakness, ...]) -> tuple[str, ...]:
    """What `weir run` says on standard error: one line each."""
    inside = (f"inside, {start.user} is root: uid 0 of a user namespace, without capabilities",) if start.root else ()
    return (*inside, *((f"degraded: {'; '.join(map(str, weak))}",) if weak else ()))


def _fitting(make: Callable[[tuple[_Item, ...]], Message], items: tuple[_Item, ...]) -> Message:
    """A list whose texts come from crews may outgrow a frame: then the oldest of it."""
    while True:
        message = make(items)
        try:
            control.render_frame(message)
        except ValueError:
            items = items[:len(items) // 2]
        else:
            return message


def _caller(peer: Peer) -> Account | None:
    try:
        entry = pwd.getpwuid(peer.uid)
    except KeyError:
        return None
    return Account(entry.pw_name, entry.pw_uid, peer.gid, peer.groups, entry.pw_dir, entry.pw_shell or "/bin/sh")


def _account(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError):
        return None
    groups = tuple(gid for gid in os.getgrouplist(entry.pw_name, entry.pw_gid) if gid != entry.pw_gid)
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir, entry.pw_shell or "/bin/sh")


def _unix_groups(gid: int, groups: tuple[int, ...]) -> tuple[str, ...]:
    return Peer(0, 0, gid, groups).unix_groups


def _shown(listener: socket.socket) -> str:
    return _server(listener.getsockname()[:2])


def _server(place: tuple[str, int] | None) -> str:
    if place is None:
        return ""
    address, port = place
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
