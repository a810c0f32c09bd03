"""Attacks by names that come to mean something else than what was judged."""
from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from pump import SYNC, Direct, Pump, TableGate, bind, describe, execute, parse, query, shape

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


@pytest.mark.parametrize("own", [False, True])
def test_the_temporary_schema_where_the_path_says(weir: Open, own: bool) -> None:
    session = weir()
    ask(session, "CREATE TEMP TABLE secret (id int, key text)")
    name = ask(session, "SELECT pg_my_temp_schema()::regnamespace")[1].split()[-1] if own else "pg_temp"
    assert not shows(ask(session, f"SET search_path = public, {name}; SELECT key FROM secret"))


def test_a_schema_that_may_not_be_used_is_not_on_the_path(port: int, weir: Open) -> None:
    owner = Direct(port, "postgres", "shop")
    owner.talk(query("CREATE SCHEMA closed; CREATE TABLE closed.secret (id int, key text)"))
    session = weir()
    try:
        assert not shows(ask(session, "SET search_path = closed, public; SELECT key FROM secret"))
    finally:
        owner.talk(query("DROP SCHEMA closed CASCADE"))
        owner.close()


@pytest.mark.parametrize("text", [
    "DROP TABLE secret", "ALTER TABLE secret ADD COLUMN more text", "CREATE INDEX ON secret (id)",
    "ALTER TABLE secret RENAME TO open", "TRUNCATE secret", "LOCK secret"])
def test_a_table_behind_a_shadow_that_is_dropped(weir: Open, text: str) -> None:
    session = weir()
    ask(session, "CREATE TEMP TABLE secret (id int, key text)", "BEGIN", "DROP TABLE pg_temp.secret")
    assert ask(session, text) == ["E 42501", "Z E"]
    ask(session, "ROLLBACK")
    assert ask(session, f"BEGIN; DROP TABLE pg_temp.secret; {text}; ROLLBACK") == ["E 42501", "Z I"]


@pytest.mark.parametrize("text", [
    "CREATE TABLE big (x int)", "CREATE VIEW big AS SELECT 1 AS x", "SELECT 1 AS x INTO big", "CREATE SEQUENCE big",
    "CREATE TABLE big AS SELECT 1 AS x"])
def test_a_table_is_made_in_the_first_schema_of_the_path(weir: Open, text: str) -> None:
    """Not where another of its name is."""
    session = weir(Forbids("other.big"))
    ask(session, "SET search_path = other, public")
    assert ask(session, text) == ["E 42501", "Z I"]


def test_a_shadow_made_after_the_statement_was_parsed(weir: Open) -> None:
    session = weir()
    ask(session, "CREATE TEMP TABLE z ()")
    session.talk(parse("SELECT key FROM secret", "s"), SYNC)
    ask(session, "CREATE TEMP TABLE secret (id int, key text)")
    assert not shows(shape(session.talk(bind(name="s"), execute(), SYNC)))


def test_a_shadow_over_labelled_columns(weir: Open) -> None:
    session = weir(labels=LABELS)
    ask(session, "CREATE TEMP TABLE z ()")
    session.talk(parse("SELECT upper(email) FROM people", "s"), SYNC)
    ask(session, "CREATE TEMP TABLE people (id int, email text)")
    assert not shows(shape(session.talk(bind(name="s"), execute(), SYNC)))


@pytest.mark.parametrize("look", ["parse", "describe", "bind"])
def test_what_the_server_looked_up_between_two_shadows(weir: Open, look: str) -> None:
    """Also where Weir has not asked yet what names mean: the first shadow is gone."""
    gate = Forbids("other.secret" if look == "bind" else "public.secret")
    session = weir(gate)
    ask(session, "CREATE TEMP TABLE secret (id int, key text)")
    if look != "parse":
        session.talk(parse("SELECT key FROM secret", "s"), SYNC)
    ask(session, "DROP TABLE pg_temp.secret")
    if look == "parse":
        session.talk(parse("SELECT key FROM secret", "s"), SYNC)
    else:
        session.talk(*([describe("S", "s")] if look == "describe" else [bind(name="s")]), SYNC)
    ask(session, "CREATE TEMP TABLE secret (id int, key text)")
    gate.forbidden, gate.version = "public.secret", 2
    assert not shows(shape(session.talk(bind(name="s"), execute(), SYNC)))
    assert not shows(ask(session, "EXECUTE s"))


def test_a_shadow_made_after_prepare(weir: Open) -> None:
    gate = Forbids("other.secret")
    session = weir(gate)
    ask(session, "CREATE TEMP TABLE z ()", "PREPARE q AS SELECT key FROM secret")
    ask(session, "CREATE TEMP TABLE secret (id int, key text)")
    gate.forbidden, gate.version = "public.secret", 2
    assert not shows(ask(session, "EXECUTE q"))
    assert not shows(shape(session.talk(bind(name="q"), execute(), SYNC)))


def test_a_statement_follows_the_path(weir: Open) -> None:
    """The server looks its names up again, and so does Weir: what was forbidden there is nothing here."""
    session = weir()
    ask(session, "SET search_path = public")
    session.talk(parse("SELECT key FROM secret", "s"), SYNC)
    assert shape(session.talk(bind(name="s"), execute(), SYNC)) == ["E 42501", "Z I"]
    ask(session, "SET search_path = other")
    assert shape(session.talk(bind(name="s"), execute(), SYNC)) == ["2", "C SELECT 0", "Z I"]


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("waits", [False, True])
def test_a_table_that_another_session_drops(port: int, weir: Open, labelled: bool, waits: bool) -> None:
    """The catalogue still has it, and the server until the other commits: then the next along the path is read."""
    name, text = ("people", "SELECT upper(email) FROM people") if labelled else ("secret", "SELECT key FROM secret")
    other = Direct(port, "app", "shop")
    session = weir(None, LABELS if labelled else ())
    ask(session, "SET search_path = other, public")
    try:
        other.talk(query("BEGIN"), query(f"DROP TABLE other.{name}"), ready=2)
        if not waits:
            other.talk(query("COMMIT"))
        session.send(query(text))
        other.talk(query("COMMIT"))
        assert not shows(shape(session.until_ready()))
    finally:
        other.talk(query(f"CREATE TABLE IF NOT EXISTS other.{name} (id int, key text, email text)"))
        other.close()


def test_a_prepare_whose_string_cannot_be_read_any_more(weir: Open) -> None:
    """It is read again for EXECUTE; where that fails, nothing is known of what it runs."""
    session = weir()
    ask(session, "CREATE TEMP TABLE secret (id int, key text)")
    ask(session, "SELECT lower('A'); PREPARE q AS SELECT key FROM secret")
    ask(session, "CREATE FUNCTION pg_temp.lower(int) RETURNS int LANGUAGE sql AS 'SELECT 1'")
    ask(session, "DROP TABLE pg_temp.secret")
    got = ask(session, "EXECUTE q")
    assert not shows(got)
    assert not session.closed
    assert not shows(shape(session.talk(bind(name="q"), execute(), SYNC)))
    assert not shows(shape(session.talk(parse("EXECUTE q"), bind(), execute(), SYNC)))
