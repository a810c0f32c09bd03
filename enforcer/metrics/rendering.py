"""Pure: samples -> the text that a scraper reads, by prometheus-client.

Text format 0.0.4 or OpenMetrics 1.0, as the scraper's Accept has it.  What is no sample of agent.contract.families is
left out: a name or a label that nobody knows would be a new series.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from agent.contract.families import BY_NAME, COUNTER, FAMILIES, Family, Sample


class _Samples(Collector):
    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = tuple(samples)

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        found = {one.name: _metric(one) for one in FAMILIES}
        for sample in self._samples:
            family = BY_NAME.get(sample.family)
            if family is not None and len(family.labels) == len(sample.labels):
                found[sample.family].add_metric(sample.labels, sample.value)
        return (one for one in found.values() if one.samples)


def _metric(family: Family) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if family.kind == COUNTER else GaugeMetricFamily
    return kind(family.name, family.meaning, labels=family.labels)


def render_metrics(samples: Iterable[Sample], accept: str) -> tuple[bytes, str]:
    """(body, content type)."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Samples(samples))
    try:
        render, content_type = choose_encoder(accept)
    except (TypeError, ValueError):   # a version that is none
        render, content_type = choose_encoder("")
    return render(registry), content_type
