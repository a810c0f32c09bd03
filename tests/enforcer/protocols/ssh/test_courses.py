"""What runs in a session's channel, as transcripts with a clock that the test turns: masks of output and errors, what
is typed at a terminal, files through whatever starts them."""
from __future__ import annotations

import dataclasses
import random
import struct
from hashlib import sha256

import pytest
from pump import TableGate
from sshtalk import (
    Talk,
    adjust,
    ask,
    close,
    data,
    env,
    eof,
    error,
    no,
    open_channel,
    opened,
    pty,
    run,
    status,
    string,
    u32,
    yes,
)

from agent.contract.target import ContentLabel
from enforcer.core.terminal.plain import HELD
from enforcer.policy.detectors import LABELS
from enforcer.protocols.ssh.messages import DATA, EXTENDED_DATA, WINDOW_ADJUST, Fields
from enforcer.protocols.ssh.sftp import messages as m
from enforcer.words import commands as words
from enforcer.words import events
from enforcer.words.commands import CLIENT, SERVER
from enforcer.words.decisions import DENY, HOLD, PERMIT, Decision
from enforcer.words.errors import RemoteProtocolError

NANO = 1_000_000_000
TOKEN = b"ghp_" + b"Ab3d" * 9
MASKED = b"ghp_" + b"*" * 36
CARD = b"4111111111111111"
SHOWN = b"411111" + b"*" * 10
VAULT = (ContentLabel("secret.vault", command="vault read *"), ContentLabel("secret.key", path="/etc/app/*.key"))
DETECTORS = tuple(LABELS)


class Timed(Talk):
    """A clock of its own: `turn` fires what is due."""

    def __init__(self, gate: TableGate | None = None, **options: object) -> None:
        super().__init__(gate, **options)
        self.clock, self._due = NANO, {}       # type: ignore[var-annotated]
        self.context = self.book.context = dataclasses.replace(self.context, monotonic=lambda: self.clock)

    def _say(self, command: words.Command) -> None:
        super()._say(command)
        if isinstance(command, words.StartTimer):
            self._due[command.name] = self.clock + command.seconds * NANO

    def turn(self, seconds: float) -> list[str]:
        end = self.clock + int(seconds * NANO)
        while self.timers and (next_ := min(self._due[name] for name in self.timers)) <= end:
            self.clock = max(self.clock, int(next_) + 1)
            name = next(name for name in self.timers if self._due[name] == next_)
            del self.timers[name]
            self.mux.fired(name)
        self.clock = end
        return self.heard()

    def content(self, stream: str) -> bytes:
        """As it is on record."""
        salted = {blob[0]: blob[2] for one in self.log if isinstance(one, words.Record) for blob in one.blobs}
        return b"".join(salted[one.content] for one in self.events(events.Streamed)  # type: ignore[attr-defined]
                        if one.stream == stream and one.content)  # type: ignore[attr-defined]

    def everything(self) -> bytes:
        """All that is on record."""
        told = [repr(one.event).encode() + b"".join(blob[2] for blob in one.blobs)
                for one in self.log if isinstance(one, words.Record)]
        return b"\n".join(told)

    def noted(self) -> list[tuple[str, str]]:
        return [(one.name, one.value) for one in self.events(events.SessionNoted)]  # type: ignore[attr-defined]


def begun(line: str = "run", terminal: bool = False, gate: TableGate | None = None, **options: object) -> Timed:
    talk = Timed(gate, **{"detectors": DETECTORS, "payload": "content", **options})
    talk.crew(open_channel())
    talk.server(opened(0))
    if terminal:
        talk.crew(pty(0))
        talk.server(yes(0))
    talk.crew(run(0, line))
    talk.server(yes(0))
    return talk


def over(talk: Timed) -> None:
    """Ends it from the server; nothing runs any more, no timer, no channel."""
    talk.server(status(0), eof(0), close(0))
    talk.crew(close(0))
    assert not talk.timers
    assert not talk.book.busy
    assert not talk.mux._channels


# Commands whose output is masked whole

