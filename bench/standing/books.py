"""The books of a load: its history, written beside the logs, and what it proves.

Three witnesses: the client's samples, the histories of the providers, and the queue database.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.checking.checker import check
from bench.checking.report import Report
from bench.history import FAIL, INFO, INVOKE, OK, Event, in_order, read_history, write_history
from bench.rig.latency import Sample
from bench.rig.limited_provider import Event as AtProvider
from bench.rig.limited_provider import LimitedProvider
from bench.rig.queue_fates import Fate
from bench.standing.figure import Figure


def check_load(
    directory: Path,
    samples: Iterable[Sample],
    providers: Iterable[LimitedProvider],
    fates: Mapping[str, Fate],
    *more: Event,
) -> Report:
    """Write the history of a load, and return what it proves; `more`: kills, limits."""
    told = [event for one in providers for event in read_history(one.history_path)]
    events = in_order([*told, *more, *_sends(samples), *_fates(fates)])
    write_history(directory / "history.jsonl", events)
    return check(events)


def killed(at_s: float, **value: Any) -> list[Event]:
    """Return a kill; `open` is what its queue had not recorded, `provider` who died."""
    at_ns = _ns(at_s)
    return [
        Event(at_ns, "bench", INVOKE, "kill", value),
        Event(at_ns, "bench", INFO, "kill", value),
    ]


def allowed(provider: str, **value: Any) -> Event:
    """Return the limits of a provider that hold from the beginning."""
    return Event(0, provider, INFO, "limit", value)


def figures(report: Report) -> list[Figure]:
    """Return what must be nothing."""
    counts = report.counts()
    others = {"lost", "given up", "twice", "over limit"}
    rest = sum(count for kind, count in counts.items() if kind not in others)
    return [
        Figure("lost", counts["lost"], "", 0, 0),
        Figure("bounced", report.given_up, "", 0, 0),
        Figure("sent twice", counts["twice"], "", 0, 0),
        Figure("otherwise not clean", rest, "", 0, 0),
    ]


def notes(report: Report) -> list[str]:
    """Return the rest in one line, and the first of what should not be."""
    twice = ", ".join(f"{count} by a {reason}" for reason, count in report.duplicated.items())
    return [
        f"sent again: {twice or 'nothing'}; still queued {report.waiting}",
        *(anomaly.to_text() for anomaly in report.anomalies[:4]),
    ]


def first_at_s(events: Iterable[AtProvider], kind: str) -> dict[str, float]:
    """Return when each message first had an event of one kind, by bench id."""
    found: dict[str, float] = {}
    for event in events:
        if event.kind == kind:
            found.setdefault(event.bench_id, event.at_s)
    return found


def _sends(samples: Iterable[Sample]) -> Iterator[Event]:
    for one in samples:
        who, value = f"client-{one.bench_id}", {"message": one.bench_id, "code": one.code}
        if one.content_s is not None:
            yield Event(_ns(one.content_s), who, INVOKE, "send", value)
        end = OK if one.code == 250 else FAIL if one.code else INFO
        yield Event(_ns(one.answered_s), who, end, "send", value)


def _fates(fates: Mapping[str, Fate]) -> Iterator[Event]:
    for bench_id, fate in fates.items():
        state = "queued" if fate.is_open else fate.recipient
        value = {"message": bench_id, "state": state, "doubts": fate.doubts}
        yield Event(1 << 62, "queue", INFO, "fate", value)


def _ns(at_s: float) -> int:
    return int(at_s * 1e9)
