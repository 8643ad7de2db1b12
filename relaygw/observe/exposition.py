"""The text for Prometheus; only this module knows prometheus_client."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate, chain
from pathlib import Path

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder

from relaygw.observe.metrics import counted
from relaygw.observe.tallies import Tally, TallyKind

Numbers = dict[tuple[str, ...], float]  # numbers by the values of labels


@dataclass(frozen=True, slots=True, kw_only=True)
class GaugeFamily:
    """One gauge: its name without the prefix `relaygw_`, and numbers in the order of `labels`."""

    name: str
    meaning: str
    labels: tuple[str, ...] = ()
    numbers: Numbers = field(default_factory=dict)


def exposition(state_dir: Path, gauges: Iterable[GaugeFamily], *, accept: str) -> tuple[bytes, str]:
    """Return the text for Prometheus and its content type, of all processes of the host; blocks."""
    encode, content_type = choose_encoder(accept)
    families = chain(map(_family, counted(state_dir)), map(_gauge, gauges))
    return encode(_Families(families)), content_type


class _Families(list[Metric]):
    def collect(self) -> list[Metric]:
        return self


def _gauge(gauge: GaugeFamily) -> Metric:
    family = GaugeMetricFamily(f"relaygw_{gauge.name}", gauge.meaning, labels=gauge.labels)
    for labels, number in gauge.numbers.items():
        family.add_metric(labels, number)
    return family


def _family(tally: Tally) -> Metric:
    if tally.kind is TallyKind.HISTOGRAM:
        return _histogram(tally)
    made = CounterMetricFamily if tally.kind is TallyKind.COUNTER else GaugeMetricFamily
    family = made(tally.name, tally.meaning, labels=tally.labels)
    for labels, (number,) in tally.rows.items():
        family.add_metric(labels, number)
    return family


def _histogram(tally: Tally) -> Metric:
    family = HistogramMetricFamily(tally.name, tally.meaning, labels=tally.labels)
    bounds = [*map(str, tally.bounds), "+Inf"]
    for labels, (*counts, total) in tally.rows.items():
        family.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), total)
    return family
