"""Keys and authorities get successors, as root asks (docs/decisions/0033), and what is to be known of it beforehand."""
from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509

from agent.channel import ChannelError
from agent.config import Config
from agent.contract import control
from agent.contract.control import FINISH, PREPARE, AuthorityRotated, AuthorityView, KeyRotated, Keys, Message
from agent.contract.locks import REASON
from agent.credential.client_authority import (
    STEM as CLIENTS,
)
from agent.credential.client_authority import (
    AuthorityError,
    finish_rotation,
    next_client_authority,
    prepare_rotation,
)
from agent.credential.trust import STEM, TrustTarget, authority_directory, begin_rotation, load_pair, render_certificate
from agent.keys import APPROVAL, LINK, USES
from agent.layout import LayoutError
from agent.people.identity import subject_of
from agent.settings.credential_table import SSH
from agent.settings.target_table import TargetEntry
from agent.ssh.host_keys import replace_host_keys
from agent.ssh.keys import fingerprint, load_key, render_public
from agent.ssh.user_authority import (
    STEM as USERS,
)
from agent.ssh.user_authority import (
    finish_user_rotation,
    next_user_authority,
    prepare_user_rotation,
    render_trusted,
    user_authority,
)

if TYPE_CHECKING:
    from agent.control import Peer
    from agent.supervisor import Agent

SOON: Final = timedelta(days=60)      # before an authority's end it is said


