"""Figures of pairs of rounds, as text of at most 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from bench.rig.cases import Case
from bench.rig.rounds import Speeds

Pair = tuple[Speeds, Speeds]  # relaygw, Postfix
Outcome = list[Pair] | str  # the rounds, or one word saying why there are none
_HEAD = "case                      relaygw Postfix ratio  of pairs   at least     aim"


def case_lines(case: Case, pairs: Sequence[Pair]) -> list[str]:
    """Return every run of one case, with the medians."""
    figures = [(a[case.quantity], b[case.quantity]) for a, b in pairs]
    ours, theirs = (median(side) for side in zip(*figures, strict=True))
    lines = [f"{case.name}: messages a second", "  round   relaygw   Postfix   ratio"]
    lines += [_run(str(number), a, b) for number, (a, b) in enumerate(figures, 1)]
    return [*lines, _run("median", ours, theirs)]


def summary(outcomes: Sequence[tuple[Case, Outcome]]) -> list[str]:
    """Return one line a case: medians, their ratio beside the targets, the pairs' extremes."""
    return [_HEAD, *(_summary_line(case, outcome) for case, outcome in outcomes)]


def _summary_line(case: Case, outcome: Outcome) -> str:
    if isinstance(outcome, str):
        return f"{case.name:<25} {outcome}"
    figures = [(a[case.quantity], b[case.quantity]) for a, b in outcome]
    ours, theirs = (median(side) for side in zip(*figures, strict=True))
    ratios = [a / b for a, b in figures]
    ratio = ours / theirs
    aim = _beside(ratio, case.aim) if case.aim else "none"
    return (
        f"{case.name:<25}{ours:>8.0f}{theirs:>8.0f}{ratio:>6.2f}"
        f"  {min(ratios):.2f}-{max(ratios):.2f}  {_beside(ratio, case.at_least)}  {aim}"
    )


def _run(head: str, ours: float, theirs: float) -> str:
    return f"  {head:<6}{ours:>9.0f} {theirs:>9.0f} {ours / theirs:>7.2f}"


def _beside(ratio: float, target: float) -> str:
    return f"{target:<3g} {'met' if ratio >= target else 'MISSED':<6}"
