"""Tunnels that the edge takes, and lines of its own to where they lead: what is said to it, and what it says."""
from __future__ import annotations

import pytest
from pump import TableGate
from sshtalk import (
    PACKET,
    WINDOW,
    Talk,
    adjust,
    ask,
    close,
    data,
    direct,
    eof,
    error,
    open_channel,
    opened,
    refused,
    run,
    yes,
)

from enforcer.protocols.ssh import mux
from enforcer.protocols.ssh.channels.tunnel import BEHIND
from enforcer.words import commands as words
from enforcer.words import events, inputs
from enforcer.words.commands import CLIENT, SERVER
from enforcer.words.errors import RemoteProtocolError

THROUGH = (words.OpenThrough, words.ThroughConnected, words.ThroughFailed, words.SendThrough, words.EndThrough,
           words.CloseThrough, words.PauseThrough, words.ResumeThrough)


class Through(Talk):
    """`carry` tells the mux what the edge says, and gives what is said to the edge since the last time."""

    def __init__(self, gate: TableGate | None = None, **options: object) -> None:
        super().__init__(gate, **options)
        self.registered = {"db"}
        self._told = 0

    def carry(self, *given: inputs.Input) -> list[words.Command]:
        for one in given:
            self.mux.carried(one)
        return self.told()

    def told(self) -> list[words.Command]:
        new, self._told = self.log[self._told:], len(self.log)
        return [one for one in new if isinstance(one, THROUGH)]


def tunnel(gate: TableGate | None = None, **more: int) -> Through:
    """Channel 0 leads to the registered "db"."""
    talk = Through(gate)
    assert talk.crew(direct("db", 5432, **more)) == ["< opened 7 0"]
    assert talk.told() == [words.OpenThrough(0, "db", 5432)]
    return talk


def dialled(number: int = 0) -> Through:
    """And channel 1 is the line to it."""
    talk = tunnel()
    talk.carry(inputs.ThroughDials(number, 0))
    assert talk.heard() == ["> open direct-tcpip 1"]
    talk.server(opened(1, 71))
    assert talk.told() == [words.ThroughConnected(number)]
    return talk


def over(talk: Through) -> None:
    assert not talk.mux._channels
    assert not talk.mux._directs
    assert not talk.mux._uplinks
    assert not talk.timers
    assert not talk.book.busy


# From the crew to a session of its own

def test_a_whole_session() -> None:
    talk = dialled()
    talk.crew(data(0, b"hello"))
    assert talk.told() == [words.SendThrough(0, CLIENT, b"hello")]
    talk.carry(inputs.ThroughData(0, SERVER, b"HELLO"))
    assert talk.heard() == ["> data 71 HELLO"]
    talk.server(data(1, b"ANSWER"))
    assert talk.told() == [words.SendThrough(0, SERVER, b"ANSWER")]
    talk.carry(inputs.ThroughData(0, CLIENT, b"answer"))
    assert talk.heard() == ["< data 7 answer"]
    talk.crew(eof(0), close(0))
    assert talk.told() == [words.EndThrough(0, CLIENT), words.CloseThrough(0, CLIENT)]
    assert talk.book.busy is False
    talk.carry(inputs.ThroughEnded(0, SERVER), inputs.ThroughClosed(0, "client closed"))
    assert talk.server(close(1)) == ["> close 71"]
    over(talk)
    assert talk.results() == [(1, "ok", "")]
    (noted,) = talk.events(events.SessionNoted)
    assert (noted.name, noted.value) == ("tunnel", "operation 1: target db, session INNER")  # type: ignore[attr-defined]
    ended = {one.stream: (one.bytes, one.kept) for one in talk.events(events.StreamEnded)}  # type: ignore[attr-defined]
    assert ended["in"] == (5, 0)


def test_the_session_ends_first() -> None:
    talk = dialled()
    talk.carry(inputs.ThroughData(0, CLIENT, b"bye"), inputs.ThroughEnded(0, CLIENT), inputs.ThroughEnded(0, SERVER))
    assert talk.heard() == ["< data 7 bye", "< eof 7", "< close 7", "> close 71"]
    talk.carry(inputs.ThroughClosed(0, "done"))
    assert talk.results() == [(1, "ok", "")]
    talk.crew(close(0))
    talk.server(close(1))
    over(talk)


def test_what_waits_for_a_window_comes_before_the_end() -> None:
    talk = tunnel(window=2)
    talk.carry(inputs.ThroughData(0, CLIENT, b"last words"), inputs.ThroughEnded(0, CLIENT),
               inputs.ThroughClosed(0, "done"))
    assert talk.heard() == ["< data 7 la"]
    assert talk.mux.ending
    assert talk.crew(adjust(0, 100)) == ["< data 7 st words", "< eof 7", "< close 7"]
    talk.crew(close(0))
    assert not talk.mux.ending
    over(talk)


