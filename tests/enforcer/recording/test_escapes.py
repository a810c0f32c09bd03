"""What a recorded server sends to whoever looks at it later."""
from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.recording.escapes import CLEARED, Escapes

SWALLOWED = [
    "\x1b]52;c;Zm9v\x07", "\x1b]52;c;?\x1b\\", "\x1b]0;title\x07", "\x1b[21t", "\x1b[20t", "\x1b[8;9;9t", "\x1b[5n",
    "\x1b[6n", "\x1b[?6n", "\x1b[c", "\x1b[>c", "\x1b[=c", "\x1b[0c", "\x1bZ", "\x1bP$qm\x1b\\", "\x1bP+q544e\x1b\\",
    "\x1bP0;1|17/ab\x1b\\", "\x1b_Gi=1;AAAA\x1b\\", "\x1b_payload\x1b\\", "\x1b^private\x1b\\", "\x1bXstring\x1b\\",
    "\x1b]4;1;?\x07", "\x1b]10;?\x07", "\x1b]11;?\x1b\\", "\x1b]8;;http://evil.example\x1b\\", "\x1b]1337;File=:AA\x07",
    "\x1b]50;?\x07", "\x1b]777;notify;a;b\x07", "\x1b[?1000h", "\x1b[?1004h", "\x1b[?1006h", "\x1b[?2004h", "\x1b[?1h",
    "\x1b=", "\x1b>", "\x1b[5i", "\x1b[?5i", "\x1b[x", "\x1b[1;1;1;1;1*y", "\x1b[3J", "\x1b[!p", "\x1b[61;1\"p",
    "\x1b[>4;2m", "\x1b[?u", "\x1b[>1u", "\x1b[=1;1u", "\x1b[1;2;3;4;5T", "\x1b[2 q", "\x1b[?69h", "\x1b[20h",
    "\x1b[2h", "\x1b#8", "\x1b%@", "\x1b F", "\x1b(K", "\x1b*0", "\x1bn", "\x1bo", "\x1b|", "\x1b6", "\x1b[0$}",
    "\x1b[?$p", "\x05", "\x07", "\x00", "\x7f", "\x9d52;c;Zm9v\x9c", "\x906n\x9c", "\x9b6n", "\x9b>c", "\x9fx\x9c",
    "\u202e", "\u2066", "\x1b[31\x18", "\x1b]0;x\x1a", "\x1b\x1b[c", "\x1b]0;x\x1b[6n", "\x1b[" + "1;" * 100 + "m"]
KEPT = {
    "grüße 漢字 \u3000\xa0x": None, "a\r\n\tb\b": None, "\x1b[31;1mred\x1b[0m": None, "\x1b[38;2;1;2;3m": None,
    "\x1b[38:5:9m": None,
    "\x1b[H\x1b[2J\x1b[K": None, "\x1b[5;10H": None, "\x1b[2;20r": None, "\x1b[?1049h": None, "\x1b[?25l": None,
    "\x1b7\x1b8\x1bM\x1bD\x1bE": None, "\x1b(0lqk\x1b(B": None, "\x1b[4h\x1b[4l": None, "\x1b[3X\x1b[2P\x1b[2@": None,
    "\x9b31m": "\x1b[31m", "\x85": "\x1bE", "\x1b[99999b": "\x1b[9999b", "\x1b[?25;1000h": "\x1b[?25h",
    "\x1b[\n31m": "\n\x1b[31m", "\x1bc": f"{CLEARED}\x1b[2J\x1b[H"}


@pytest.mark.parametrize("text", SWALLOWED)
def test_what_asks_or_reaches_out_is_swallowed(text: str) -> None:
    assert Escapes().feed(f"a{text}\x1b\\b").replace("\x1b[0m", "") == "ab"


@pytest.mark.parametrize("text", KEPT)
def test_what_draws_is_kept(text: str) -> None:
    wanted = KEPT[text]
    assert Escapes().feed(text) == (text if wanted is None else wanted)


@pytest.mark.parametrize("text", ["".join(SWALLOWED), "".join(KEPT), "x\x1b[31my\x1b]0;t\x07z\x1bP1\x1b\\w"])
def test_cut_anywhere(text: str) -> None:
    whole = Escapes().feed(text)
    one = Escapes()
    assert "".join(map(one.feed, text)) == whole
    for at in range(0, len(text), 7):
        cut = Escapes()
        assert cut.feed(text[:at]) + cut.feed(text[at:]) == whole


PARTS = st.one_of(st.sampled_from(SWALLOWED), st.text(max_size=5),
                  st.text("\x1b[]P;?0123456789hlmcntJ$\"> \x07\x9b\x9d\\x", max_size=12))


@given(st.lists(PARTS, max_size=12))
def test_whatever_comes_only_what_is_on_the_list_goes_out(pieces: list[str]) -> None:
    out = Escapes().feed("".join(pieces))
    again = Escapes().feed(out)       # what went through is drawing, and nothing but
    assert again == out
    assert not set(out) & {"\x07", "\x05", "\x9b", "\x9d", "\x90", "\x7f"}
    for what in ("\x1b]", "\x1bP", "\x1b_", "\x1b^", "\x1bX", "\x1bZ", "\x1b[c", "\x1b[6n"):
        assert what not in out


def test_a_string_without_end_takes_no_memory() -> None:
    one = Escapes()
    assert one.feed("\x1b]52;c;" + "A" * 1_000_000) == ""
    assert one.feed("\x1b[" + "1" * 1_000_000) == ""
    assert len(one._held) < 100
    assert one.feed("mx") == "x"


def test_a_terminal_is_left_as_one_is() -> None:
    one = Escapes()
    one.feed("\x1b[?1049h\x1b[31m\x1b[2;3r\x1b]0;half")
    left = one.finish()
    assert left.startswith("\x1b[?1049l\x1b[0m")
    assert "\x1b[?25h" in left
    assert one.feed("text") == "text"
    one.feed("\x1b[?1049h\x1b[?1049l")
    assert "1049" not in one.finish()
    one.feed("text\x1b[31m\r\n")
    assert "H" not in one.finish()    # what comes next stands below it


def test_random_bytes_end_nothing() -> None:
    chance = random.Random(7)
    one = Escapes()
    for _ in range(200):
        one.feed("".join(chr(chance.choice((chance.randrange(0xA0), chance.randrange(0xD800)))) for _ in range(100)))
    one.finish()
    assert one.feed("ok") == "ok"
