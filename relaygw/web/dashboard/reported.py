"""What providers reported after their 250: by provider and sender's domain, each with its list."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from relaygw.mail.verdict import ASKED, COMPLAINED, RETURNED, UNSUBSCRIBED
from relaygw.operations.selectors import NULL_SENDER
from relaygw.store.reports import LastWords
from relaygw.web.dashboard.chart import moment, queue_path

WORDS = (RETURNED, COMPLAINED, UNSUBSCRIBED)
_SHOWN = 10
_MAX_CHARACTERS = 300
Row = dict[str, Any]


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
    mine = [one for one in found if provider in ("", one.provider)]
    within = {"since": moment(since_ms), "provider": provider}
    by_domain: defaultdict[str, Counter[str]] = defaultdict(Counter)
    by_provider: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for one in mine:
        word = next(word for word in WORDS if one.kind in ASKED[word].kinds)
        by_domain[one.domain][word] += one.number
        by_provider[one.provider][word] += one.number
    domains = [
        # of one provider it is not known how much each sent
        _row(key or NULL_SENDER, numbers, 0 if provider else sent.get(key, 0), within | _from(key))
        for key, numbers in _worst(by_domain)
    ]
    tables = [("Senders' domains", domains)]
    if not provider:
        rows = [
            _row(key, numbers, delivered.get(key, 0), within | {"provider": key})
            for key, numbers in _worst(by_provider)
        ]
        tables.insert(0, ("Providers", rows))
    return [(label, rows) for label, rows in tables if rows]


def _from(domain: str) -> dict[str, str]:
    return {"sender_domain": domain} if domain else {"sender": NULL_SENDER}


def _worst(numbers: Mapping[str, Counter[str]]) -> list[tuple[str, Counter[str]]]:
    order = sorted(numbers.items(), key=lambda one: (-one[1].total(), one[0]))
    return order[:_SHOWN]


def _row(key: str, numbers: Counter[str], total: int, only: Mapping[str, str]) -> Row:
    cells = [
        (word, numbers[word], _share(numbers[word], total), queue_path(result=word, **only))
        for word in WORDS
    ]
    return {"key": key[:_MAX_CHARACTERS], "cells": cells}


def _share(number: int, total: int) -> str:
    """Return a share in percent; "" where it is not known of how many, or of too few."""
    return f"{100 * number / total:.2g} %" if 0 < number <= total else ""