@pytest.mark.parametrize("kind", ["opened", "refused", "reason"])
def test_nothing_is_sent_before_the_edge_has_answered(kind: str) -> None:
    talk = Through()
    talk.mux.message(CLIENT, direct("db", 5432))
    assert talk.heard() == []
    with pytest.raises(RemoteProtocolError):
        talk.mux.message(CLIENT, data(0, b"x"))
    talk._later.clear()
    talk.carry({"opened": inputs.ThroughOpened(0, "db", "INNER"), "refused": inputs.ThroughRefused(0, ""),
                "reason": inputs.ThroughRefused(0, "locked")}[kind])
    assert talk.heard() == {"opened": ["< opened 7 0"], "refused": ["> open direct-tcpip 0"],
                            "reason": ["< refused 7 1 weir: locked"]}[kind]
    if kind == "reason":
        over(talk)
        assert talk.results() == [(1, "error", "")]


def test_denied_asks_the_edge_for_nothing() -> None:
    talk = Through(TableGate(deny={("ssh:forward-local", "db 5432")}))
    talk.crew(direct("db", 5432))
    assert talk.told() == []
    over(talk)


def test_held_asks_the_edge_once_it_is_approved() -> None:
    talk = Through(TableGate(hold={("ssh:forward-local", "db 5432")}))
    talk.crew(direct("db", 5432))
    assert talk.told() == []
    assert talk.answer() == ["< opened 7 0"]
    assert talk.told() == [words.OpenThrough(0, "db", 5432)]


def test_a_session_that_takes_nothing_stops_the_crew() -> None:
    talk = tunnel()
    talk.carry(inputs.ThroughFull(0, CLIENT, True))
    sent = 0
    with pytest.raises(RemoteProtocolError):
        while sent < 4 * WINDOW:
            talk.crew(data(0, bytes(PACKET)))
            sent += PACKET
    assert sent == WINDOW
    talk = tunnel()
    talk.carry(inputs.ThroughFull(0, CLIENT, True))
    assert talk.crew(*[data(0, bytes(PACKET))] * 10) == []
    talk.carry(inputs.ThroughFull(0, CLIENT, False))
    assert talk.heard() == [f"< adjust 7 {10 * PACKET}"]


