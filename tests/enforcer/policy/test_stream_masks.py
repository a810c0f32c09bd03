"""Masks in streams: whatever the cuts the same, as long as before, nothing of a secret, nothing held in vain."""
from __future__ import annotations

import random
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from secrets_of_nobody import MAKERS, make_secret

from enforcer.policy.detectors import KEY, LABELS, make_detectors
from enforcer.policy.stream_masks import HELD, STARS, StreamMask
from enforcer.policy.visible import text_of, whole

ALL = frozenset(LABELS.values())
COLUMNS = st.sampled_from((0, 10, 80))
PIECES = st.lists(st.one_of(
    st.integers(0, 10**6).map(lambda seed: make_secret(seed)[1]),
    st.sampled_from((
        b" ", b"\n", b"\r\n", b"\r", b" \r", b" \b", b"\b", b"\b \b", b"\x1b[1;31m", b"\x1b[K", b"\x1b]0;title\x07",
        b"\x1b", b"\x1b[3", b"4111 1111 ", b"AKIA", b"eyJ", b"://a:", b"@", b"DE89 ", b"-----BEGIN PRIVATE KEY-----",
        b"-----END PRIVATE KEY-----",
        b"gh", b"p_", b"word", b"0123456789", b"\xc3\xa9", b"a" * 40, b"-", b"$ ")),
    st.binary(max_size=12)), max_size=10)


def feed(raw: bytes, cuts: list[int], columns: int = 0, everything: str = "") -> tuple[bytes, set[str]]:
    mask, out, last = StreamMask(ALL, everything, columns), [], 0
    for cut in [*cuts, len(raw)]:
        out.append(mask.feed(raw[last:cut]))
        last = cut
    out.append(mask.flush())
    assert not mask.pending
    return b"".join(out), mask.found


def slowly(raw: bytes) -> bytes:
    """All at once, every letter by itself, in a stream without sequences and backspaces."""
    out, text = bytearray(raw), raw + b"\n"
    for shape in make_detectors(ALL).shapes:
        for at in range(len(raw)):
            match = shape.whole.match(text, at)
            if match is None or (shape.check is not None and not shape.check(match[0])):
                continue
            start, end = match.span("m")
            if shape.until is not None:
                ending = shape.until.search(raw, end)
                end = min(end + KEY, ending.end() if ending else len(raw))
            elif shape.more is not None:
                end = max(end, shape.more.match(raw, end).end())  # type: ignore[union-attr]
            out[start:end] = raw[start:end].translate(STARS)
    return bytes(out)


def is_masked(raw: bytes, out: bytes) -> bool:
    return len(raw) == len(out) and all(
        one == other or (other == 42 and bytes((one,)).translate(STARS) == b"*")
        for one, other in zip(raw, out, strict=True))


@settings(max_examples=400, deadline=None)
@given(PIECES, COLUMNS, st.data())
def test_the_same_whatever_the_cuts(pieces: list[bytes], columns: int, data: st.DataObject) -> None:
    raw = b"".join(pieces)
    at_once, found = feed(raw, [], columns)
    assert is_masked(raw, at_once)
    slowest, some = feed(raw, list(range(1, len(raw))), columns)
    assert slowest == at_once
    assert some <= found, "what lies in what is masked already may not be named"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    assert feed(raw, cuts, columns)[0] == at_once


@settings(max_examples=200, deadline=None)
@given(PIECES, COLUMNS, st.sampled_from(("", "secret.deploy")), st.lists(st.tuples(st.integers(1, 9), st.booleans())))
def test_whenever_it_is_flushed_nothing_is_lost(
    pieces: list[bytes], columns: int, everything: str, steps: list[tuple[int, bool]],
) -> None:
    raw, mask, out, at = b"".join(pieces), StreamMask(ALL, everything, columns), b"", 0
    for size, flush in [*steps, (1 << 20, True)]:
        out += mask.feed(raw[at:at + size])
        at += size
        if flush:
            out += mask.flush()
            assert mask.passed == len(out) == min(at, len(raw))
    assert is_masked(raw, out)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(
    st.integers(0, 10**6).map(lambda seed: make_secret(seed)[1]),
    st.sampled_from((b" ", b"\n", b"word", b"4111 1111 ", b"eyJ", b"://a:", b"@", b"a" * 40, b"12345678", b"-"))),
    max_size=8))
def test_as_the_slow_one_says(pieces: list[bytes]) -> None:
    raw = b"".join(pieces).replace(b"\r", b"")
    assert feed(raw, list(range(0, len(raw), 3)))[0].rstrip(b"\n") == _known(raw)


