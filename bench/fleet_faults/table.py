"""The runs of each kind in a line, and what all came to."""

from __future__ import annotations

from collections.abc import Sequence

from bench.fleet_faults.outcome import Outcome
from bench.fleet_faults.plans import KINDS

_HEADING = (
    f"{'fault':<10}{'runs':>5}{'good':>5}{'acknowl.':>9}{'delivered':>10}{'lost':>5}"
    f"{'unexp.':>7}{'twice':>6}{'unexpl.':>8}{'250 after':>10}{'mail after':>11}"
)


def table(outcomes: Sequence[Outcome]) -> str:
    """Return a line for each kind, one for all, and the last line."""
    of_kinds = {kind: [one for one in outcomes if one.plan.kind == kind] for kind in KINDS}
    lines = [_HEADING, *(_line(kind, some) for kind, some in of_kinds.items() if some)]
    good = sum(one.is_good for one in outcomes)
    lines += [
        _line("all", outcomes),
        "",
        "lost: or given up; unexp.: unexpected or damaged; twice: arrived once more; unexpl.: of",
        "these in no recorded doubt, or another rule is broken; after: seconds from when the cause",
        "was gone to the first 250, and to its mail at the provider, in the slowest run",
    ]
    for one in outcomes:
        if not one.is_good:
            lines += ["", *_told(one)]
    is_good = bool(outcomes) and good == len(outcomes)
    lines += ["", f"{'GOOD' if is_good else 'NOT GOOD'}: {good} of {len(outcomes)} runs"]
    return "\n".join(lines)


def _line(name: str, outcomes: Sequence[Outcome]) -> str:
    reports = [one.report for one in outcomes]
    counts = [report.counts() for report in reports]
    lost = sum(one["lost"] + one["given up"] for one in counts)
    unexpected = sum(one["unexpected"] + one["damaged"] for one in counts)
    rest = sum(sum(one.values()) for one in counts) - lost - unexpected
    return (
        f"{name:<10}{len(outcomes):>5}{sum(one.is_good for one in outcomes):>5}"
        f"{sum(one.acknowledged for one in reports):>9}{sum(one.delivered for one in reports):>10}"
        f"{lost:>5}{unexpected:>7}{sum(one.duplicated.total() for one in reports):>6}{rest:>8}"
        f"{max((one.accepted_s for one in outcomes), default=0.0):>10.1f}"
        f"{max((one.delivered_s for one in outcomes), default=0.0):>11.1f}"
    )


def _told(one: Outcome) -> list[str]:
    """Return all of a run that is not good, and how it is had again."""
    again = f"bench/fleets {one.plan.seed} --kind {one.plan.kind}"
    return [
        one.to_text(),
        f"again: {again}; its files: {one.directory}",
        one.trouble,
        one.report.to_text(),
    ]