def test_a_crew_that_does_not_read_stops_the_session() -> None:
    talk = tunnel(window=0)
    said = talk.carry(*[inputs.ThroughData(0, CLIENT, bytes(PACKET))] * (BEHIND // PACKET + 3))
    assert said == [words.PauseThrough(0, CLIENT)]
    talk.crew(adjust(0, PACKET))
    assert talk.told() == []
    talk.crew(adjust(0, BEHIND))
    assert talk.told() == [words.ResumeThrough(0, CLIENT)]


def test_the_same_towards_the_server() -> None:
    talk = tunnel()
    talk.carry(inputs.ThroughDials(0, 0))
    talk.server(opened(1, 71, window=0))
    said = talk.carry(*[inputs.ThroughData(0, SERVER, bytes(PACKET))] * (BEHIND // PACKET + 3))
    assert said == [words.ThroughConnected(0), words.PauseThrough(0, SERVER)]
    talk.server(adjust(1, BEHIND + PACKET))
    assert talk.told() == [words.ResumeThrough(0, SERVER)]
    talk.carry(inputs.ThroughFull(0, SERVER, True))
    talk.heard()
    assert talk.server(*[data(1, bytes(PACKET))] * 10) == []
    talk.carry(inputs.ThroughFull(0, SERVER, False))
    assert talk.heard() == [f"> adjust 71 {10 * PACKET}"]


# Lines of the edge

def test_a_line_of_weirs_own_is_on_record() -> None:
    talk = dialled(-1)
    intents = [(one.verb, one.actor) for one in talk.events(events.Intent)]  # type: ignore[attr-defined]
    assert intents == [("forward-local", "crew"), ("dial", "weir")]
    talk.server(data(1, b"x"))
    assert talk.told() == [words.SendThrough(-1, SERVER, b"x")]
    talk.server(eof(1), close(1))
    assert talk.told() == [words.EndThrough(-1, SERVER), words.CloseThrough(-1, SERVER)]
    assert talk.results() == [(2, "ok", "")]
    assert not talk.mux._uplinks


def test_the_server_refuses_the_line() -> None:
    talk = tunnel()
    talk.carry(inputs.ThroughDials(-1, 0))
    talk.server(refused(1, 2, "Connection refused"))
    assert talk.told() == [words.ThroughFailed(-1, "Connection refused")]
    assert talk.results() == [(2, "error", "")]
    assert list(talk.mux._channels) == [0]
    assert not talk.mux._uplinks


@pytest.mark.parametrize("answer", ["opened", "refused"])
def test_a_line_that_nobody_waits_for_any_more(answer: str) -> None:
    talk = tunnel()
    talk.carry(inputs.ThroughDials(-1, 0), inputs.ThroughEnded(-1, SERVER))
    talk.heard()
    if answer == "opened":
        assert talk.server(opened(1, 71)) == ["> close 71"]
        talk.server(close(1))
    else:
        talk.server(refused(1))
    assert not [one for one in talk.told() if isinstance(one, words.ThroughConnected | words.ThroughFailed)]
    assert not talk.mux._uplinks
    assert list(talk.mux._channels) == [0]
    assert [one[0] for one in talk.results()] == [2]


def test_a_line_for_a_tunnel_that_is_gone_fails() -> None:
    talk = tunnel()
    assert talk.carry(inputs.ThroughDials(-1, 9)) == [words.ThroughFailed(-1, "too many channels are open")]
    talk.crew(close(0))
    talk.carry(inputs.ThroughClosed(0, ""))
    assert talk.carry(inputs.ThroughDials(-2, 0)) != []
    over(talk)


def test_a_line_outlives_the_crews_channel() -> None:
    """A cancel goes to the server when the crew is gone already."""
    talk = tunnel()
    assert talk.crew(close(0)) == ["< close 7"]
    assert talk.carry(inputs.ThroughDials(-1, 0)) == [words.CloseThrough(0, CLIENT)]
    assert talk.heard() == ["> open direct-tcpip 1"]
    talk.server(opened(1, 71))
    talk.carry(inputs.ThroughData(-1, SERVER, b"cancel"), inputs.ThroughEnded(-1, SERVER),
               inputs.ThroughClosed(0, ""))
    assert talk.heard() == ["> data 71 cancel", "> close 71"]
    talk.server(close(1))
    over(talk)


def test_lines_are_bounded() -> None:
    talk = tunnel()
    said = talk.carry(*(inputs.ThroughDials(-number, 0) for number in range(1, mux.MOST + mux.SPARE + 10)))
    assert len(said) == 10
    assert {type(one) for one in said} == {words.ThroughFailed}


@pytest.mark.parametrize("message", [eof(1), close(1), data(1, b"x"), ask(1, "x"), adjust(1, 5), yes(1)])
def test_a_crew_has_no_part_in_a_line(message: bytes) -> None:
    talk = dialled()
    if message == adjust(1, 5):
        talk.crew(message)
        assert talk.heard() == []
        return
    with pytest.raises(RemoteProtocolError):
        talk.crew(message)


def test_what_nobody_knows_is_nothing() -> None:
    talk = tunnel()
    given = (inputs.ThroughData(9, CLIENT, b"x"), inputs.ThroughData(9, SERVER, b"x"), inputs.ThroughFull(9, 0, True),
             inputs.ThroughEnded(9, CLIENT), inputs.ThroughEnded(9, SERVER), inputs.ThroughClosed(9, ""),
             inputs.ThroughOpened(9, "x", "y"), inputs.ThroughRefused(9, ""))
    assert talk.carry(*given) == []
    assert talk.heard() == []


def test_a_crew_that_closes_before_the_edge_has_answered_waits_for_it() -> None:
    talk = Through()
    talk.mux.message(CLIENT, direct("db", 5432))
    with pytest.raises(RemoteProtocolError):           # it was not told that it is open
        talk.mux.message(CLIENT, close(0))


# Ends

def test_a_kill_says_nothing_to_tunnels() -> None:
    talk = dialled()
    talk.crew(open_channel(number=8))
    talk.server(opened(2, 72))
    talk.crew(run(2))
    talk.server(yes(2))
    talk.heard()
    talk.mux.kill()
    assert talk.heard() == ["> request 72 signal"]


def test_a_tunnel_keeps_the_session_busy_until_it_is_closed() -> None:
    talk = dialled()
    assert talk.book.busy
    talk.carry(inputs.ThroughEnded(0, CLIENT))
    assert talk.mux.ending
    talk.crew(close(0))
    assert not talk.mux.ending
    assert not talk.book.busy


def test_extended_data_to_a_session_is_nobodys() -> None:
    talk = dialled()
    talk.server(error(1, b"x"))
    assert talk.told() == [words.SendThrough(0, SERVER, b"x")]
