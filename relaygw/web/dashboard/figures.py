"""Figures of the first page: bars of what was delivered, deferred and bounced, and tables.

The tables tell what fails most, and what providers reported after their 250: by recipients'
domains, replies and providers, and by senders' domains. Each row has the list of its mail.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any
from urllib.parse import urlencode

from relaygw.mail.clock import rfc3339
from relaygw.mail.result import ASKED, COMPLAINED, RETURNED, UNSUBSCRIBED
from relaygw.mail.suppression import NULL_SENDER
from relaygw.store.reports import LastWords
from relaygw.store.shape import Failure, Failures
from relaygw.store.watch import HISTORY_SLICE_MS

HEIGHT = 100  # of the greatest column, in units of the drawing; each is a unit of its own wide
_LEAST = 1.5  # of what is not nothing: it is seen
SPANS = {3: ("3 h", 1), 24: ("24 h", 6), 72: ("3 d", 12), 168: ("7 d", 36), 336: ("14 d", 72)}
"""Hours that may be looked at: their name, and how many slices of history a step has."""
ENDED = {"result": ("refused", "expired")}  # what was reported later has its own numbers
SERIES: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "delivered": ("Delivered", "green", {"result": ("delivered",)}),
    "deferred": ("Deferred", "amber", {"attempt": ("all",)}),
    "bounced": ("Bounced", "red", ENDED),
}
"""From the bottom up: label, colour, and the selectors of what is counted."""


def queue_path(**conditions: Any) -> str:
    """Return the path of the list of what these selectors select; those without a value are not."""
    given = {name: value for name, value in conditions.items() if value not in (None, "")}
    return "/queue?" + urlencode(given, doseq=True)


def moment(at_ms: int) -> str:
    """Return a time as a selector reads it, as short as it is exact."""
    return rfc3339(at_ms).replace(".000Z", "Z").replace(":00Z", "Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The time that is looked at, in steps of several slices of history."""

    start_ms: int
    steps: int
    slices: int  # in a step

    @property
    def step_ms(self) -> int:
        """How long a step is."""
        return self.slices * HISTORY_SLICE_MS

    @property
    def end_ms(self) -> int:
        """The end of the last step, which may not be over."""
        return self.start_ms + self.steps * self.step_ms

    @property
    def middle_ms(self) -> int:
        """The time in the middle."""
        return (self.start_ms + self.end_ms) // 2

    @property
    def step(self) -> str:
        """How long a step is, in words."""
        minutes = self.step_ms // 60_000
        return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h"