def test_a_labelled_command_is_all_stars() -> None:
    talk = begun("vault read a/b", content_labels=VAULT)
    assert talk.server(data(0, b"key: s3cret\n"), error(0, b"warn\n")) == [
        "< data 7 **** ******\n", "< error 7 ****\n"]
    assert talk.noted() == [("masked", "operation 1: secret.vault")]
    over(talk)
    assert (talk.content("out"), talk.content("err")) == (b"**** ******\n", b"****\n")
    assert b"s3cret" not in talk.everything()


def test_who_may_see_it_does() -> None:
    talk = begun("vault read a/b", gate=TableGate(unmasked={"secret.vault"}), content_labels=VAULT, detectors=())
    assert talk.server(data(0, b"key: s3cret\n")) == ["< data 7 key: s3cret\n"]
    assert talk.noted() == []


@pytest.mark.parametrize("line", ["sh -c 'vault read x'", "echo $(vault read x)", "$UNKNOWN", "true; vault read x"])
def test_labelled_commands_inside_of_others(line: str) -> None:
    talk = begun(line, content_labels=VAULT)
    assert talk.server(data(0, b"abc")) == ["< data 7 ***"]


def test_whole_masks_hold_nothing_back() -> None:
    talk = begun("vault read a/b", content_labels=VAULT)
    assert talk.server(data(0, b"a"), data(0, "é".encode()[:1]), data(0, "é".encode()[1:])) == ["< data 7 *"] * 3
    assert not talk.timers


@pytest.mark.parametrize("line", ["rsync --server --sender -logDtpr . /etc/app", "git-upload-pack '/etc/app/a.key'"])
def test_what_cannot_be_masked_in_it_is_denied(line: str) -> None:
    talk = Timed(content_labels=VAULT)
    talk.crew(open_channel())
    talk.server(opened(0))
    heard = talk.crew(run(0, line))
    assert heard[0].startswith("< error 7 weir: permission denied: what it moves may hold secret.key, which cannot")
    assert heard[1:] == ["< request 7 keepalive@openssh.com ?"]
    (intent,) = talk.events(events.Intent)
    assert (intent.decision, intent.rules) == (DENY, ("strict-masking",))  # type: ignore[attr-defined]
    assert not talk.unasked()
    assert [one[1:] for one in talk.results()] == [("denied", "")]


def test_what_cannot_be_masked_in_it_goes_where_it_may_be_seen() -> None:
    talk = begun("rsync --server --sender -logDtpr . /etc/app", gate=TableGate(unmasked={"secret.key"}),
                 content_labels=VAULT)
    assert talk.server(data(0, TOKEN)) == ["< data 7 " + TOKEN.decode()]


class Turning(TableGate):
    """What it holds may be seen until it is approved."""

    def decide(self, principal, requests, labels=(), approved=False):  # type: ignore[no-untyped-def]
        decision = super().decide(principal, requests, labels, approved)
        return Decision(decision.outcome, decision.rules, masked=labels) if approved else decision


def test_policies_that_change_while_it_is_held_count() -> None:
    gate = Turning(hold={("rsync:read", "/etc/app")}, unmasked={"secret.key"})
    talk = Timed(gate, content_labels=VAULT)
    talk.crew(open_channel())
    talk.server(opened(0))
    talk.crew(run(0, "rsync --server --sender -logDtpr . /etc/app"))
    assert len(talk.holds) == 1
    heard = talk.answer()
    assert not [one for one in heard if one.startswith("> ")]
    assert "which cannot be masked in it" in heard[0]
    assert not talk.book.busy
    assert talk.results()[-1][1] == "denied"


# Detectors

@pytest.mark.parametrize("cut", range(1, len(TOKEN) + 2))
def test_a_secret_that_is_cut_over_messages(cut: int) -> None:
    talk = begun()
    whole = b"t " + TOKEN + b" end\n"
    talk.server(data(0, whole[:cut]), data(0, whole[cut:]))
    assert talk.content("out") == b"t " + MASKED + b" end\n"
    assert talk.noted() == [("masked", "operation 1: secret.token.github")]
    over(talk)
    assert TOKEN[8:] not in talk.everything()


