"""The edge of tests/sshstage.py, as a process: sshstage_edge.py DIRECTORY PORT SERVER_PORT.

What a command says decides: "denied" is denied, "held" waits for somebody, who is there where STAGE_APPROVE says so."""
from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path

import uvloop

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from agent.contract.credential import Credential  # noqa: E402
from agent.contract.owner import Owner, Process  # noqa: E402
from agent.contract.target import Target  # noqa: E402
from enforcer.approval.holds import Holds  # noqa: E402
from enforcer.edge import clock  # noqa: E402
from enforcer.edge.commit import GroupCommit  # noqa: E402
from enforcer.edge.edge import Configuration, Edge  # noqa: E402
from enforcer.edge.listener import listen  # noqa: E402
from enforcer.recording.journal import JournalWriter  # noqa: E402
from enforcer.words.decisions import DENY, HOLD, PERMIT, Decision, HoldTerms  # noqa: E402


class Gate:
    version = 1

    def decide(self, principal, requests, labels=(), approved=False) -> Decision:
        said = " ".join(one.resource for one in requests)
        if "denied" in said:
            return Decision(DENY, ("no",), "it says denied")
        if "held" in said and not approved:
            return Decision(HOLD, ("ask",), holds=(HoldTerms("ask", ("dba",)),))
        return Decision(PERMIT, ("yes",))


class Journal(JournalWriter):
    """On a disk that takes its time."""

    def sync(self) -> None:
        time.sleep(float(os.environ.get("STAGE_SYNC", 0)))
        super().sync()


class Asked:
    def __init__(self, owner: Owner, login: Credential) -> None:
        self.owner, self.login = owner, login

    async def whois(self, *asked) -> Owner:
        return self.owner

    async def credential(self, *asked, **more) -> Credential:
        return self.login

    def unused(self, credential) -> None: ...


async def approve(holds: Holds) -> None:
    """Somebody who lets everything through."""
    while True:
        await asyncio.sleep(0.02)
        for view in holds.views():
            if view.state == "pending":
                holds.decide(view.ticket, True, "local:dba", ("dba",), "so it is")


async def main(at: Path, port: int, server_port: int) -> None:
    loop = asyncio.get_running_loop()
    target = Target(
        "box", "ssh", ("127.0.0.1",), server_port, ("127.0.0.1",), host_keys=((at / "weir").read_text(),),
        known_hosts=f"[127.0.0.1]:{server_port} {(at / 'host.pub').read_text()}",
        payload_limit=int(os.environ.get("STAGE_LIMIT", 1 << 20)), payload=os.environ.get("STAGE_PAYLOAD", "none"))
    process = Process(4711, "/usr/bin/ssh", "", ("ssh",))
    owner = Owner("crew", 1000, "crew", "local:crew", ("data",), process, "/crew", 99, "127.0.0.1", server_port, "mark",
                  "box", "")
    edge = Edge(loop, Asked(owner, Credential("truth", key=(at / "user").read_text())))
    edge.configuration = Configuration({"box": target}, {}, Gate(), bytes(32), 200, "writes")
    journal = Journal(at / "journal", "enforcer0", os.urandom(8).hex(), limit=256 << 20, reserve=0)
    edge.commit = GroupCommit(loop, journal, 256 << 20, edge.recording_failed, edge.press)
    edge.holds = Holds(clock.now, clock.monotonic, os.urandom, edge.answer_hold, edge.hold_changed)
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen(256)
    await listen(edge, (listening.detach(),))
    approving = asyncio.create_task(approve(edge.holds)) if os.environ.get("STAGE_APPROVE") else None
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    for session in list(edge.live.values()):
        session.end("the enforcer stops")
    await asyncio.sleep(0.5)
    if approving is not None:
        approving.cancel()
    edge.commit.close()


logging.basicConfig(level=os.environ.get("STAGE_LEVEL", "INFO"))
uvloop.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
