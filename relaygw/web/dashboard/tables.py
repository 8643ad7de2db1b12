"""Tables beside the drawing: what fails most, and what providers reported after their 250.

By recipients' domains, replies and providers, and by providers and senders' domains; each row has
the list of its mail.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from relaygw.mail.result import ASKED, COMPLAINED, RETURNED, UNSUBSCRIBED
from relaygw.operations.selectors import NULL_SENDER
from relaygw.store.reports import LastWords
from relaygw.store.shape import Failure, Failures
from relaygw.web.dashboard.chart import ENDED, moment, queue_path

MOST = 2000  # of the newest of each kind are looked at
_FAILING_SHOWN = 6
_PUT_OFF = {"attempt": "all"}
_DIFFERS = re.compile(r"\S*[\d@<>]\S*|[\r\n]+")  # addresses, ids and numbers
_LEAST = 8  # characters that tell one reply from another
_MAX_CHARACTERS = 300


def part_of(reply: str) -> str:
    """Return the longest part of a reply that others for the same reason have as well."""
    parts = (part.strip(" \t:;,.-()[]\"'") for part in _DIFFERS.split(reply))
    longest = max(parts, key=len)
    return (longest if len(longest) >= _LEAST else reply.strip())[:_MAX_CHARACTERS]


Row = dict[str, Any]


def failing(found: Failures, provider: str) -> list[tuple[str, list[Row]]]:
    """Return tables of the worst, with a name each; of one provider, or with "" of all."""
    kinds = {
        "failed": [one for one in found.final if provider in ("", one.provider)],
        "deferred": [one for one in found.put_off if provider in ("", one.provider)],
    }
    since = {"failed": found.final_since_ms, "deferred": found.put_off_since_ms}
    within = {name: {"since": moment(at_ms), "provider": provider} for name, at_ms in since.items()}
    tables = [
        ("Recipients' domains", _failing_most(kinds, within, "domain", lambda one: one.domain)),
        ("Replies", _replies(kinds, within)),
    ]
    if not provider:
        rows = _failing_most(kinds, within, "provider", lambda one: one.provider)
        tables.append(("Providers", rows))
    return [(label, rows) for label, rows in tables if rows]


_Kinds = Mapping[str, Iterable[Failure]]
_Within = Mapping[str, Mapping[str, str]]  # by kind: the selectors of all its lists


def _failing_most(
    kinds: _Kinds, within: _Within, selector: str, key_of: Callable[[Failure], str]
) -> list[Row]:
    mails: dict[str, dict[str, set[str]]] = {name: defaultdict(set) for name in kinds}
    for name, failures in kinds.items():
        for one in failures:
            if key := key_of(one):
                mails[name][key].add(one.queue_id)
    numbers = {key: sum(len(mails[name][key]) for name in kinds) for key in _keys(mails)}
    rows = []
    for key in sorted(numbers, key=lambda key: (-numbers[key], key))[:_FAILING_SHOWN]:
        ids = {name: mails[name][key] for name in kinds}
        rows.append(_failure_row(key, ids, within, {selector: key}))
    return rows


def _keys(mails: Mapping[str, Mapping[str, set[str]]]) -> set[str]:
    return {key for found in mails.values() for key in found}


def _replies(kinds: _Kinds, within: _Within) -> list[Row]:
    """Group by what replies have in common; a mail counts wherever its reply has the part."""
    parts: dict[str, str] = {}  # by reply: few are different
    examples: dict[str, str] = {}
    for failures in kinds.values():
        for one in failures:
            if one.reply and one.reply not in parts:
                part = parts[one.reply] = part_of(one.reply)
                examples.setdefault(part, one.reply)
    rows = _failing_most(kinds, within, "reply", lambda one: parts.get(one.reply, ""))
    told = {
        name: [(one.queue_id, one.reply.lower()) for one in failures]
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
    order = sorted(numbers.items(), key=lambda one: (-one[1].total(), one[0]))
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
