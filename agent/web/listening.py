"""Where page and metrics are served: sockets that the agent opens and gives to their processes; and whose connections
are not taken.

A crew answers nothing, whatever its uid and network: by a Unix socket its process is asked about, over TCP its socket.
Nor does anything of Weir's own that a crew could speak through: an enforcer that is permitted to reach the page is not
whoever logs in there.
"""
from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.block import cgroups
from agent.block.attribution import Held
from agent.contract.web import Admit, Admitted
from agent.control import Lately
from agent.layout import bound
from probes import abi

if TYPE_CHECKING:
    from agent.supervisor import Agent

LOG = logging.getLogger("weir.web")

BACKLOG: Final = 128
LOOKS: Final = 4                      # at whose connection one is, at a time
PAGE: Final = "page"


def open_page(place: tuple[str, int] | None, path: Path, section: str = "[web]") -> list[socket.socket]:
    """`place`: address and port, None: the Unix socket at `path`; `section`: of the configuration, for errors.  Raises
    OSError."""
    family = socket.AF_UNIX if place is None else socket.AF_INET6 if ":" in place[0] else socket.AF_INET
    one = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if place is None:
            fresh = bound(path)
            fresh.unlink(missing_ok=True)
            one.bind(str(fresh))
            fresh.chmod(0o666)        # who it is settles a login; crews are refused by who they are
            one.listen(BACKLOG)
            fresh.rename(path)
        else:
            path.unlink(missing_ok=True)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(place)
            one.listen(BACKLOG)
    except OSError as reason:
        one.close()
        where = str(path) if place is None else f"{place[0]} port {place[1]}"
        raise OSError(reason.errno, f"{section} listen {where}: {reason.strerror}") from None
    return [one]


def why_not(place: tuple[str, int], section: str = "[web]") -> str:
    """Why nothing can be served there now, "" where it can."""
    with socket.socket(socket.AF_INET6 if ":" in place[0] else socket.AF_INET) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(place)
            one.listen(1)
        except OSError as reason:
            return f"{section} listen {place[0]} port {place[1]}: {reason.strerror}"
    return ""


def why_refused(
    sockets: Iterable[Held], peer: tuple[str, int], own: tuple[str, int], crews: Collection[int], weir: Collection[int],
    here: bool, what: str = PAGE,
) -> str:
    """Pure: why the TCP connection from `peer` to `own` is not taken, "" where it is.  `sockets`: this host's with the
    peer's port; `crews`, `weir`: ids of the cgroups that are a crew's, and of Weir's processes; `here`: whether the
    peer's address is one of this host's; `what` is served there."""
    ends = (abi.packed(plain(peer[0])), peer[1], abi.packed(plain(own[0])), own[1])
    found = [one for one in sockets if (one.local, one.local_port, one.remote, one.remote_port) == ends]
    if any(one.cgroup in crews for one in found):
        return f"a crew may not speak to Weir's {what}"
    if any(one.cgroup in weir for one in found):
        return "what Weir's own processes connect for others ends here"
    if here and not any(one.cgroup for one in found):
        return "the process that connected cannot be told"
    return ""


def plain(address: str) -> str:
    """Without a zone, and IPv4 as it is."""
    found = ipaddress.ip_address(address.partition("%")[0])
    return str(getattr(found, "ipv4_mapped", None) or found)


def is_here(address: str, has: bool) -> bool:
    """`has`: it is one of the host's interfaces'."""
    return has or ipaddress.ip_address(plain(address)).is_loopback


class Admission:
    """Of what dials a listener: `admit` says why it is not taken.  `what` is served there, and `name` begins the events
    of who is refused."""

    def __init__(self, agent: Agent, name: str, what: str) -> None:
        self._agent, self._name, self._what = agent, name, what
        self._looks = asyncio.Semaphore(LOOKS)
        self._lately = Lately()

    async def admit(self, question: Admit) -> Admitted:
        async with self._looks:
            try:
                reason = await asyncio.to_thread(self._why_refused, question)
            except (OSError, ValueError, RuntimeError) as wrong:
                LOG.warning("who has connected to the %s cannot be told: %s", self._what, wrong)
                reason = "who has connected cannot be told"
        if reason and (times := self._lately.again(reason)):
            self._agent.tell(f"{self._name}.refused", {
                "reason": reason, "pid": question.pid, "address": question.address, "times": times})
        return Admitted(question.number, reason)

    def _why_refused(self, question: Admit) -> str:
        kernel, own = self._agent.kernel, self._agent.own
        if question.pid:
            if kernel.is_crew(question.pid):
                return f"a crew may not speak to Weir's {self._what}"
            return ("what Weir's own processes connect for others ends here"
                    if cgroups.path_of(question.pid).startswith(f"/{own.name}/") else "")
        peer, place = (question.address, question.port), (question.own_address, question.own_port)
        here = is_here(question.address, self._agent.has_address(plain(question.address)))
        weir = {cgroups.cgroup_id(one) for one in cgroups.below(own)} if own.is_dir() else set()
        return why_refused(kernel.tcp_ends(question.port), peer, place, kernel.crew_cgroups(), weir, here, self._what)
