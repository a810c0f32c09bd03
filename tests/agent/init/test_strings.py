"""Connection strings and variables as crews have them."""
from __future__ import annotations

import pytest

from agent.init.findings import OTHER, Peer
from agent.init.strings import Unclear, is_usual, parse_environment, parse_postgres, parse_target


def one(text: str) -> Peer:
    found = parse_postgres(text, "X of crew.service")
    assert found is not None
    return found


@pytest.mark.parametrize(("text", "hosts", "port", "user", "database", "secret"), [
    ("postgresql://svc:pw@db.lab/shop", ("db.lab",), 5432, "svc", "shop", "pw"),
    ("postgres://svc@10.1.2.3:6432/shop", ("10.1.2.3",), 6432, "svc", "shop", ""),
    ("postgresql+psycopg2://s%40x:p%2Fw@DB.lab:5433/shop?sslmode=require", ("db.lab",), 5433, "s@x", "shop", "p/w"),
    ("postgresql+asyncpg://db.lab", ("db.lab",), 5432, "", "", ""),
    ("postgresql://a,b:5433/shop", ("a",), 5432, "", "shop", ""),
    ("postgresql://[::1]:5432/shop", ("::1",), 5432, "", "shop", ""),
    ("postgresql:///shop", ("localhost",), 5432, "", "shop", ""),
    ("postgresql://h/d?user=u&password=q", ("h",), 5432, "u", "d", "q"),
    (r"host=db.lab port = 5433 user=svc password='a b\'c'", ("db.lab",), 5433, "svc", "", "a b'c"),
])
def test_strings_of_postgresql(
    text: str, hosts: tuple[str, ...], port: int, user: str, database: str, secret: str,
) -> None:
    found = one(text)
    assert (found.hosts, found.port, found.user, found.database) == (hosts, port, user, database)
    assert [one.value for one in found.secrets] == ([secret] if secret else [])


@pytest.mark.parametrize("text", [
    "", "db.lab", "mysql://h/d", "postgresql://h:99999/d", "postgresql://h:x/d", "postgresql://a b/d",
    'postgresql://h"\n[[target]]/d', "postgresql://[::1/d", "host=db.lab", "postgresql://\x1b[2J/d",
    "host=$(id) user=x", "host=db.lab user=svc password='it''s'", "postgresql:///d?host=/etc"])
def test_what_is_none(text: str) -> None:
    assert parse_postgres(text, "x") is None


def test_a_directory_is_that_of_a_socket() -> None:
    assert one("postgresql:///shop?host=/var/run/postgresql").socket == "/run/postgresql/.s.PGSQL.5432"
    assert one("host=/tmp dbname=shop").socket == "/tmp/.s.PGSQL.5432"


def test_what_is_not_printable_is_left_out_and_a_password_of_two_lines_is_none() -> None:
    found = one("postgresql://a%0Ab:p%0Aw@h/d%1B")
    assert (found.user, found.database, found.secrets) == ("", "", ())


def test_a_password_that_no_file_of_weirs_could_hold_is_none() -> None:
    """Of bytes that are no UTF-8, as an environment may have them."""
    [found] = parse_environment({"PGHOST": "db.lab", "PGPASSWORD": "p\udcff"}, "x")
    assert (found.hosts, found.secrets) == (("db.lab",), ())


def test_the_environment() -> None:
    found = list(parse_environment({
        "DATABASE_URL": "postgresql://svc:pw@db.lab/shop", "PGHOST": "10.0.0.1", "PGUSER": "u", "PGPASSWORD": "secret",
        "PGSSLMODE": "verify-full", "PGSSLROOTCERT": "/etc/ssl/db.pem", "OPENAI_API_KEY": "sk-x",
        "ANTHROPIC_API_KEY": "x", "ANTHROPIC_BASE_URL": "https://proxy.lab:8443/v1", "HOME": "/x",
        "BIG_URL": "postgresql://h/" + "d" * 5000}, "crew.service"))
    places = [(one.protocol, one.hosts, one.port, one.why) for one in found]
    assert places == [
        ("postgresql", ("db.lab",), 5432, ("DATABASE_URL of crew.service",)),
        ("postgresql", ("10.0.0.1",), 5432, ("PGHOST of crew.service",)),
        (OTHER, ("proxy.lab",), 8443, ("ANTHROPIC_BASE_URL of crew.service",)),
        (OTHER, ("api.openai.com",), 443, ("OPENAI_API_KEY of crew.service",))]
    assert found[1].tls == "verify-full"
    assert found[1].root_file == "/etc/ssl/db.pem"
    assert found[1].secrets[0].place == "PGPASSWORD of crew.service"
    assert not any(word in repr(found) for word in ("pw", "secret'", "sk-x"))


def test_a_name_that_is_none_is_not_repeated() -> None:
    [found] = parse_environment({"A\x1b[2J\nB": "postgresql://h/d"}, "crew.service")
    assert found.why == ("a variable of crew.service",)


@pytest.mark.parametrize(("text", "protocol", "port", "user", "inner"), [
    ("postgresql://svc@db.lab/shop", "postgresql", 5432, "svc", "shop"),
    ("ssh://deploy@web.lab", "ssh", 22, "deploy", ""),
    ("ssh://web.lab:2222", "ssh", 2222, "", ""), ("kubernetes://k.lab/shop", "kubernetes", 6443, "", "shop"),
    ("https://k.lab", "kubernetes", 443, "", "")])
def test_what_a_target_is_given_as(text: str, protocol: str, port: int, user: str, inner: str) -> None:
    found = parse_target("x", text)
    assert (found.protocol, found.port, found.user, found.database, found.name) == (protocol, port, user, inner, "x")


@pytest.mark.parametrize("text", ["postgresql://svc:hunter2@h/d", "postgresql://h/d?password=hunter2",
                                  "ssh://a:hunter2@h", "hunter2", "ftp://hunter2", "postgresql://h:hunter2/d"])
def test_a_password_in_a_target_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(Unclear) as wrong:
        parse_target("x", text)
    assert "hunter2" not in str(wrong.value)
    assert "would be right" in str(wrong.value) or "everybody on this host sees" in str(wrong.value)


@pytest.mark.parametrize(("host", "port", "usual"), [
    ("api.openai.com", 443, True), ("1.2.3.4", 443, True), ("10.0.0.4", 443, False), ("127.0.0.1", 443, False),
    ("1.2.3.4", 3306, False), ("db.lab", 6379, False), ("::1", 443, False)])
def test_what_looks_like_a_model(host: str, port: int, usual: bool) -> None:
    assert is_usual(host, port) == usual