class Rotation:
    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def key(self, request: control.RotateKey, peer: Peer) -> Message:
        agent, name = self._agent, request.name
        if name not in USES or wrong_reason(request.reason):
            return KeyRotated(wrong_reason(request.reason) or f"there are the keys {', '.join(USES)}")
        before = after = error = ""
        async with agent.reloading:
            try:
                before, after = await asyncio.to_thread(agent.keys.rotate, name)
                if name != LINK and not await self._give() and name == APPROVAL:
                    await asyncio.to_thread(agent.tickets.forget_all)
            except (OSError, LayoutError) as wrong:
                error = f"the key stays as it was: {wrong}"
        agent.tell("key.rotated", {"key": name, "before": before, "after": after, "by": subject_of(peer.user),
                                   "reason": request.reason, "error": error})
        return KeyRotated(error, before, after)

    async def _give(self) -> bool:
        """Whether an enforcer has it; one that does not take it is ended, and the next is given it."""
        agent = self._agent
        try:
            if await agent.enforcer.configure():
                agent.enforcer.put_down()
                return False
        except ChannelError:
            return False
        return True

    async def authority(self, request: control.RotateAuthority, peer: Peer) -> Message:
        agent = self._agent
        target = next((one for one in agent.config.targets if one.name == request.target), None)
        if target is None:
            names = ", ".join(one.name for one in agent.config.targets) or "none"
            return AuthorityRotated(f"there is no target {request.target[:64]!r}; there is: {names}")
        if wrong := wrong_reason(request.reason):
            return AuthorityRotated(wrong)
        clients = request.step in (PREPARE, FINISH)
        try:
            async with agent.reloading:
                answer = await (self._clients(target, request.step) if clients
                                else self._hosts(target, request.step == control.NOW) if target.protocol == SSH
                                else self._servers(target, request.step == control.NOW))
        except (AuthorityError, ValueError, OSError) as reason:
            answer = AuthorityRotated(str(reason))
        self._tell(target.name, clients, answer, subject_of(peer.user), request.reason)
        return answer

    async def _servers(self, target: TargetEntry, now: bool) -> AuthorityRotated:
        agent = self._agent
        if not target.hosts:
            return AuthorityRotated(f"target {target.name} has no hosts, and so no certificate")
        directory = authority_directory(agent.config.state, target.name)
        made = await asyncio.to_thread(
            begin_rotation, directory,
            TrustTarget(target.name, target.hosts, agent.places.addresses.get(target.name, ())))
        if now:
            agent.hurried.add(target.name)
        try:
            error = await agent.renew() or ""
        finally:
            agent.hurried.discard(target.name)
        waiting = next((one.made for one in agent.trust.waiting if one.target == target.name), 0)
        before = sum(start.since <= waiting for start in agent.owners) if waiting else 0
        return AuthorityRotated(error, _pem(made.certificate), before, not waiting)

    async def _hosts(self, target: TargetEntry, now: bool) -> AuthorityRotated:
        """Host keys: clients take one of each type, so there is no time in which both are right."""
        agent = self._agent
        if len(agent.owners) and not now:
            return AuthorityRotated(f"clients of what runs ({len(agent.owners)}) know the host keys of now: end that "
                                    "first, or say --now and start it again")
        await asyncio.to_thread(replace_host_keys, agent.config.state, target.name)
        return AuthorityRotated(await agent.renew() or "", in_force=True)

    async def _clients(self, target: TargetEntry, step: str) -> AuthorityRotated:
        state = self._agent.config.state
        if not any(row.certificate for row in target.credentials):
            return AuthorityRotated(f'no [[target.credential]] of {target.name} says certificate = "issue"')
        if target.protocol == SSH:
            return await asyncio.to_thread(_of_users, state, target.name, step)
        if step == PREPARE:
            made = await asyncio.to_thread(prepare_rotation, state, target.name)
            present = load_pair(authority_directory(state, target.name), CLIENTS)
            both = (_pem(present.certificate) if present else "") + _pem(made.certificate)
            return AuthorityRotated("", both)
        made = await asyncio.to_thread(finish_rotation, state, target.name)
        return AuthorityRotated("", _pem(made.certificate), in_force=True)

    def _tell(self, target: str, clients: bool, answer: AuthorityRotated, by: str, reason: str) -> None:
        pem = answer.certificate if "BEGIN CERTIFICATE" in answer.certificate else ""
        found = x509.load_pem_x509_certificates(pem.encode())[-1:] if pem else []
        detail = {"serial": f"{found[0].serial_number:x}", "until": found[0].not_valid_after_utc.isoformat()} if found \
            else {}
        self._agent.tell("authority.rotated", {
            "target": target, "of": "clients" if clients else "servers",
            "step": "in force" if answer.in_force else "prepared", "by": by, "reason": reason, "error": answer.error,
            **detail})

    async def keys(self) -> Message:
        agent = self._agent
        found = await asyncio.to_thread(lambda: (*self.authorities(), *_of_ssh(agent.config)))
        return Keys(agent.keys.views(), found)

    def authorities(self) -> tuple[AuthorityView, ...]:
        """Those that have an end.  Blocks."""
        return tuple(self._authorities())

    def hints(self) -> Iterator[str]:
        """What somebody should know before an authority ends, and while one waits."""
        agent, now = self._agent, datetime.now(UTC)
        for one in agent.trust.waiting:
            before = sum(start.since <= one.made for start in agent.owners)
            yield (f"target {one.target}: its new authority is trusted by what is started now, and signs once "
                   f"{before} older workload{'s have' if before != 1 else ' has'} ended (weir ca rotate {one.target} "
                   "--now does not wait, and their clients refuse it)")
        for found in self._authorities():
            ends = datetime.fromisoformat(found.until)
            if ends - now < SOON and not found.next:
                what = "has ended" if ends <= now else f"ends on {ends:%Y-%m-%d}"
                how = f"weir ca rotate {found.target}" + (" --clients --prepare" if found.of == "clients" else "")
                yield f"target {found.target}: the authority of {found.of} {what}: {how}"

    def _authorities(self) -> Iterator[AuthorityView]:
        config = self._agent.config
        for target in config.targets:
            kinds = [("servers", STEM)] if target.hosts else []
            kinds += [("clients", CLIENTS)] if any(row.certificate for row in target.credentials) else []
            for of, stem in kinds:
                try:
                    directory = authority_directory(config.state, target.name)
                    found = load_pair(directory, stem)
                    following = (next_client_authority(config.state, target.name) if of == "clients"
                                 else next((True for one in self._agent.trust.waiting if one.target == target.name),
                                           False))
                except (OSError, ValueError):
                    continue
                if found is not None:
                    yield AuthorityView(target.name, of, f"{found.certificate.serial_number:x}",
                                        found.certificate.not_valid_after_utc.isoformat(), bool(following))


def _of_ssh(config: Config) -> Iterator[AuthorityView]:
    """They have no end."""
    for target in (one for one in config.targets if one.protocol == SSH):
        directory = authority_directory(config.state, target.name)
        names = ["ssh_host_ed25519_key"] + [f"{USERS}.key"] * any(row.certificate for row in target.credentials)
        for name in names:
            if (key := load_key(directory / name)) is not None:
                following = name != names[0] and next_user_authority(config.state, target.name) is not None
                yield AuthorityView(target.name, "hosts" if name == names[0] else "users",
                                    fingerprint(render_public(key.public_key())), "", following)


def _of_users(state: Path, target: str, step: str) -> AuthorityRotated:
    """What sshd trusts; blocks.  As prepare_user_rotation and finish_user_rotation."""
    if step == PREPARE:
        following = prepare_user_rotation(state, target)
        return AuthorityRotated("", render_trusted(target, user_authority(state, target), following))
    return AuthorityRotated("", render_trusted(target, finish_user_rotation(state, target)), in_force=True)


def wrong_reason(reason: str) -> str:
    return "" if len(reason) <= REASON and (not reason or reason.isprintable()) else (
        f"a reason is one line of at most {REASON} characters")


def _pem(certificate: x509.Certificate) -> str:
    return render_certificate(certificate).decode()