def _known(raw: bytes) -> bytes:
    """What only its head tells, at the end, is masked as well."""
    out = bytearray(slowly(raw))
    for one in make_detectors(ALL).tail(raw):
        end = one.start + one.shape.known(raw[one.start:])
        out[one.start:end] = bytes(out[one.start:end]).translate(STARS)
    return bytes(out).rstrip(b"\n")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=5), st.sampled_from((0, 80, 33)), st.integers(1, 70),
       st.booleans())
@example([1, 2, 3], 0, 1, True)
def test_nothing_of_a_secret_comes_out(seeds: list[int], columns: int, step: int, coloured: bool) -> None:
    secrets = [make_secret(seed) for seed in seeds]
    colour = b"\x1b[31m" if coloured else b""
    raw = b"".join(b"one: " + text[:len(text) // 2] + colour + text[len(text) // 2:] + b" !\r\n"
                   for _, text, _ in secrets)
    out, found = feed(raw, list(range(0, len(raw), step)), columns)
    assert len(out) == len(raw)
    assert found >= {LABELS[name] for name, _, _ in secrets}
    assert text_of(out).count(b"one: ") == len(secrets)
    for _, _, hidden in secrets:
        assert hidden not in text_of(out)


@pytest.mark.parametrize("text", [
    b"user@host:~/work$ ", b"password: ", b"l", b"s", b"A", b"4", b"-", b"e", b"\r\n", b"\x1b[31mred\x1b[0m ", b"https://",
    b"AKIA", b"$ echo -----BEGIN RSA PRIVATE KEY-----", b"411111", b"drwxr-xr-x 2 ada ada 4096 Nov 28 12:00 src",
    b"\b \b",
])
@pytest.mark.parametrize("columns", [0, 80])
def test_what_is_no_body_passes_at_once(text: bytes, columns: int) -> None:
    mask = StreamMask(ALL, columns=columns)
    assert mask.feed(text) == text
    assert not mask.pending
    assert mask.flush() == b""


def test_single_keys_of_a_command_line_pass_at_once() -> None:
    mask = StreamMask(ALL, columns=80)
    for one in b"cd /srv/app && ls -la | grep Ekya > out.txt; git commit -m 'Release 2026.11'":
        assert mask.feed(bytes((one,))) == bytes((one,))


def test_a_clean_piece_is_passed_without_a_copy() -> None:
    mask = StreamMask(ALL)
    for data in (b"line of a log\n" * 9000, bytes(range(9, 11)) * 5000, random.Random(1).randbytes(100_000) + b"\n"):
        out = mask.feed(data)
        assert out is data or mask.pending
        mask.flush()


def test_flush_masks_what_its_head_tells_and_passes_numbers() -> None:
    mask = StreamMask(ALL, columns=80)
    assert mask.feed(b"token ghp_abcdefgh") == b"token ghp_"
    assert mask.pending
    assert mask.flush() == b"*" * 8
    assert mask.feed(b"A" * 28 + b" done") == b"*" * 28 + b" done"
    assert mask.found == {"secret.token.github"}
    assert mask.feed(b"\r\n4111 1111 1111 11") == b"\r\n4111 11"
    assert mask.flush() == b"11 1111 11"
    assert mask.feed(b"11;") == b"**;"


def test_a_number_that_is_whole_is_masked_by_flush() -> None:
    mask = StreamMask(ALL)
    assert mask.feed(b"4111111111111111") == b"411111"
    assert mask.flush() == b"*" * 10
    assert StreamMask(ALL).feed(b"http://db:54") == b"http://db:"


def test_a_key_is_masked_to_its_end_or_for_so_long() -> None:
    mask = StreamMask(ALL)
    head = b"-----BEGIN OPENSSH PRIVATE KEY-----"
    assert mask.feed(head + b"\nAAAA") == head + b"\n****"
    assert mask.feed(b"BBBB\n-----END OPENSSH PRIV") == b"****\n******** ******* ****"
    assert mask.feed(b"ATE KEY-----\nnext") == b"*** ********\nnext"
    assert mask.feed(head) == head
    assert mask.feed(b"x" * (KEY + 5)) == b"*" * KEY + b"x" * 5


def test_a_long_token_does_not_wait() -> None:
    mask = StreamMask(ALL)
    raw = b"eyJhbGciOiJIUzI1NiJ9.eyJ" + b"x" * 100_000
    out = b"".join(mask.feed(raw[at:at + 1000]) for at in range(0, len(raw), 1000))
    assert out == b"eyJ" + b"*" * (len(raw) - 3)


def test_never_more_is_held_than_so_much() -> None:
    mask, held = StreamMask(ALL), 0
    for at in range(1200):
        fed = b"\x1b[38;5;%dm" % (at % 256) + (b"eyJ" if at == 0 else b"a")
        held += len(fed) - len(mask.feed(fed))
        assert held <= HELD
    assert held > 0
    mask = StreamMask(ALL)
    assert len(mask.feed(b"\x1b]0;" + b"x" * 9000)) > 0


def test_overstruck_letters_are_masked_with_what_came_over_them() -> None:
    body = b"0123456789abcdefghijklmnopqrstuvwxyzAB"
    raw = b"".join(bytes((one, 8, one)) for one in b"ghp_" + body) + b"\r\n"
    out, found = feed(raw, [], 80)
    assert found == {"secret.token.github"}
    assert not set(out[12:]) & set(body)


def test_readline_and_full_lines_break_nothing() -> None:
    token = b"ghp_" + b"0123456789abcdefghijklmnopqrstuvwxyz"
    wrapped = b"$ echo " + token[:13] + b" \r" + token[13:] + b"\r\n"
    assert feed(wrapped, [], 20)[0] == b"$ echo ghp_" + b"*" * 9 + b" \r" + b"*" * 27 + b"\r\n"
    rows = b"0123456789: " + token[:8] + b"\r\n" + token[8:28] + b"\r\n" + token[28:] + b"\r\n"
    assert feed(rows, [], 20)[0] == b"0123456789: ghp_****\r\n" + b"*" * 20 + b"\r\n" + b"*" * 12 + b"\r\n"
    mask = StreamMask(ALL, columns=80)
    mask.resize(20)
    assert mask.feed(rows).count(b"*") == 36


@settings(deadline=None)
@given(PIECES, COLUMNS)
def test_everything_is_all_letters_and_no_sequence(pieces: list[bytes], columns: int) -> None:
    raw = b"".join(pieces)
    out, found = feed(raw, [], columns, "secret.deploy")
    assert is_masked(raw, out)
    assert set(text_of(out[:whole(out)])) <= set(b"* \t\n"), "what has no end yet is no text"
    assert found == ({"secret.deploy"} if b"*" in text_of(out[:whole(out)]) else set())
    assert feed(raw, list(range(1, len(raw))), columns, "secret.deploy") == (out, found)


def test_everything_keeps_colours() -> None:
    mask = StreamMask(frozenset(), "secret")
    assert mask.feed(b"\x1b[31mpass word\x1b[0m\r\n\x1b[3") == b"\x1b[31m**** ****\x1b[0m\r\n"
    assert mask.feed(b"2mx") == b"\x1b[32m*"


def test_no_label_masks_nothing() -> None:
    mask = StreamMask(frozenset())
    data = MAKERS["jwt"](random.Random(1))[1]
    assert mask.feed(data) is data
    assert feed_only("pii.iban", data) == data


def feed_only(label: str, data: bytes) -> bytes:
    mask = StreamMask(frozenset((label,)))
    return mask.feed(data) + mask.flush()


@pytest.mark.parametrize("unit", [
    b"eyJ", b"eyJ.", b"eyJ" * 1300 + b".x.y ", b"eyJ" * 1300 + b"!a", b"://a:", b"://", b"ghp_", b"github_pat_",
    b"xoxb-", b"-----BEGIN ", b"-----BEGIN PRIVATE KEY-----",
    b"4111 1111 ", b"4", b"DE89", b"AKIA", b"a", b"\x1b]", b"\x1b[1", b" \r",
    b"x\b", b"\b\bxy",
    b"aws_secret_access_key=", b"A" * 79 + b"\r\n",
])
@pytest.mark.parametrize("columns", [0, 80])
def test_nobody_makes_it_slow(unit: bytes, columns: int) -> None:
    """Bounded work for each byte, whole or in small pieces: what is quadratic takes minutes."""
    raw = (unit * (200_000 // len(unit) + 1))[:100_000]
    began = time.process_time()
    for step, size in ((16384, len(raw)), (7, 12_000)):
        mask, out = StreamMask(ALL, columns=columns), 0
        for at in range(0, size, step):
            out += len(mask.feed(raw[at:min(at + step, size)]))
        assert out + len(mask.flush()) == size
    assert time.process_time() - began < 20


@pytest.mark.parametrize("cut", [1000, 4096, 32768])
def test_what_is_in_binary_data_is_found_as_well(cut: int) -> None:
    secret = b"AKIAIOSFODNN7EXAMPLE"
    data = bytes(range(256)) * 300 + b"\0" + secret + b"\n" + bytes(1 << 16)
    mask = StreamMask(frozenset(LABELS.values()))
    shown = b"".join(mask.feed(data[at:at + cut]) for at in range(0, len(data), cut)) + mask.flush()
    assert len(shown) == len(data)
    assert secret not in shown
    assert shown.replace(b"*" * 16, secret[4:]) == data