@pytest.mark.parametrize("kind", ["out", "err"])
def test_both_streams_are_masked_each_on_its_own(kind: str) -> None:
    talk = begun()
    say, other = (data, error) if kind == "out" else (error, data)
    for at in range(0, len(TOKEN), 5):
        talk.server(say(0, TOKEN[at:at + 5]), other(0, b"x"))
    talk.server(say(0, b"\n"))
    streams = {name: talk.content(name) for name in ("out", "err")}
    assert streams[kind] == MASKED + b"\n"
    assert set(streams["err" if kind == "out" else "out"]) == {ord("x")}


@pytest.mark.parametrize("how", ["timer", "eof", "exit-status", "exit-signal", "close"])
def test_what_is_held_goes_on_before_the_end(how: str) -> None:
    talk = begun()
    assert talk.server(data(0, b"n " + CARD[:10])) == ["< data 7 n 411111"]
    if how == "timer":
        assert talk.turn(HELD * 0.5) == []
        heard = talk.turn(HELD)
    else:
        heard = talk.server({
            "eof": eof(0), "exit-status": status(0), "close": close(0),
            "exit-signal": ask(0, "exit-signal", string(b"TERM") + b"\0" + string(b"") * 2, False)}[how])
    assert heard[0] == "< data 7 1111"
    assert len(heard) > 1 or how == "timer"
    talk.turn(1)
    assert not talk.timers
    if how != "close":
        over(talk)


def test_the_time_runs_from_what_is_held_now() -> None:
    """A stream that is held for something all the time: each gets its own time."""
    talk = begun()
    talk.server(data(0, CARD[:8]))
    for _ in range(20):
        talk.turn(HELD * 0.4)
        talk.server(data(0, CARD[8:] + b" " + CARD[:8]))
    talk.turn(1)
    assert talk.content("out") == (SHOWN + b" ") * 20 + CARD[:8]
    over(talk)


def test_one_stream_does_not_hurry_the_other() -> None:
    talk = begun()
    talk.server(data(0, CARD[:8]))
    talk.turn(HELD * 0.8)
    talk.server(error(0, CARD[:8]))
    talk.turn(HELD * 0.5)             # the first one's time is over
    talk.server(error(0, CARD[8:] + b"\n"))
    assert (talk.content("out"), talk.content("err")) == (CARD[:8], SHOWN + b"\n")
    over(talk)


def test_a_stream_that_drips_is_not_held_without_end() -> None:
    talk = begun()
    for one in CARD[:14]:
        talk.server(data(0, bytes((one,))))
        talk.turn(HELD * 0.3)
    assert len(talk.content("out")) >= 10
    over(talk)


def given(talk: Timed, peer: int) -> int:
    """Bytes of window that this peer was given back."""
    return sum(struct.unpack("!I", one[1][5:9])[0] for one in talk.log
               if isinstance(one, tuple) and one[0] == peer and one[1][0] == WINDOW_ADJUST)


def test_windows_come_back_while_a_mask_holds() -> None:
    talk = begun()
    piece = b"x" * 32000 + b" " + CARD[:9]
    for count in range(1, 201):
        talk.server(data(0, piece))
        talk.crew(adjust(0, len(piece)))
        assert given(talk, SERVER) > count * len(piece) - (128 << 10)
    over(talk)


def test_detectors_that_the_crew_may_see_do_nothing() -> None:
    talk = begun(gate=TableGate(unmasked=set(LABELS.values())))
    assert talk.server(data(0, TOKEN)) == ["< data 7 " + TOKEN.decode()]
    assert not talk.timers


def test_each_label_is_noted_once_an_operation() -> None:
    talk = begun()
    for _ in range(3):
        talk.server(data(0, TOKEN + b"\n"), error(0, TOKEN + b"\n"), data(0, CARD + b"\n"))
    assert talk.noted() == [("masked", "operation 1: secret.token.github"),
                            ("masked", "operation 1: pci.card-number")]


def test_input_is_not_masked_and_its_secrets_are_the_crews_own() -> None:
    talk = begun()
    assert talk.crew(data(0, TOKEN)) == ["> data 70 " + TOKEN.decode()]


def test_nothing_follows_the_close() -> None:
    talk = begun()
    talk.server(data(0, b"n " + CARD[:10]))
    assert talk.crew(close(0)) == ["< close 7", "> close 70"]
    assert not talk.timers
    assert talk.turn(5) == []
    assert talk.server(data(0, b"late"), close(0)) == []
    assert talk.results() == [(1, "cancelled", "")]
    assert not talk.mux._channels


