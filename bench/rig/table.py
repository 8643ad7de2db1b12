"""Figures of pairs of rounds, as text of at most 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from textwrap import wrap

from bench.rig.cases import Case
from bench.rig.rounds import PROCESSOR_MS, Speeds

Pair = tuple[Speeds, Speeds]  # of relaygw, of the other
Outcome = list[Pair] | str  # the rounds, or one word saying why there are none
_SHOWN_MS = 0.005
_HEAD = "case                      relaygw {:>7.7} ratio  of pairs   at least     aim"


def case_lines(case: Case, pairs: Sequence[Pair], other: str) -> list[str]:
    """Return every run of one case, with the medians."""
    figures = [(a[case.quantity], b[case.quantity]) for a, b in pairs]
    ours, theirs = (median(side) for side in zip(*figures, strict=True))
    unit = "ms, smaller is better" if case.is_time else "messages a second"
    lines = [f"{case.name}: {unit}", f"  round   relaygw {other:>9.9}   ratio"]
    lines += [_run(case, str(number), a, b) for number, (a, b) in enumerate(figures, 1)]
    return [*lines, _run(case, "median", ours, theirs)]


def processor_lines(pairs: Sequence[Pair], other: str) -> list[str]:
    """Return the processor time a message of each server and its processes: medians in ms."""
    lines = ["processor time a message, ms:"]
    for name, rounds in zip(("relaygw", other), zip(*pairs, strict=True), strict=True):
        keys = dict.fromkeys(key for one in rounds for key in one if key.startswith(PROCESSOR_MS))
        used = {key: median(one.get(key, 0.0) for one in rounds) for key in keys}
        told = [
            f"{key.removeprefix(PROCESSOR_MS)} {ms:.2f}"
            for key, ms in sorted(used.items(), key=lambda one: -one[1])
            if ms >= _SHOWN_MS
        ]
        lines += wrap(
            f"{name}: {', '.join(told)}", 80, initial_indent="  ", subsequent_indent="    "
        )
    return lines


def summary(outcomes: Sequence[tuple[Case, Outcome]], other: str) -> list[str]:
    """Return one line a case: medians, their ratio beside the targets, the pairs' extremes."""
    lines = [_HEAD.format(other), *(_summary_line(case, outcome) for case, outcome in outcomes)]
    times = [case.name for case, _ in outcomes if case.is_time]
    return [*lines, *(f"({name}: ms, smaller is better; at most, not at least)" for name in times)]


def _summary_line(case: Case, outcome: Outcome) -> str:
    if isinstance(outcome, str):
        return f"{case.name:<25} {outcome}"
    figures = [(a[case.quantity], b[case.quantity]) for a, b in outcome]
    ours, theirs = (median(side) for side in zip(*figures, strict=True))
    ratios = [a / b for a, b in figures]
    ratio = ours / theirs
    aim = _beside(case, ratio, case.aim) if case.aim else "none"
    return (
        f"{case.name:<25}{_figure(case, ours):>8}{_figure(case, theirs):>8}{ratio:>6.2f}"
        f"  {min(ratios):.2f}-{max(ratios):.2f}  {_beside(case, ratio, case.bound)}  {aim}"
    )


def _run(case: Case, head: str, ours: float, theirs: float) -> str:
    ratio = ours / theirs
    return f"  {head:<6}{_figure(case, ours):>9} {_figure(case, theirs):>9} {ratio:>7.2f}"


def _figure(case: Case, value: float) -> str:
    return f"{value:.1f}" if case.is_time else f"{value:.0f}"


def _beside(case: Case, ratio: float, target: float) -> str:
    is_met = ratio <= target if case.is_time else ratio >= target
    return f"{target:<3g} {'met' if is_met else 'MISSED':<6}"
