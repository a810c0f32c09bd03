"""Which questions are asked on: a table; and the bounds below a wildcard."""
from __future__ import annotations

import dns.message
import pytest

from enforcer.dns import decision
from enforcer.dns.decision import UNLISTED, Decisions, Empty, Forward, Refused, Unlisted
from enforcer.dns.messages import Query, parse_query

PATTERNS = ("db.example", "*.cdn.example", "_x.example")


def query(name: str, kind: str = "A") -> Query:
    found = parse_query(dns.message.make_query(name, kind).to_wire())
    assert isinstance(found, Query)
    return found


@pytest.mark.parametrize(("name", "kind", "wanted"), [
    ("db.example", "A", Forward("db.example")), ("DB.Example.", "AAAA", Forward("db.example")),
    ("db.example", "HTTPS", Forward("db.example")), ("db.example", "SVCB", Forward("db.example")),
    ("db.example", "TXT", Empty()), ("db.example", "MX", Empty()), ("db.example", "NULL", Empty()),
    ("db.example", "CNAME", Empty()), ("db.example", "TYPE65000", Empty()),
    ("db.example", "ANY", Refused), ("db.example", "AXFR", Refused), ("db.example", "IXFR", Refused),
    ("x.db.example", "A", Refused), ("example", "A", Refused), (".", "A", Refused),
    ("db.example.evil.net", "A", Refused),
    ("xdb.example", "A", Refused), ("1.2.0.192.in-addr.arpa", "PTR", Refused),
    ("a.cdn.example", "A", Forward("*.cdn.example")), ("a.b.c.cdn.example", "A", Forward("*.cdn.example")),
    ("cdn.example", "A", Refused), ("a.b.c.d.cdn.example", "A", Refused), ("a" * 41 + ".cdn.example", "A", Refused),
    ("a" * 40 + ".cdn.example", "A", Forward("*.cdn.example")), ("acdn.example", "A", Refused),
    (f"{'a' * 33}.{'b' * 33}.cdn.example", "A", Refused), (r"a\.b.cdn.example", "A", Refused),
    (r"a\000b.cdn.example", "A", Refused), ("a b.cdn.example", "A", Refused), ("-a.cdn.example", "A", Refused),
    ("a.cdn.example", "TXT", Empty()), (r"db\.example", "A", Refused), (r"x\.cdn.example", "A", Refused),
])
def test_questions(name: str, kind: str, wanted: object) -> None:
    found = Decisions(PATTERNS).decide(query(name, kind))
    assert found == wanted if not isinstance(wanted, type) else isinstance(found, wanted), found


def asked(decisions: Decisions, name: str, now: float, workload: str = "crew") -> str:
    verdict = decisions.decide(query(name))
    assert isinstance(verdict, Forward), verdict
    if not decisions.crew(workload).may_ask(now):
        return "too many questions of this workload"
    return decisions.why_not(query(name), verdict.pattern, workload, now)


def test_new_names_below_a_wildcard_are_few_and_known_ones_are_not_new() -> None:
    decisions = Decisions(PATTERNS)
    said = [asked(decisions, f"n{number}.cdn.example", number * 0.2) for number in range(100)]
    passed = said.count("")
    assert decision.FRESH <= passed <= decision.FRESH + 20 * decision.FRESH / 60 + 1
    assert "new names a minute" in said[-1]
    assert asked(decisions, "n0.cdn.example", 19.9) == ""
    again = Decisions(PATTERNS, decisions)                 # a reload is no way to begin anew
    said = [asked(again, f"m{number}.cdn.example", 20.0) for number in range(2)]
    assert "new names" in said[-1]
    assert asked(again, "another.cdn.example", 60) == ""


def test_questions_a_second() -> None:
    decisions = Decisions(PATTERNS)
    below = [asked(decisions, "a.cdn.example", 1.0) for _ in range(200)]
    assert below.count("") == decision.BURST
    assert "too many" in below[-1]
    whole = [asked(decisions, "db.example", 1.0) for _ in range(1000)]
    assert whole.count("") == decision.CREW_BURST - 200
    assert asked(decisions, "db.example", 1.0, "another crew") == ""
    assert asked(decisions, "db.example", 2.0) == ""


def test_what_is_remembered_is_bounded() -> None:
    decisions = Decisions(PATTERNS)
    for number in range(3000):
        asked(decisions, f"n{number}.cdn.example", number * 10.0, f"crew{number}")
    assert len(decisions._crews) <= decision.WORKLOADS
    for number in range(decision.REMEMBERED + 50):
        asked(decisions, f"n{number}.cdn.example", 30_000 + number * 10.0)
    assert len(decisions.crew("crew").below("*.cdn.example")._known) <= decision.REMEMBERED


@pytest.mark.parametrize(("name", "kind", "wanted"), [
    ("any.where.example.net", "A", Forward(UNLISTED)), ("any.where.example.net", "HTTPS", Forward(UNLISTED)),
    ("db", "A", Forward(UNLISTED)), ("any.where.example.net", "TXT", Empty()), ("4.3.2.1.in-addr.arpa", "PTR", Empty()),
    ("a.b.c.d.e.f.g.h.net", "A", Refused), (f"{'a' * 60}.{'b' * 60}.{'c' * 20}", "A", Refused),
    (r"a\000b.net", "A", Refused), (r"a\.b.net", "A", Refused), ("-a.net", "A", Refused), (".", "A", Refused),
])
def test_what_is_not_listed_where_a_mode_lets_it_through(name: str, kind: str, wanted: object) -> None:
    decisions = Decisions(PATTERNS)
    assert isinstance(decisions.decide(query(name, kind)), Unlisted)
    found = decisions.lax(query(name, kind))
    assert found == wanted if not isinstance(wanted, type) else isinstance(found, wanted), found


def test_what_is_not_listed_is_bounded_too() -> None:
    decisions = Decisions(PATTERNS)
    said = [decisions.why_not(query(f"n{number}.net"), UNLISTED, "crew", 1.0) for number in range(1000)]
    assert said.count("") == decision.UNLISTED_FRESH
    assert Decisions(PATTERNS, decisions).why_not(query("more.net"), UNLISTED, "crew", 1.0)