def test_the_digest_is_of_what_was_delivered() -> None:
    talk = begun()
    talk.server(data(0, TOKEN + b"\n"))
    over(talk)
    assert sha256(MASKED + b"\n").hexdigest().encode() in talk.everything()
    assert sha256(TOKEN + b"\n").hexdigest().encode() not in talk.everything()


# Terminals

def test_a_password_is_in_no_event() -> None:
    talk = begun("sudo -i", terminal=True)
    talk.server(data(0, b"[sudo] password for app: "))
    for one in b"hunter2-s3cret":
        assert talk.crew(data(0, bytes((one,)))) == [f"> data 70 {chr(one)}"]
        talk.turn(0.05)
    talk.crew(data(0, b"\r"))
    talk.server(data(0, b"\r\nwelcome\r\n# "))
    talk.turn(5)
    over(talk)
    assert talk.content("in") == b"*" * 14 + b"\r"
    assert b"hunter" not in talk.everything()
    for size in range(1, 15):
        assert sha256(b"hunter2-s3cret"[:size]).hexdigest().encode() not in talk.everything()
    assert sha256(b"hunter2-s3cret\r").hexdigest().encode() not in talk.everything()


@pytest.mark.parametrize("how", ["time", "server", "crew"])
def test_what_does_not_come_back_is_stars_however_it_ends(how: str) -> None:
    talk = begun("read -s x", terminal=True)
    talk.crew(data(0, b"s3cret"))
    assert talk.timers
    if how == "time":
        talk.turn(3)
        assert not talk.timers
    if how == "crew":
        talk.crew(close(0))
        talk.server(close(0))
    else:
        over(talk)
    assert not talk.timers
    assert talk.content("in") == b"******"
    assert b"s3cret" not in talk.everything()


def test_what_comes_back_is_on_record_with_its_offsets() -> None:
    talk = begun("bash", terminal=True)
    for one in b"ls":
        talk.crew(data(0, bytes((one,))))
        talk.server(data(0, bytes((one,))))
    talk.crew(data(0, b"\r"))
    talk.server(data(0, b"\r\n"))
    typed = [(one.offset, one.bytes) for one in talk.events(events.Streamed)  # type: ignore[attr-defined]
             if one.stream == events.TYPED]  # type: ignore[attr-defined]
    assert typed == [(0, 1), (1, 1), (2, 1)]
    over(talk)
    assert talk.content("in") == b"ls\r"
    (ended,) = (one for one in talk.events(events.StreamEnded) if one.stream == "in")  # type: ignore[attr-defined]
    assert (ended.bytes, ended.kept) == (3, 3)  # type: ignore[attr-defined]


def test_each_size_of_what_is_typed_stands_before_it_goes() -> None:
    talk = begun("bash", terminal=True)
    at = len(talk.log)
    talk.crew(data(0, b"abc"))
    new = talk.log[at:]
    first = next(place for place, one in enumerate(new) if isinstance(one, tuple))
    assert any(isinstance(one, words.Record) and one.event.stream == events.TYPED and one.barrier  # type: ignore[attr-defined]
               for one in new[:first])


def test_typed_bytes_have_an_end_on_record() -> None:
    talk = begun("bash", terminal=True, payload_limit=8)
    for one in b"abcdefghijkl":
        talk.crew(data(0, bytes((one,))))
        talk.server(data(0, bytes((one,))))
    over(talk)
    assert talk.content("in") == b"abcdefgh"
    assert talk.content("out") == b"abcdefgh"
    ended = {one.stream: (one.bytes, one.kept) for one in talk.events(events.StreamEnded)}  # type: ignore[attr-defined]
    assert ended == {"in": (12, 8), "out": (12, 8)}
    assert sha256(b"abcdefghijkl").hexdigest().encode() in talk.everything()


def test_secrets_on_a_screen_are_masked_and_sizes_noted() -> None:
    talk = begun("bash", terminal=True)
    talk.crew(ask(0, "window-change", u32(20, 5, 0, 0), False))
    assert talk.server(data(0, b"t " + TOKEN + b"\r\n"))[-1].encode().endswith(b"**\r\n")
    sizes = [one.bytes for one in talk.events(events.Streamed) if one.stream == "size"]  # type: ignore[attr-defined]
    assert sizes == [5, 4]
    over(talk)
    assert TOKEN[4:] not in talk.everything()


