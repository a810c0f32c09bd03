"""One person with several names: as groups.toml says it, as it is told, and as logins show it."""
from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import parse_config
from agent.contract.people import MOST, People
from agent.settings import advice
from agent.settings.check import load_config
from agent.settings.fields import ConfigError
from agent.settings.groups_file import parse_groups

ADA = ("corp:ada@example.org", "local:ada", "local:ada-admin")
PEOPLE = People({"ada": ADA, "eve": ("local:eve", "corp:eve")})


def test_all_names_of_who_is_known_by_one() -> None:
    for name in ADA:
        assert PEOPLE.names([name])[0] == name
        assert set(PEOPLE.names([name])) == set(ADA)
    assert PEOPLE.names(["local:bob"]) == ("local:bob",)
    assert PEOPLE.names(["", "local:bob", "local:eve"]) == ("local:bob", "local:eve", "corp:eve")
    assert People().names(["local:ada"]) == ("local:ada",)


def test_a_login_joins_what_the_file_does_not() -> None:
    links = [("local:one", "corp:bob"), ("local:two", "corp:bob"), ("local:ada", "adfs:lovelace")]
    assert set(PEOPLE.names(["local:one"], links)) == {"local:one", "corp:bob", "local:two"}
    assert set(PEOPLE.names(["local:ada-admin"], links)) == {*ADA, "adfs:lovelace"}
    assert set(PEOPLE.names(["local:eve"], links)) == {"local:eve", "corp:eve"}


def test_people_are_counted_not_names() -> None:
    assert PEOPLE.distinct([["local:ada"], ["local:ada-admin"], ["local:eve"]]) == 2
    assert PEOPLE.distinct([["local:ada"], ["local:bob", "corp:bob"], ["local:x", "corp:bob"]]) == 2
    # Two that nobody knew to be one, and one that is both.
    assert People().distinct([["a"], ["b"], ["a", "b"]]) == 1
    assert PEOPLE.distinct([]) == 0


def test_as_it_is_written() -> None:
    found, report = parse_groups('[people]\nada = ["corp:ada@example.org", "local:ada", "local:ada-admin"]\n', "g")
    assert not report.problems
    assert found.people == People({"ada": ADA})
    assert found.groups == {}


@pytest.mark.parametrize(("text", "said"), [
    ('ada = "local:ada"', 'g:2: people.ada: '),
    ('ada = ["ada"]', "g:2: people.ada: 'ada' is no name of a person; local:USER or PROVIDER:SUBJECT, of 300"),
    ('ada = [":ada"]', "is no name of a person"),
    ('ada = ["local:"]', "is no name of a person"),
    ('ada = ["local:a\\u0007"]', "longer than 4096 characters or not printable"),
    (f'ada = ["corp:{"a" * 300}"]', "is no name of a person"),
    ('ada = [3]', "g:2: people.ada: "),
    ('"a b" = ["local:ada"]', "g:2: people"),
    ('ada = ["local:ada"]\nbob = ["local:bob",\n"local:ada"]',
     "g:3: people.bob: 'local:ada' is a name of 'ada' already; one list with all of the person's names would be right"),
    ("ada = [" + ", ".join(f'"local:a{number}"' for number in range(MOST + 1)) + "]",
     f"g:2: people.ada: has {MOST + 1} names; {MOST} at most"),
])
def test_what_is_wrong_is_said_with_its_line(text: str, said: str) -> None:
    assert said in "\n".join(map(str, parse_groups(f"[people]\n{text}\n", "g")[1].problems))


def test_people_is_a_table() -> None:
    assert "is a table: write [people] and the people below" in str(parse_groups("people = 3\n", "g")[1].problems[0])


def test_a_provider_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """Its name would be nobody's, and whoever it was meant for could answer what they asked."""
    (tmp_path / "weir.toml").write_text("")
    (tmp_path / "groups.toml").write_text('[people]\nada = ["local:ada",\n       "crop:ada"]\n')
    with pytest.raises(ConfigError) as wrong:
        load_config(tmp_path / "weir.toml")
    assert "groups.toml:2: people.ada: 'crop:ada' names no provider; there is: local" in str(wrong.value)
    (tmp_path / "groups.toml").write_text('[people]\nada = ["user:ada"]\n')       # as [groups] has it
    with pytest.raises(ConfigError, match="; local:ada is the user of this host"):
        load_config(tmp_path / "weir.toml")
    (tmp_path / "groups.toml").write_text('[people]\nada = ["local:ada", "local:ada-admin"]\n')
    assert load_config(tmp_path / "weir.toml").people.names(["local:ada"]) == ("local:ada", "local:ada-admin")


def test_a_user_that_the_host_does_not_have_is_noted() -> None:
    made, _ = parse_config("", "weir.toml")
    found, report = parse_groups('[people]\nada = ["local:ada", "local:nobody-here"]\n', "groups.toml")
    assert made is not None
    said = list(advice.people(found.people, "groups.toml", report.lines, lambda *one: one == ("user", "ada")))
    assert [(one.line, one.field, one.message) for one in said] == [
        (2, "people.ada", "'local:nobody-here' is nobody: this host has no such user")]
