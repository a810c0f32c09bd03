"""Detectors: what each finds and does not, and that Hyperscan changes nothing of it."""
from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from secrets_of_nobody import MAKERS, make_secret

from enforcer.policy import detectors
from enforcer.policy.detectors import DETECTORS, LABELS, SHAPES, Detectors, Found, labels_of, make_detectors

ALL = frozenset(LABELS.values())


def slowly(text: bytes, detectors: Detectors) -> set[tuple[int, str]]:
    """Python's expressions at every letter; no Hyperscan."""
    return letters(text, [
        Found(match.start("m"), match.end("m"), shape) for shape in detectors.shapes for at in range(len(text))
        if (match := shape.whole.match(text, at)) is not None and (shape.check is None or shape.check(match[0]))])


def letters(text: bytes, found: list[Found]) -> set[tuple[int, str]]:
    """Each that is masked, and the label for which."""
    every = set()
    for start, end, shape, _ in found:
        run = shape.more.match(text, end) if shape.more is not None else None
        every |= {(at, shape.label) for at in range(start, end if run is None else run.end())}
    return every


def masked(text: bytes, detector: str = "") -> bytes:
    chosen = frozenset((LABELS[detector],)) if detector else ALL
    out = bytearray(text)
    for one in make_detectors(chosen).search(text):
        out[one.start:one.end] = b"*" * (one.end - one.start)
    return bytes(out)


def test_the_names_are_those_that_targets_name() -> None:
    assert set(DETECTORS) == set(MAKERS) == {
        "private-key", "aws-key", "google-key", "github-token", "slack-token", "jwt", "card-number", "iban",
        "password-in-url"}
    assert labels_of(("jwt", "iban", "jwt")) == ("secret.token.jwt", "pii.iban")


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("seed", range(40))
def test_what_it_is_for(detector: str, seed: int) -> None:
    _, text, hidden = MAKERS[detector](random.Random(seed))
    around = b"x= " + text + b" \n"
    found = make_detectors(ALL).search(around)
    assert detector in {one.shape.detector for one in found}
    if detector != "private-key":
        assert hidden not in masked(around, detector)
    assert letters(around, found) == slowly(around, make_detectors(ALL))
    others = make_detectors(ALL - {LABELS[detector]}).search(around)
    assert detector not in {one.shape.detector for one in others}


@pytest.mark.parametrize("text", [
    b"user@host:~$ ls -l", b"http://[::1]:8080/ http://db.example:5432/x https://example.com:443", b"eyJ. eyJabc.def",
    b"12345678901234567890 4111 1111 1111 1112 4111111111111112 5105 1051 0510 5101",
    b"ghp_short xoxb-1 AKIAshort AIza",
    b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----", b"-----BEGIN PUBLIC KEY-----",
    b"2026-11-28 12:00:01 1700000000000000000 DE12 3456 7890 SE35 XX1234567890123456", b"git@github.com:a/b.git",
    b"04111111111111111 41111111111111110", b"mailto:a@b.example://x:y", b"aws_secret_access_key = short",
])
def test_what_only_looks_like_it(text: bytes) -> None:
    assert masked(text + b"\n") == text + b"\n"


@pytest.mark.parametrize(("text", "shown"), [
    (b"postgres://u:p@ss@db:5432/x", b"postgres://u:****@db:5432/x"),
    (b"redis://:geheim@cache/0", b"redis://:******@cache/0"),
    (b"4111 1111 1111 1111,", b"4111 11" + b"*" * 12 + b","),
    (b"5555 4111 1111 1111 1111 ", b"5555 4111 11" + b"*" * 12 + b" "),
    (b"3782-822463-10005.", b"3782-82" + b"*" * 10 + b"."),
    (b"DE89 3704 0044 0532 0130 00 EUR", b"DE89" + b"*" * 23 + b" EUR"),
])
def test_how_much_is_seen(text: bytes, shown: bytes) -> None:
    assert masked(text) == shown


@pytest.mark.parametrize("detector", [name for name in DETECTORS if name != "private-key"])
def test_whatever_may_become_one_is_known_from_the_first_letter_on(detector: str) -> None:
    """Of every beginning that has any of the body: else it would be passed on."""
    for seed in range(40):
        _, text, _ = MAKERS[detector](random.Random(seed))
        every = make_detectors(frozenset((LABELS[detector],)))
        ends = [(one.start, one.end) for one in every.search(text + b"\n")]
        for start, end in ends:
            for size in range(start + 1, end):
                ahead = every.tail(text[:size])
                done = every.search(text[:size])
                assert any(one.start <= start for one in ahead) or any(one.start <= start for one in done), text[:size]


def test_nothing_waits_that_is_no_body() -> None:
    every = make_detectors(ALL)
    for text in (b"$ ", b"A", b"AKIA", b"eyJ", b"4111", b"411111", b"-----BEGIN", b"https://", b"DE89", b"ghp_", b""):
        assert every.tail(text) == []


@given(st.lists(st.one_of(
    st.integers(0, 10**6).map(lambda seed: make_secret(seed)[1]), st.binary(max_size=20),
    st.sampled_from((b" ", b"\n", b"4111 1111 ", b"AKIA", b"eyJ", b"://a:", b"@", b"DE89", b"-", b"0123456789"))),
    max_size=8))
def test_hyperscan_changes_nothing(pieces: list[bytes]) -> None:
    text = b"".join(pieces)
    assert letters(text, make_detectors(ALL).search(text)) == slowly(text, make_detectors(ALL))


@given(st.lists(st.sampled_from((*b"AKIeyJgh4p_:/@-1 DE89", *b"xo")), max_size=60))
def test_of_letters_that_begin_much(chosen: list[int]) -> None:
    text = bytes(chosen)
    assert letters(text, make_detectors(ALL).search(text)) == slowly(text, make_detectors(ALL))


def test_every_shape_is_bounded() -> None:
    assert max(shape.reach for shape in SHAPES) <= detectors.LONGEST


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("seed", range(8))
def test_what_may_be_held_is_never_too_little(detector: str, seed: int) -> None:
    """However much of it is there."""
    _, text, _ = MAKERS[detector](random.Random(seed))
    every = make_detectors(ALL)
    for end in range(len(text) + 1):
        for around in (text[:end], b"x = " + text[:end], text[:end] + b"\n"):
            assert every.may_hold(around) or not (every.suspects(around) or every.tail(around))
    assert every.may_hold(text)
    assert not every.may_hold(b"a value of 12 letters, host:80, eye")
