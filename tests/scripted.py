"""A session whose server is the test's: the layer is logged in as it should be, then hears what the test says."""
from __future__ import annotations

from pump import Pump, TableGate, render

from agent.contract.target import ColumnLabel
from enforcer.protocols.postgresql.catalogue import make_catalogue
from enforcer.words import commands as words
from enforcer.words import events, inputs
from enforcer.words.commands import SERVER

PEOPLE = 20_000
ASKED = b'["shop", "app", ["pg_catalog", "public"], null]'


def row(*values: bytes) -> bytes:
    body = len(values).to_bytes(2, "big") + b"".join(len(one).to_bytes(4, "big") + one for one in values)
    return render(b"D", body)


LOGIN = (
    render(b"R", b"\0\0\0\0") + render(b"S", b"client_encoding\0UTF8\0") + render(b"K", b"\0\0\0\x07key!") +
    render(b"Z", b"I"),
    render(b"1") + render(b"2") + row(ASKED) + render(b"C", b"SELECT 1\0") + render(b"3") * 2 + render(b"Z", b"I"),
)


class Scripted(Pump):
    """A session whose server is the test's: it says what the test says, after a login as it should be."""

    script: tuple[bytes, ...] = LOGIN

    def __init__(self, gate: TableGate | None = None, labels: tuple[ColumnLabel, ...] = (), **more: object) -> None:
        self.left = list(self.script)
        super().__init__(0, "app", "shop", gate or TableGate(), labels=labels, **more)  # type: ignore[arg-type]
        self.client = self.to_server = b""

    def step(self, seconds: float = 20) -> None:
        self.hear(self.left.pop(0))

    def hear(self, data: bytes) -> None:
        for at in range(0, len(data), self.cut):
            self.receive(SERVER, data[at:at + self.cut])

    def do(self, commands: list[words.Command]) -> None:
        for command in commands:
            if isinstance(command, words.OpenConnection):
                self.tell(inputs.Connected("127.0.0.1:1"))
            else:
                super().do([command])

    def catalogue(self, database: str, version: int) -> object:
        return make_catalogue(
            version, self.target.labels, [(PEOPLE, "public", "people", "r"), (PEOPLE + 1, "public", "t", "r")],
            [(PEOPLE, 1, "id"), (PEOPLE, 2, "name"), (PEOPLE, 3, "email"), (PEOPLE + 1, 1, "id")], [], [], [])


def open_intents(session: Pump) -> set[int]:
    """Permitted intents without a result or gap."""
    done = {event.operation for event in session.events(events.Result)}  # type: ignore[attr-defined]
    for gap in session.events(events.Gap):
        done |= set(gap.operations)  # type: ignore[attr-defined]
    return {event.operation for event in session.events(events.Intent)} - done  # type: ignore[attr-defined]