def test_a_size_without_a_terminal_changes_no_mask() -> None:
    talk = begun()
    talk.crew(ask(0, "window-change", u32(20, 5, 0, 0), False))
    course = talk.mux._channels[0]._course  # type: ignore[attr-defined]
    assert [mask._screen.columns for mask in course._masks] == [0, 0]


@pytest.mark.parametrize("size", [(0, 0), (1, 1), (0xFFFFFFFF, 0xFFFFFFFF)])
def test_any_size(size: tuple[int, int]) -> None:
    talk = Timed(detectors=DETECTORS)
    talk.crew(open_channel())
    talk.server(opened(0))
    talk.crew(ask(0, "pty-req", string(b"xterm") + u32(*size, 0, 0) + string(b"\0")), run(0, "bash"))
    talk.server(yes(0), yes(0))
    talk.server(data(0, TOKEN + b"\b\b\r\n"))
    talk.crew(ask(0, "window-change", u32(*size, 0, 0), False))
    talk.server(data(0, TOKEN + b"\r\n"))
    over(talk)
    assert TOKEN[8:] not in talk.everything()


# Files, by whatever starts them

def sftp(kind: int, number: int, rest: bytes = b"") -> bytes:
    return m.render(kind, number, rest)


def test_an_sftp_server_that_is_executed_is_asked_for_as_what_it_is() -> None:
    gate = TableGate(deny={("ssh:exec", "*")})
    talk = Timed(gate, content_labels=VAULT)
    talk.crew(open_channel())
    talk.server(opened(0))
    assert talk.crew(run(0, "/usr/lib/openssh/sftp-server")) == ["> request 70 exec ?"]
    talk.server(yes(0))
    heard = talk.crew(data(0, sftp(m.INIT, 6)))
    assert len(heard) == 1
    assert any(isinstance(one, tuple) and one[1].endswith(m.render(m.INIT, 3)) for one in talk.log)


def test_an_sftp_server_that_is_executed_is_denied_as_the_subsystem_is() -> None:
    talk = Timed(TableGate(deny={("ssh:subsystem", "sftp")}))
    talk.crew(open_channel())
    talk.server(opened(0))
    assert "forbids ssh:subsystem" in talk.crew(run(0, "/usr/lib/openssh/sftp-server"))[0]


@pytest.mark.parametrize("first", [b"\0\0\0\0", b"\xff" * 8, b"ls\n\n\n\n\n"])
def test_what_is_no_sftp_ends_the_channel_and_says_why(first: bytes) -> None:
    talk = Timed()
    talk.crew(open_channel(), open_channel(number=8))
    talk.server(opened(0), opened(1, 71))
    talk.crew(run(0, "/usr/lib/openssh/sftp-server"))
    talk.server(yes(0))
    heard = talk.crew(data(0, first))
    assert heard[0].startswith("< error 7 weir: ")
    assert heard[1:] == ["< request 7 exit-status", "< close 7", "> close 70"]
    assert talk.results() == [(1, "error", "ended by Weir")]
    talk.crew(close(0))
    talk.server(data(0, b"more"), close(0))
    assert list(talk.mux._channels) == [1]


def test_a_server_that_speaks_no_sftp_ends_the_channel() -> None:
    talk = Timed()
    talk.running(line="/usr/lib/openssh/sftp-server")
    talk.crew(data(0, m.render(m.INIT, 3)))
    heard = talk.server(data(0, b"This account is not available.\n"))
    assert heard[0].startswith("< error 7 weir: the server: ")
    assert heard[-2:] == ["< close 7", "> close 70"]


def test_errors_of_an_sftp_server_go_on() -> None:
    talk = Timed()
    talk.running(line="/usr/lib/openssh/sftp-server")
    assert talk.server(error(0, b"oops\n")) == ["< error 7 oops\n"]


