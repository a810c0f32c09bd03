"""A session that is ended finishes what runs and begins nothing; then the protocol's own words."""
from __future__ import annotations

from collections.abc import Iterator

import pytest
from pump import FLUSH, SYNC, Pump, TableGate, bind, execute, parse, query, render, shape, split

from enforcer.words import commands as words
from enforcer.words import inputs

END = inputs.Ended("logged out", True)
COUNT = "SELECT count(*) FROM t"


@pytest.fixture(params=[1 << 20, 1], ids=["whole", "bytes"])
def weir(request: pytest.FixtureRequest, port: int) -> Iterator[Pump]:
    made = Pump(port, "app", "shop", TableGate(hold={("sql:delete", "t")}), cut=request.param)
    yield made
    made.close()


def rest(weir: Pump) -> list[str]:
    """What the client gets until the session is closed."""
    while not weir.closed:
        weir.step()
    return shape(split(weir.client))


def test_one_that_does_nothing_ends_at_once(weir: Pump) -> None:
    weir.tell(END)
    assert shape(split(weir.client)) == ["E 57P01"]
    assert b"terminating connection: logged out" in weir.client
    assert weir.closed == "logged out"


def test_also_inside_a_transaction(weir: Pump) -> None:
    assert shape(weir.talk(query("BEGIN"))) == ["C BEGIN", "Z T"]
    weir.tell(END)
    assert shape(split(weir.client)) == ["E 57P01"]


def test_what_runs_is_finished_and_nothing_begun(weir: Pump) -> None:
    weir.send(query("SELECT 6 FROM pg_sleep(0.3)"))
    weir.tell(END)
    weir.send(query("INSERT INTO t VALUES (901, '')"))
    assert rest(weir) == ["T", "D 6", "C SELECT 1", "Z I", "E 57P01"]
    assert b"INSERT" not in weir.to_server


def test_what_waited_for_its_turn_is_not_begun(weir: Pump) -> None:
    """A SET holds back what follows it."""
    weir.send(query("SET search_path = other") + query("INSERT INTO t VALUES (902, '')"))
    weir.tell(END)
    assert rest(weir)[-1] == "E 57P01"
    assert b"INSERT" not in weir.to_server


def test_without_finish_nothing_is_waited_for(weir: Pump) -> None:
    weir.send(query("SELECT 6 FROM pg_sleep(0.3)"))
    weir.tell(inputs.Ended("killed"))
    assert shape(split(weir.client)) == ["E 57P01"]


def test_and_one_that_is_to_finish_can_still_be_ended_now(weir: Pump) -> None:
    weir.send(query("SELECT 6 FROM pg_sleep(30)"))
    weir.tell(END)
    assert not weir.closed
    weir.tell(inputs.Ended("killed"))
    assert weir.closed == "killed"


def test_a_batch_ends_with_its_sync(weir: Pump) -> None:
    weir.send(parse(COUNT) + bind() + execute())
    weir.tell(END)
    assert not weir.closed
    weir.send(SYNC)
    assert rest(weir) == ["1", "2", "D 20", "C SELECT 1", "Z I", "E 57P01"]


def test_a_batch_gets_nothing_more_and_syncs_keep_nothing_open(weir: Pump) -> None:
    weir.send(parse(COUNT) + bind() + execute() + SYNC)
    weir.tell(END)
    before = len(weir.to_server)
    weir.send(SYNC * 50 + parse("INSERT INTO t VALUES (903, '')") + bind() + execute() + SYNC)
    assert len(weir.to_server) == before
    assert rest(weir) == ["1", "2", "D 20", "C SELECT 1", "Z I", "E 57P01"]


def test_a_batch_that_goes_on_without_sync_ends_with_what_it_has(weir: Pump) -> None:
    weir.send(parse(COUNT) + bind() + execute())
    weir.tell(END)
    weir.send(parse("INSERT INTO t VALUES (904, '')") + bind() + execute() + SYNC)
    assert rest(weir) == ["1", "2", "D 20", "C SELECT 1", "E 57P01"]
    assert b"INSERT" not in weir.to_server


def test_a_copy_that_was_begun_takes_its_data(weir: Pump) -> None:
    weir.send(query("COPY t FROM STDIN"))
    while not weir.client.startswith(b"G") or len(weir.client) < 6:
        weir.step()
    weir.tell(END)
    weir.send(render(b"d", b"905\tlast\n") + render(b"c") + query("INSERT INTO t VALUES (906, '')"))
    assert rest(weir) == ["G", "C COPY 1", "Z I", "E 57P01"]
    assert b"INSERT" not in weir.to_server
    with_it = Pump(weir.port, "app", "shop", TableGate())
    try:
        assert shape(with_it.talk(query("DELETE FROM t WHERE id = 905")))[0] == "C DELETE 1"
    finally:
        with_it.close()


def test_what_is_held_is_given_up(weir: Pump) -> None:
    orders: list[words.Command] = []
    do = weir.do
    weir.do = lambda commands: (orders.extend(commands), do(commands))[1]  # type: ignore[method-assign,func-returns-value]
    weir.send(query("DELETE FROM t WHERE id = -1"))
    assert weir.holds
    weir.tell(END)
    assert [one.reason for one in orders if isinstance(one, words.CancelHold)] == ["logged out"]
    assert shape(split(weir.client)) == ["E 57P01"]
    assert b"DELETE" not in weir.to_server


def test_nothing_overtakes_what_is_held(weir: Pump) -> None:
    """What runs before it in its batch is finished; its Sync stays behind it."""
    weir.send(parse(COUNT) + bind() + execute() + parse("DELETE FROM t WHERE id = -1") + bind() + execute())
    assert weir.holds
    before = weir.to_server
    weir.tell(END)
    weir.send(SYNC)
    assert weir.to_server.removeprefix(before) in (b"", FLUSH)
    assert rest(weir)[-1] == "E 57P01"
    assert "Z I" not in shape(split(weir.client))


def test_who_says_goodbye_meanwhile_is_let_go(weir: Pump) -> None:
    weir.send(query("SELECT 6 FROM pg_sleep(0.3)"))
    weir.tell(END)
    weir.send(render(b"X"))
    while not weir.closed:
        weir.step()
    assert weir.closed
