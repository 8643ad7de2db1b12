"""Whether a front takes mail, as alerts and the health page say it."""

from __future__ import annotations

from dataclasses import replace

from relaygw.store.instances import STALE_AFTER_S, front_trouble
from tests.builders import NOW_MS, instance
from tests.tables import each_of

LONG_MS = int(STALE_AFTER_S * 1000)


@each_of(
    "fronts, trouble",
    [
        ([], "no front is registered"),
        ([("draining", 0)], "every front is stopping"),
        ([("running", LONG_MS + 1)], "no front has sent a heartbeat for 15 s"),
        ([("running", LONG_MS + 1), ("draining", 0)], "no front has sent a heartbeat for 15 s"),
        ([("running", LONG_MS)], None),
        ([("running", LONG_MS + 1), ("running", 0)], None),
    ],
)
def test_one_that_runs_and_is_heard_of_is_enough(
    fronts: list[tuple[str, int]], trouble: str | None
) -> None:
    known = [
        replace(instance(f"front {n}", "front"), state=state, heartbeat_at_ms=NOW_MS - ago_ms)
        for n, (state, ago_ms) in enumerate(fronts)
    ]
    assert front_trouble(known, now_ms=NOW_MS) == trouble
