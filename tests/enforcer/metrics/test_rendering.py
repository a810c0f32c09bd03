"""What a scraper reads: by Prometheus's own reader, and its own linter (tests/test_observability.py)."""
from __future__ import annotations

from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from agent.contract.families import COUNTER, FAMILIES, Sample
from enforcer.metrics.rendering import render_metrics

EVERY = tuple(Sample(one.name, tuple(f"a {name}" for name in one.labels), 1.5) for one in FAMILIES)


def test_every_family_is_read_back() -> None:
    body, kind = render_metrics(EVERY, "")
    assert kind.startswith("text/plain")
    read = {sample.name: (sample.labels, sample.value, family.documentation)
            for family in read_text(body.decode()) for sample in family.samples}
    assert read == {one.name: ({name: f"a {name}" for name in one.labels}, 1.5, one.meaning) for one in FAMILIES}


def test_openmetrics_is_given_to_who_asks_for_it() -> None:
    body, kind = render_metrics(EVERY, "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert kind.startswith("application/openmetrics-text")
    assert len(list(read_openmetrics(body.decode()))) == len(FAMILIES)


def test_an_accept_that_nobody_can_read_is_none() -> None:
    body, kind = render_metrics(EVERY, "text/plain ;version=valuesversion=1.0.0.0.1")
    assert kind.startswith("text/plain")
    assert body == render_metrics(EVERY, "")[0]


def test_what_no_family_has_makes_no_series() -> None:
    some = Sample("weir_made_up", (), 1), Sample("weir_state", (), 1), Sample("weir_locks", (), 2)
    body, _ = render_metrics(some, "")
    assert [sample.name for family in read_text(body.decode()) for sample in family.samples] == ["weir_locks"]


def test_a_label_ends_no_line() -> None:
    body, _ = render_metrics((Sample("weir_ledger_connects_total", ('a"\n\\b',), 1),), "")
    [family] = read_text(body.decode())
    assert family.samples[0].labels == {"how": 'a"\n\\b'}


def test_names_follow_the_conventions() -> None:
    for one in FAMILIES:
        assert one.name.startswith("weir_")
        assert one.name.endswith("_total") == (one.kind == COUNTER), one.name
        assert one.meaning.endswith("."), one.name
    assert len({one.name for one in FAMILIES}) == len(FAMILIES)
