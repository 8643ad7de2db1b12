"""The books of a load: three witnesses in one history, which is kept and checked."""

from __future__ import annotations

from pathlib import Path

from bench.checking.program import main
from bench.history import INFO, OK, Event, write_history
from bench.rig.latency import Sample
from bench.rig.limited_provider import LimitedProvider
from bench.rig.queue_fates import Fate
from bench.standing.books import allowed, check_load, figures, killed, notes


def test_three_witnesses_are_one_history(tmp_path: Path) -> None:
    provider = LimitedProvider(tmp_path, "p")
    dots = [(2, "a"), (3, "b"), (4, "c"), (7, "b"), (8, "c")]
    at_provider = [
        Event(at_s * 10**9 + more, f"p/{1 if at_s < 5 else 2}", kind, f, {"message": one})
        for at_s, one in dots
        for more, kind, f in ((0, INFO, "dot"), (9, OK, "deliver"))
    ]
    write_history(provider.history_path, at_provider)
    codes = {"a": 250, "b": 250, "c": 250, "lost": 250, "bounced": 250, "kept": 250, "no": 451}
    samples = [Sample(one, 0.0, 0.1, 0.2, code) for one, code in codes.items()]
    samples.append(Sample("never", 0.0, None, 0.2, 0))
    fates = {
        "b": Fate("Q", "finished", 1, 0, "delivered", ""),
        "bounced": Fate("Q", "finished", 0, 5, "expired", ""),
        "kept": Fate("Q", "deferred", 0, 1, "pending", ""),
    }
    more = [allowed("p", rate_per_s=1, window_s=1.0, connections=1), *killed(5.0, open=["b"])]
    report = check_load(tmp_path, samples, [provider], fates, *more)
    assert [(figure.name, figure.value) for figure in figures(report)] == [
        ("lost", 1),
        ("bounced", 1),
        ("sent twice", 1),
        ("otherwise not clean", 0),
    ]
    assert report.duplicated == {"kill": 1, "unexplained": 1}, "b was open at the kill, c was not"
    assert (report.overshoots, report.most_open) == ({"p": 0.0}, {"p": 2})
    assert all(len(line) <= 80 for line in notes(report))
    assert main([str(tmp_path / "history.jsonl")]) == 1, "it can be checked again"
