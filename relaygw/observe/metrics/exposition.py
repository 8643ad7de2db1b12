"""The answer to a scrape: the files of all processes added up, and gauges of the moment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from relaygw.observe.metrics.files import files_to_read

Numbers = dict[tuple[str, ...], float]
"""Numbers by the values of labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GaugeFamily:
    """One gauge: its name without the prefix `relaygw_`, and numbers in the order of `labels`."""

    name: str
    meaning: str
    labels: tuple[str, ...] = ()
    numbers: Numbers = field(default_factory=dict)


def exposition(state_dir: Path, gauges: Iterable[GaugeFamily], *, accept: str) -> tuple[bytes, str]:
    """Return the text for Prometheus and its content type, in the form that `accept` prefers.

    Reads the files of every process of the host that has `state_dir`; blocks for a moment.
    """
    encode, content_type = choose_encoder(accept)
    registry = CollectorRegistry()
    registry.register(_Families([*_of_files(state_dir), *map(_family, gauges)]))
    return encode(registry), content_type


class _Families:
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def _of_files(state_dir: Path) -> list[Metric]:
    with files_to_read(state_dir) as paths:
        return list(MultiProcessCollector.merge(paths))  # type: ignore[no-untyped-call]


def _family(gauge: GaugeFamily) -> Metric:
    family = GaugeMetricFamily(f"relaygw_{gauge.name}", gauge.meaning, labels=gauge.labels)
    for values, number in gauge.numbers.items():
        family.add_metric(values, number)
    return family
