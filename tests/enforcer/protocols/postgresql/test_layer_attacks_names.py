"""Attacks by names that come to mean something else than what was judged."""
from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from pump import SYNC, Direct, Pump, TableGate, bind, close, describe, execute, parse, query, shape

from agent.contract.target import ColumnLabel
from enforcer.words.decisions import DENY, Decision

LABELS = (ColumnLabel("pii.email", "public", "people", "email", "constant:hidden"),)
SECRETS = ("k1", "k2", "ADA@X.EXAMPLE", "ada@x.example")
Open = Callable[..., Pump]


class Forbids(TableGate):
    """Denies one qualified table."""

    def __init__(self, forbidden: str) -> None:
        super().__init__()
        self.forbidden = forbidden

    def decide(self, principal: object, requests: object, *rest: object, **more: object) -> Decision:  # type: ignore[override]
        if any(request.resource == self.forbidden for request in requests):  # type: ignore[attr-defined]
            return Decision(DENY, ("no",), "no")
        return super().decide(principal, requests, *rest, **more)  # type: ignore[arg-type]


@pytest.fixture
def weir(port: int) -> Iterator[Open]:
    """Opens sessions; closes them afterwards, and what they have made in schema other."""
    opened: list[Pump] = []
    direct = Direct(port, "app", "shop")
    direct.talk(query("CREATE TABLE other.secret (id int, key text); CREATE TABLE other.people (id int, email text)"))

    def make(gate: TableGate | None = None, labels: tuple[ColumnLabel, ...] = ()) -> Pump:
        opened.append(Pump(port, "app", "shop", gate or Forbids("public.secret"), labels=labels))
        return opened[-1]

    yield make
    for one in opened:
        one.close()
    direct.talk(query("DROP TABLE other.secret, other.people"))
    direct.close()


def ask(session: Pump, *texts: str) -> list[str]:
    """The last one's answer."""
    got: list[str] = []
    for text in texts:
        got = shape(session.talk(query(text)))
    return got


def shows(got: list[str]) -> bool:
    return any(secret in line for line in got for secret in SECRETS)


PATH = "set_config('search_path', 'public', false)"


@pytest.mark.parametrize("hold", ["", "WITH HOLD "])
@pytest.mark.parametrize("fetch", ["FETCH 1 FROM c", "MOVE 1 FROM c", "FETCH 1 FROM c; SELECT key FROM secret"])
def test_a_cursor_that_sets_the_path_when_it_is_fetched(weir: Open, hold: str, fetch: str) -> None:
    session = weir()
    ask(session, "SET search_path = other", "BEGIN", f"DECLARE c CURSOR {hold}FOR SELECT {PATH}")
    assert not shows(ask(session, fetch))
    assert not shows(ask(session, "SELECT key FROM secret"))


def test_a_bound_portal_that_sets_the_path_when_it_is_fetched(weir: Open) -> None:
    session = weir()
    ask(session, "SET search_path = other", "BEGIN")
    session.talk(parse(f"SELECT {PATH}"), bind(portal="c"), SYNC)
    assert not shows(ask(session, "FETCH 1 FROM c"))
    assert not shows(ask(session, "SELECT key FROM secret"))


def test_a_cursor_over_what_sets_the_path_by_extended_messages(weir: Open) -> None:
    session = weir()
    ask(session, "SET search_path = other", "BEGIN", f"DECLARE c CURSOR FOR SELECT {PATH}")
    got = session.talk(parse("FETCH 1 FROM c"), bind(), execute(), parse("SELECT key FROM secret"), bind(), execute(),
                       SYNC)
    assert not shows(shape(got))


def test_a_prepare_behind_a_path_of_its_own_string(weir: Open) -> None:
    session = weir()
    ask(session, "SET search_path = other; PREPARE q AS SELECT key FROM secret", "SET search_path = public")
    assert not shows(ask(session, "EXECUTE q"))