def test_scp_from_the_server() -> None:
    talk = Timed(payload="content")
    talk.running(line="scp -f /tmp/a")
    talk.crew(data(0, b"\0"))
    talk.server(data(0, b"C0644 5 a\n"))
    talk.crew(data(0, b"\0"))
    talk.server(data(0, b"hello\0"))
    talk.crew(data(0, b"\0"))
    over(talk)
    verbs = [(one.verb, one.requests) for one in talk.events(events.Intent)]  # type: ignore[attr-defined]
    assert verbs[0][1] == (("scp:read", "t/app/tmp/a"),) or verbs[0][1][0][0] == "scp:read"
    assert len(verbs) == 2
    assert {one[1] for one in talk.results()} == {"ok"}
    assert talk.content("out") == b"hello" or talk.content("in") == b"hello"


def test_a_labelled_file_by_scp_is_masked() -> None:
    talk = Timed(content_labels=VAULT)
    talk.running(line="scp -f /etc/app/a.key")
    talk.crew(data(0, b"\0"))
    talk.server(data(0, b"C0644 5 a.key\n"))
    talk.crew(data(0, b"\0"))
    heard = talk.server(data(0, b"hello\0"))
    assert b"hello" not in b"".join(one[1] for one in talk.log if isinstance(one, tuple) and one[0] == 0)
    assert any("*****" in one for one in heard)


def test_scp_to_the_server_asks_for_each_file() -> None:
    talk = Timed(TableGate(deny={("scp:write", "/tmp/b")}))
    talk.running(line="scp -t /tmp")
    talk.server(data(0, b"\0"))
    talk.crew(data(0, b"C0644 1 a\n"))
    talk.server(data(0, b"\0"))
    talk.crew(data(0, b"x\0"))
    talk.server(data(0, b"\0"))
    heard = talk.crew(data(0, b"C0644 1 b\n"))
    assert not [one for one in heard if one.startswith("> data")]
    assert any("forbids scp:write" in one for one in heard)
    talk.crew(eof(0))
    over(talk)


def test_the_crews_end_waits_for_a_file_that_is_held() -> None:
    talk = Timed(TableGate(hold={("scp:write", "/tmp/a")}))
    talk.running(line="scp -t /tmp")
    talk.server(data(0, b"\0"))
    assert talk.crew(data(0, b"C0644 1 a\n"), eof(0)) in ([], ["< data 7 "])
    assert len(talk.holds) == 1
    assert not [one for one in talk.answer("denied") if one.startswith("> data")]


def test_a_client_that_goes_while_a_file_is_held() -> None:
    talk = Timed(TableGate(hold={("scp:write", "/tmp/a")}))
    talk.running(line="scp -t /tmp")
    talk.server(data(0, b"\0"))
    talk.crew(data(0, b"C0644 1 a\n"))
    talk.crew(close(0))
    talk.server(close(0))
    assert not talk.book.busy
    assert not talk.book.held
    assert not talk.timers
    assert not talk.mux._channels


# The end

def test_how_it_ended_is_heard_by_a_client_that_has_closed() -> None:
    """OpenSSH's closes once it has both ends; before the status a server has to look for its child."""
    talk = begun()
    assert talk.crew(eof(0)) == ["> eof 70"]
    assert talk.server(eof(0)) == ["< eof 7"]
    assert talk.crew(close(0)) == ["> close 70"]
    assert talk.server(status(0, 3), close(0)) == ["< request 7 exit-status", "< close 7"]
    assert talk.results() == [(1, "ok", "exit 3")]
    assert not talk.mux._channels


def test_nothing_but_that_is_heard_by_it() -> None:
    talk = begun()
    talk.crew(eof(0))
    talk.server(eof(0))
    talk.crew(close(0))
    for message in (close(0), data(0, b"x"), eof(0), ask(0, "signal", string(b"INT"), False)):
        with pytest.raises(RemoteProtocolError):
            talk.crew(message)
    with pytest.raises(RemoteProtocolError):
        talk.server(data(0, b"late"))
    assert talk.server(close(0)) == ["< close 7"]
    assert talk.results() == [(1, "ok", "")]
    assert not talk.mux._channels
    assert not talk.timers


