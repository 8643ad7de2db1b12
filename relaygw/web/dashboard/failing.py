"""What fails most: recipients' domains, replies and providers, each with the list of its mail."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from relaygw.store.shape import Failure, Failures
from relaygw.web.dashboard.chart import ENDED, moment, queue_path

MOST = 2000  # of the newest of each kind are looked at
_SHOWN = 6
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
        ("Recipients' domains", _worst(kinds, within, "domain", lambda one: one.domain)),
        ("Replies", _replies(kinds, within)),
    ]
    if not provider:
        rows = _worst(kinds, within, "provider", lambda one: one.provider)
        tables.append(("Providers", rows))
    return [(label, rows) for label, rows in tables if rows]


_Kinds = Mapping[str, Iterable[Failure]]
_Within = Mapping[str, Mapping[str, str]]  # by kind: the selectors of all its lists


def _worst(
    kinds: _Kinds, within: _Within, selector: str, key_of: Callable[[Failure], str]
) -> list[Row]:
    mails: dict[str, dict[str, set[str]]] = {name: defaultdict(set) for name in kinds}
    for name, failures in kinds.items():
        for one in failures:
            if key := key_of(one):
                mails[name][key].add(one.queue_id)
    numbers = {key: sum(len(mails[name][key]) for name in kinds) for key in _keys(mails)}
    rows = []
    for key in sorted(numbers, key=lambda key: (-numbers[key], key))[:_SHOWN]:
        ids = {name: mails[name][key] for name in kinds}
        rows.append(_row(key, ids, within, {selector: key}))
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
    rows = _worst(kinds, within, "reply", lambda one: parts.get(one.reply, ""))
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
        row |= _row(examples[row["key"]], ids, within, {"reply": row["key"]})
    return rows


def _row(key: str, ids: Mapping[str, set[str]], within: _Within, only: Mapping[str, str]) -> Row:
    return {
        "key": key[:_MAX_CHARACTERS],
        "failed": len(ids["failed"]),
        "failed_path": queue_path(**ENDED, **{**within["failed"], **only}),
        "deferred": len(ids["deferred"]),
        "deferred_path": queue_path(**_PUT_OFF, **{**within["deferred"], **only}),
    }
