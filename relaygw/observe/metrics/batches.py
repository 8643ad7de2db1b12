"""How long the store takes for a batch: one metric, written to by several roles."""

from __future__ import annotations

from prometheus_client import Histogram

from relaygw.observe.metrics.tally import HistogramTally

_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


def batch_tally(role: str) -> HistogramTally:
    """Return what takes the seconds of each transaction of a role."""
    histogram = Histogram(
        "relaygw_db_write_seconds",
        "Duration of a batch's transaction, synced.",
        ["role"],
        buckets=_BOUNDS_S,
        registry=None,
    )
    return HistogramTally(histogram.labels(role), _BOUNDS_S)
