"""What every protocol folder owes: the same however the bytes are cut, an end on record wherever they end, an error of
the protocol for garbage, and nothing to the server before permit."""
from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import kubeplay
import pytest
import sshplay
from pump import SYNC, TableGate, bind, describe, execute, parse, query, render
from scripted import Scripted, open_intents, row

import enforcer.protocols
from enforcer.words import events, inputs
from enforcer.words.commands import CLIENT

Step = tuple[str, bytes]                       # who says what: "client" | "server"
CUTS: Final = (1, 2, 3, 5, 7, 64, 1 << 20)

READ = parse("SELECT id FROM t WHERE id = $1", "s") + bind("3", name="s") + describe("P") + execute() + SYNC
_ID = render(b"T", b"\0\1id\0" + bytes(4) + b"\0\0\0\0\0\x17\0\4\xff\xff\xff\xff\0\0")
POSTGRESQL: Final[list[Step]] = [
    ("client", query("SELECT id FROM t")),
    ("server", _ID + row(b"1") + row(b"22") + render(b"C", b"SELECT 2\0") + render(b"Z", b"I")),
    ("client", READ),
    ("server", render(b"1") + render(b"2") + _ID + row(b"3") + render(b"C", b"SELECT 1\0") + render(b"Z", b"I")),
    ("client", query("COPY t FROM STDIN")),
    ("server", render(b"G", b"\0\0\1\0\0")),
    ("client", render(b"d", b"1\n") + render(b"d", b"2\n") + render(b"c")),
    ("server", render(b"C", b"COPY 2\0") + render(b"Z", b"I")),
    ("client", query("DELETE FROM t")),
    ("server", render(b"C", b"DELETE 9\0") + render(b"Z", b"I")),
    ("client", render(b"X")),
]


class Session:
    """One conversation of one protocol: what is said to whom, and what is recorded."""

    def __init__(self, gate: TableGate, cut: int) -> None:
        self.inner = Scripted(gate, cut=cut)

    def hear(self, who: str, data: bytes) -> None:
        if who == "client":
            self.inner.send(data)
        else:
            self.inner.hear(data)

    def lose(self) -> None:
        self.inner.tell(inputs.ConnectionLost(CLIENT))


@dataclass(frozen=True)
class Play:
    make: Callable[[TableGate, int], Any]          # a Session
    book: list[Step]
    every: set[tuple[str, str]]                    # what its gate denies, so that nothing is permitted
    asked: list[tuple[list[Step], list[bytes]]]    # steps that ask for one thing, and what must not reach the server


PLAYBOOKS: Final[dict[str, Play]] = {
    "kubernetes": Play(
        kubeplay.KubernetesSession, kubeplay.BOOK,
        {(action, "*") for action in ("k8s:create", "k8s:get", "k8s:delete", "k8s:exec")},
        [(steps, [b"POST", b"DELETE", b"exec"]) for steps in kubeplay.ASKED]),
    "postgresql": Play(
        Session, POSTGRESQL,
        {(action, "*") for action in ("sql:select", "sql:insert", "sql:delete", "sql:transaction")},
        [([("client", query("SELECT id FROM t"))], [b"SELECT id"]),
         ([("client", READ)], [bind("3", name="s"), execute()])]),
    "ssh": Play(
        sshplay.SshSession, sshplay.BOOK, {("ssh:exec", "*"), ("ssh:forward-local", "*")},
        [(steps, [b"exec", b"direct-tcpip"]) for steps in sshplay.ASKED]),
}
DENY: Final = TableGate(deny={("sql:delete", "t"), ("ssh:forward-local", "db 5432"), ("k8s:exec", "web")})
FOLDERS: Final = sorted(path.parent.name for path in Path(enforcer.protocols.__path__[0]).glob("*/__init__.py"))


def told(session: Any) -> list[tuple[object, ...]]:
    """Of the events what does not depend on chance, time or the cut (a Bind that comes alone has an intent)."""
    found: list[tuple[object, ...]] = []
    alone = set()
    for event in (record.event for record in session.inner.records):
        if isinstance(event, events.Intent):
            if event.verb == "bind":
                alone.add(event.operation)
            else:
                found.append(("intent", event.verb, event.decision, event.forwarded, event.requests, event.reason))
        elif isinstance(event, events.Result) and event.operation not in alone:
            found.append(("result", event.status, event.tag, event.rows, event.bytes, event.sqlstate))
    return found


def play(name: str, gate: TableGate, cut: int, steps: list[Step] | None = None) -> Any:
    session = PLAYBOOKS[name].make(gate, cut)
    for who, data in PLAYBOOKS[name].book if steps is None else steps:
        session.hear(who, data)
    return session


def test_every_folder_has_a_playbook() -> None:
    assert FOLDERS == sorted(PLAYBOOKS)


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("gate", [TableGate(), DENY], ids=["permit", "deny"])
def test_the_same_however_it_is_cut(name: str, gate: TableGate) -> None:
    whole = play(name, gate, CUTS[-1])
    for cut in CUTS:
        session = play(name, gate, cut)
        assert session.inner.client == whole.inner.client
        assert session.inner.to_server == whole.inner.to_server
        assert told(session) == told(whole)


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("who", ["client", "server"])
def test_truncated_anywhere(name: str, who: str) -> None:
    """Either side's bytes end somewhere: the session is closed on record, with a result or a gap for each intent."""
    book = PLAYBOOKS[name].book
    for index, (speaker, data) in enumerate(book):
        for at in range(0, len(data), 3) if speaker == who else ():
            session = play(name, TableGate(), 1 << 20, [*book[:index], (speaker, data[:at])] if at else book[:index])
            session.lose()
            assert len(session.inner.events(events.SessionClosed)) == 1
            assert not open_intents(session.inner)


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("who", ["client", "server"])
def test_garbage_gives_the_protocols_error(name: str, who: str) -> None:
    """A byte changed anywhere: no exception but ProtocolError (which the session carries out), and an end on record."""
    chance, book = random.Random(3), PLAYBOOKS[name].book
    for index, (speaker, data) in enumerate(book):
        for at in range(len(data)) if speaker == who else ():
            damaged = data[:at] + bytes([chance.randrange(256)]) + data[at + 1:]
            session = play(name, TableGate(), 1 << 20, [*book[:index], (speaker, damaged), *book[index + 1:]])
            session.lose()
            assert len(session.inner.events(events.SessionClosed)) == 1
            assert not open_intents(session.inner)


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("cut", CUTS)
def test_nothing_reaches_the_server_before_permit(name: str, cut: int) -> None:
    """Everything is denied: of what the client asks to be run, nothing is sent, and each refusal is on record."""
    for steps, never in PLAYBOOKS[name].asked:
        session = play(name, TableGate(deny=PLAYBOOKS[name].every), cut, steps)
        for text in never:
            assert text not in session.inner.to_server
        assert [intent.decision for intent in session.inner.intents()] == [2]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_login_in_pieces(name: str) -> None:
    """The hello is the same, but for the cancel key, however the login is cut."""
    make = PLAYBOOKS[name].make
    hello = make(TableGate(), CUTS[-1]).inner.hello
    for cut in CUTS:
        found = make(TableGate(), cut).inner.hello
        assert [one for one in found if one[0] != b"K"] == [one for one in hello if one[0] != b"K"]