def span_of(hours: int, *, now: int) -> Span:
    """Return the last `hours`, one of SPANS, up to the step of now."""
    slices = SPANS[hours][1]
    step_ms = slices * HISTORY_SLICE_MS
    steps = hours * 3_600_000 // step_ms
    end_ms = now - now % step_ms + step_ms
    return Span(start_ms=end_ms - steps * step_ms, steps=steps, slices=slices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The part of a column that is of one series."""

    name: str
    amount: int
    y: float
    height: float
    path: str  # of its list; "" where mail so old is deleted


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One step of time in which there was something."""

    x: int
    start_ms: int
    end_ms: int
    parts: tuple[Part, ...]  # of all series, from the bottom up

    @property
    def amount(self) -> int:
        """How much there was in all."""
        return sum(part.amount for part in self.parts)

    @property
    def words(self) -> str:
        """It in words, for who looks at the drawing."""
        told = [f"{part.amount:,} {part.name}" for part in self.parts if part.amount]
        return ", ".join(told)


Amounts = Mapping[str, Counter[int]]
"""By name of a series: how much there was, by step."""


def columns_of(amounts: Amounts, span: Span, *, kept_ms: int, provider: str) -> list[Column]:
    """Return the columns that are not empty; mail that ended before `kept_ms` is deleted."""
    sums: Counter[int] = Counter()
    for counted in amounts.values():
        sums.update(counted)
    most = max(sums.values(), default=0)
    found = []
    for x in sorted(+sums):
        start_ms = span.start_ms + x * span.step_ms
        end_ms = start_ms + span.step_ms
        within = {"since": moment(start_ms), "until": moment(end_ms - 1), "provider": provider}
        if start_ms < kept_ms:
            within = {}
        numbers = {name: amounts[name][x] for name in SERIES}
        parts = tuple(_stacked(numbers, most, within))
        found.append(Column(x=x, start_ms=start_ms, end_ms=end_ms, parts=parts))
    return found


def _stacked(numbers: Mapping[str, int], most: int, within: Mapping[str, str]) -> Iterator[Part]:
    heights = {
        name: max(_LEAST, HEIGHT * number / most) if number else 0.0
        for name, number in numbers.items()
    }
    shrunk = min(1.0, HEIGHT / sum(heights.values()))
    top = float(HEIGHT)
    for name, number in numbers.items():
        height = heights[name] * shrunk
        top -= height
        path = queue_path(**SERIES[name][2], **within) if number and within else ""
        yield Part(name=name, amount=number, y=round(top, 2), height=round(height, 2), path=path)


MOST = 2000  # of the newest of each kind are looked at
_FAILING_SHOWN = 6
_PUT_OFF = {"attempt": "all"}
_DIFFERS = re.compile(r"(?<!\S)[^\s\d@<>]*+[\d@<>]\S*+|[\r\n]++")  # addresses, ids and numbers
_LEAST_CHARACTERS = 8  # characters that tell one reply from another
_MAX_CHARACTERS = 300


def part_of(reply: str) -> str:
    """Return the longest part of a reply that others for the same reason have as well."""
    parts = (part.strip(" \t:;,.-()[]\"'") for part in _DIFFERS.split(reply))
    longest = max(parts, key=len)
    return (longest if len(longest) >= _LEAST_CHARACTERS else reply.strip())[:_MAX_CHARACTERS]


Row = dict[str, Any]


def failing(found: Failures, provider: str) -> list[tuple[str, list[Row]]]:
    """Return tables of the worst, with a name each; of one provider, or with "" of all."""
    kinds = {
        "failed": [failure for failure in found.final if provider in ("", failure.provider)],
        "deferred": [failure for failure in found.put_off if provider in ("", failure.provider)],
    }
    since = {"failed": found.final_since_ms, "deferred": found.put_off_since_ms}
    within = {name: {"since": moment(at_ms), "provider": provider} for name, at_ms in since.items()}
    tables = [
        (
            "Recipients' domains",
            _failing_most(kinds, within, "domain", lambda failure: failure.domain),
        ),
        ("Replies", _replies(kinds, within)),
    ]
    if not provider:
        rows = _failing_most(kinds, within, "provider", lambda failure: failure.provider)
        tables.append(("Providers", rows))
    return [(label, rows) for label, rows in tables if rows]


_Kinds = Mapping[str, Iterable[Failure]]
_Within = Mapping[str, Mapping[str, str]]  # by kind: the selectors of all its lists


def _failing_most(
    kinds: _Kinds, within: _Within, selector: str, key_of: Callable[[Failure], str]
) -> list[Row]:
    mails: dict[str, dict[str, set[str]]] = {name: defaultdict(set) for name in kinds}
    for name, failures in kinds.items():
        for failure in failures:
            if key := key_of(failure):
                mails[name][key].add(failure.queue_id)
    numbers = {
        key: sum(len(mails[name][key]) for name in kinds) for key in {*chain(*mails.values())}
    }
    rows = []
    for key in sorted(numbers, key=lambda key: (-numbers[key], key))[:_FAILING_SHOWN]:
        ids = {name: mails[name][key] for name in kinds}
        rows.append(_failure_row(key, ids, within, {selector: key}))
    return rows


def _replies(kinds: _Kinds, within: _Within) -> list[Row]:
    """Group by what replies have in common; a mail counts wherever its reply has the part."""
    parts: dict[str, str] = {}  # by reply: few are different
    examples: dict[str, str] = {}
    for failures in kinds.values():
        for failure in failures:
            if failure.reply and failure.reply not in parts:
                part = parts[failure.reply] = part_of(failure.reply)
                examples.setdefault(part, failure.reply)
    rows = _failing_most(kinds, within, "reply", lambda recipient: parts.get(recipient.reply, ""))
    told = {
        name: [(failure.queue_id, failure.reply.lower()) for failure in failures]
        for name, failures in kinds.items()
    }
    for row in rows:
        part = row["key"].lower()
        ids = {
            name: {queue_id for queue_id, reply in replies if part in reply}
            for name, replies in told.items()
        }
        row |= _failure_row(examples[row["key"]], ids, within, {"reply": row["key"]})
    return rows


def _failure_row(
    key: str, ids: Mapping[str, set[str]], within: _Within, only: Mapping[str, str]
) -> Row:
    return {
        "key": key[:_MAX_CHARACTERS],
        "failed": len(ids["failed"]),
        "failed_path": queue_path(**ENDED, **{**within["failed"], **only}),
        "deferred": len(ids["deferred"]),
        "deferred_path": queue_path(**_PUT_OFF, **{**within["deferred"], **only}),
    }


WORDS = (RETURNED, COMPLAINED, UNSUBSCRIBED)
_REPORTED_SHOWN = 10


def reported(
    found: Iterable[LastWords],
    provider: str,
    *,
    since_ms: int,
    delivered: Mapping[str, int],
    sent: Mapping[str, int],
) -> list[tuple[str, list[Row]]]:
    """Return tables of recipients with a name each; of one provider, or with "" of all.

    `delivered` and `sent` are how many there were of a provider, and of a sender's domain.
    """
    mine = [count for count in found if provider in ("", count.provider)]
    within = {"since": moment(since_ms), "provider": provider}
    by_domain: defaultdict[str, Counter[str]] = defaultdict(Counter)
    by_provider: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for count in mine:
        word = next(word for word in WORDS if count.kind in ASKED[word].kinds)
        by_domain[count.domain][word] += count.number
        by_provider[count.provider][word] += count.number
    domains = [
        # of one provider it is not known how much each sent
        _report_row(
            key or NULL_SENDER, numbers, 0 if provider else sent.get(key, 0), within | _from(key)
        )
        for key, numbers in _most_reported(by_domain)
    ]
    tables = [("Senders' domains", domains)]
    if not provider:
        rows = [
            _report_row(key, numbers, delivered.get(key, 0), within | {"provider": key})
            for key, numbers in _most_reported(by_provider)
        ]
        tables.insert(0, ("Providers", rows))
    return [(label, rows) for label, rows in tables if rows]


def _from(domain: str) -> dict[str, str]:
    return {"sender_domain": domain} if domain else {"sender": NULL_SENDER}


def _most_reported(numbers: Mapping[str, Counter[str]]) -> list[tuple[str, Counter[str]]]:
    order = sorted(numbers.items(), key=lambda item: (-item[1].total(), item[0]))
    return order[:_REPORTED_SHOWN]


def _report_row(key: str, numbers: Counter[str], total: int, only: Mapping[str, str]) -> Row:
    cells = [
        (word, numbers[word], _share(numbers[word], total), queue_path(result=word, **only))
        for word in WORDS
    ]
    return {"key": key[:_MAX_CHARACTERS], "cells": cells}


def _share(number: int, total: int) -> str:
    """Return a share in percent; "" where it is not known of how many, or of too few."""
    return f"{100 * number / total:.2g} %" if 0 < number <= total else ""
