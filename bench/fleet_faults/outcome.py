"""What a run came to, and how soon each gateway was back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.checking.report import Report
from bench.fleet_faults.plans import Plan
from bench.fleet_faults.rig import gateway_of
from bench.history import OK, Event

NEVER_S = float("inf")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run; times count from when the cause was gone."""

    plan: Plan
    directory: Path
    report: Report
    trouble: str  # why the run did not come to its end; empty: it did
    run_s: float
    accepted_s: float = NEVER_S  # to the first 250, of the slowest gateway that was hit
    delivered_s: float = NEVER_S  # to the first arrival of what that one answered 250

    @property
    def is_good(self) -> bool:
        """True when the fault was seen and nothing is as it must not be."""
        return not self.trouble and self.report.is_clean

    def to_text(self) -> str:
        """Return a line."""
        state = "good" if self.is_good else "NOT GOOD"
        report = self.report
        counts = (
            f"{report.acknowledged} acknowledged, {report.delivered} delivered, "
            f"{report.duplicated.total()} twice"
        )
        back = f"250 after {self.accepted_s:.1f} s, mail after {self.delivered_s:.1f} s"
        return f"{self.plan.to_text()}: {counts}; {back}; {self.run_s:.1f} s in all; {state}"


def recoveries(events: Sequence[Event], mended_ns: Mapping[int, int]) -> tuple[float, float]:
    """Return the seconds to the first 250, and to its first mail, of the slowest gateway."""
    found = [_recovery(events, gateway, at_ns) for gateway, at_ns in mended_ns.items()]
    return (
        max((accepted for accepted, _ in found), default=NEVER_S),
        max((delivered for _, delivered in found), default=NEVER_S),
    )


def _recovery(events: Sequence[Event], gateway: int, at_ns: int) -> tuple[float, float]:
    first_250_ns: int | None = None
    fresh: set[str] = set()
    for event in events:
        if event.time < at_ns:
            continue
        if event.f == "send" and event.type == OK and gateway_of(event.process) == gateway:
            first_250_ns = first_250_ns or event.time
            fresh.add(event.message)
        elif event.f == "dot" and event.message in fresh:
            return ((first_250_ns or at_ns) - at_ns) / 1e9, (event.time - at_ns) / 1e9
    return (first_250_ns - at_ns) / 1e9 if first_250_ns else NEVER_S, NEVER_S
