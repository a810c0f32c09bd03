"""Answers in the order in which they were asked for, and no more of them than are kept."""
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.protocols.ssh.channels import replies
from enforcer.protocols.ssh.channels.replies import Awaited, Owed
from enforcer.words.errors import RemoteProtocolError


@given(st.permutations(range(8)))
def test_answers_come_in_the_order_of_the_questions(order: list[int]) -> None:
    sent: list[bytes] = []
    owed = Owed(sent.append)
    slots = [owed.slot() for _ in order]
    for index in order:
        owed.answer(slots[index], b"%d" % index)
    assert sent == [b"%d" % index for index in sorted(order)]


def test_too_many_that_wait() -> None:
    owed = Owed(lambda message: None)
    slots = [owed.slot() for _ in range(replies.MOST)]
    with pytest.raises(RemoteProtocolError):
        owed.slot()
    owed.answer(slots[0], b"x")
    owed.slot()


def test_who_is_asked_answers_in_order() -> None:
    heard: list[tuple[int, bool, bytes]] = []
    awaited = Awaited()
    for index in range(3):
        awaited.ask(lambda success, rest, index=index: heard.append((index, success, rest)))  # type: ignore[misc]
    awaited.answered(True, b"a")
    awaited.answered(False)
    assert heard == [(0, True, b"a"), (1, False, b"")]


def test_an_answer_to_nothing() -> None:
    with pytest.raises(RemoteProtocolError):
        Awaited().answered(True)


def test_what_is_asked_of_one_who_does_not_answer_is_bounded() -> None:
    awaited = Awaited()
    with pytest.raises(RemoteProtocolError):
        for _ in range(100_000):
            awaited.ask(lambda success, rest: None)
