"""Mail that has to come each day. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple


class Expect(NamedTuple):
    """Mail that has to come."""

    subject: str  # of its template; `*` stands for any text
    at_least: int  # a day

    def matches(self, template: str) -> bool:
        """True for a template that it means; upper and lower case are alike."""
        first, *others = self.subject.lower().split("*")
        text = template.lower()
        if not others:
            return text == first
        if not text.startswith(first):
            return False
        at = len(first)
        for part in others[:-1]:
            found = text.find(part, at)
            if found < 0:
                return False
            at = found + len(part)
        return text.endswith(others[-1]) and len(text) - len(others[-1]) >= at


def unmet(
    expects: Iterable[Expect], of_last_day: Mapping[str, int]
) -> Iterator[tuple[Expect, int]]:
    """Return the mail that came less often than it has to, and how often, by template."""
    for expect in expects:
        came = sum(number for name, number in of_last_day.items() if expect.matches(name))
        if came < expect.at_least:
            yield expect, came