@pytest.mark.parametrize("terminal", [False, True], ids=["pipes", "terminal"])
@pytest.mark.parametrize("seed", range(150))
def test_however_it_goes(seed: int, terminal: bool) -> None:
    """Any order of pieces, times, sizes and ends: nothing is shown, nothing is lost, and nothing runs on."""
    chance = random.Random(seed)
    talk = begun(terminal=terminal, payload_limit=chance.choice((0, 50, 1 << 20)))
    said = {"out": b"", "err": b""}
    whole = {stream: b"".join(chance.choice((TOKEN, CARD, b"words ", b"\n", b"\x1b[1m", b" ")) + b"\n"
                              for _ in range(count)) for stream, count in (("out", 12), ("err", 6))}
    ends: set[str] = set()
    while any(whole.values()) and not ends & {"close"}:
        step = chance.randrange(12)
        if step < 6 and "eof" not in ends:
            size, stream = chance.randint(1, 30), chance.choice(("out", "out", "err"))
            piece, whole[stream] = whole[stream][:size], whole[stream][size:]
            said[stream] += piece
            talk.server(data(0, piece) if stream == "out" else error(0, piece))
        elif step == 6:
            talk.turn(chance.random() * 0.2)
        elif step == 7 and not ends & {"crew", "ceof"}:
            talk.crew(data(0, b"k" * chance.randint(1, 3)))
        elif step == 8:
            talk.crew(ask(0, "window-change", u32(chance.randint(0, 100), 24, 0, 0), False))
        elif step == 9 and chance.random() < 0.2 and "ceof" not in ends:
            talk.crew(eof(0))
            ends.add("ceof")
        elif step == 10 and chance.random() < 0.1:
            talk.server(eof(0))
            ends |= {"eof", "close"}
    if chance.random() < 0.3:
        talk.crew(close(0))
        talk.server(status(0), close(0))
    else:
        talk.server(*([status(0)] if chance.random() < 0.7 else []), close(0))
        talk.crew(close(0))
    assert not talk.timers
    assert not talk.mux._channels
    assert not talk.book.busy
    assert len(talk.results()) == 1
    assert TOKEN[8:] not in talk.everything()
    ended = {one.stream: one.bytes for one in talk.events(events.StreamEnded)}  # type: ignore[attr-defined]
    for stream, sent in said.items():
        got = b"".join(Fields(one[1], 9 if one[1][0] == EXTENDED_DATA else 5).string() for one in talk.log
                       if isinstance(one, tuple) and one[0] == CLIENT
                       and one[1][0] == (DATA if stream == "out" else EXTENDED_DATA))
        assert TOKEN[8:] not in got
        assert len(got) == ended.get(stream, 0)
        assert len(got) <= len(sent)
        assert all(mine in (its, ord("*")) for mine, its in zip(got, sent, strict=False))


# The rest

def test_a_refused_command_leaves_no_timer() -> None:
    talk = Timed(detectors=DETECTORS)
    talk.crew(open_channel())
    talk.server(opened(0))
    talk.crew(run(0, "x"))
    talk.server(data(0, CARD[:10]))
    talk.server(no(0))
    talk.turn(1)
    assert not talk.timers
    talk.server(close(0))
    talk.crew(close(0))
    assert not talk.timers
    assert not talk.mux._channels


def test_variables_and_terminals_do_not_change_what_is_masked() -> None:
    talk = Timed(content_labels=VAULT, detectors=DETECTORS)
    talk.crew(open_channel())
    talk.server(opened(0))
    talk.crew(env(0, "LANG", "C"), pty(0), run(0, "vault read x"))
    talk.server(yes(0), yes(0))
    assert talk.server(data(0, b"\x1b[1mabc\x1b[0m\r\n")) == ["< data 7 \x1b[1m***\x1b[0m\r\n"]
    (intent,) = talk.events(events.Intent)
    assert (intent.decision, intent.masks) == (PERMIT, ("secret.vault",))  # type: ignore[attr-defined]


def test_held_and_approved_is_masked_all_the_same() -> None:
    talk = Timed(TableGate(hold={("ssh:exec", "vault read x")}), content_labels=VAULT)
    talk.crew(open_channel())
    talk.server(opened(0))
    talk.crew(run(0, "vault read x"))
    assert [one.decision for one in talk.events(events.Intent)] == [HOLD]  # type: ignore[attr-defined]
    talk.answer()
    talk.server(yes(0))
    assert talk.server(data(0, b"abc")) == ["< data 7 ***"]
