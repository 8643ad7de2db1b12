"""Reads the text of a scrape back into numbers, with the library's own parser."""

from __future__ import annotations

from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families


class Scraped(NamedTuple):
    """The numbers of a scrape by name and labels, and the type of each metric."""

    numbers: dict[str, float]
    types: dict[str, str]

    def __call__(self, name: str, **labels: str) -> float | None:
        """Return one number, None when it is not there."""
        return self.numbers.get(key(name, labels))


def key(name: str, labels: dict[str, str]) -> str:
    """Return a name with its labels in alphabetical order."""
    return f"{name}{sorted(labels.items())}"


def scraped(text: bytes | str) -> Scraped:
    """Parse a scrape; a series that stands twice is an error."""
    found: dict[str, float] = {}
    types = {}
    shown = text.decode() if isinstance(text, bytes) else text
    for family in text_string_to_metric_families(shown):  # type: ignore[no-untyped-call]
        types[family.name] = family.type
        for sample in family.samples:
            name = key(sample.name, sample.labels)
            assert name not in found, name
            found[name] = sample.value
    return Scraped(found, types)
