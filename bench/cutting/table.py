"""What the images of a campaign prove, as text of at most 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from bench.cutting.cuts import Kept
from bench.cutting.load import SLOTS, Plan
from bench.cutting.verdict import Verdict

_SHOWN = 5
_HEAD = """\
of what was not            promised   images     lost    dam- in-  da-  to be
flushed, kept     images  mean    max  with loss  max   aged vented base sent again
                                                               wrong mean  max"""
_NAMES = {
    Kept.NOTHING: "nothing",
    Kept.WRITES: "some writes",
    Kept.PAGES: "some 4096 bytes",
    Kept.SECTORS: "some 512 bytes",
}


def render(plan: Plan, verdicts: Sequence[Verdict]) -> str:
    """Return table and verdict."""
    groups = {name: [v for v in verdicts if v.cut.kept is kept] for kept, name in _NAMES.items()}
    rows = [_row(name, group) for name, group in groups.items() if group]
    if verdicts:
        rows.append(_row("all", verdicts))
    return "\n".join([_HEAD, *rows, "", *_bad(verdicts), _verdict(plan, verdicts)])


def _row(name: str, group: Sequence[Verdict]) -> str:
    promised = [verdict.acknowledged for verdict in group]
    again = [len(verdict.again) for verdict in group]
    with_loss = sum(bool(verdict.lost) for verdict in group)
    return (
        f"{name:<18}{len(group):>6}{mean(promised):>6.0f}{max(promised):>7}{with_loss:>11}"
        f"{max(len(v.lost) for v in group):>5}{sum(len(v.damaged) for v in group):>7}"
        f"{sum(len(v.invented) for v in group):>7}{sum(bool(v.problems) for v in group):>5}"
        f"{mean(again):>7.1f}{max(again):>5}"
    )


def _bad(verdicts: Sequence[Verdict]) -> list[str]:
    lines = []
    for verdict in verdicts:
        named = {
            "lost": verdict.lost,
            "damaged": verdict.damaged,
            "invented": verdict.invented,
            "wrong": verdict.problems,
        }
        told = "; ".join(
            f"{what} {len(ids)}: {', '.join(map(str, ids[:_SHOWN]))}"
            for what, ids in named.items()
            if ids
        )
        if told:
            lines.append(f"cut at event {verdict.cut.number} ({verdict.cut.kept.name}): {told}")
    return [*lines[:_SHOWN], *([f"... and {len(lines) - _SHOWN} more"] if lines[_SHOWN:] else [])]


def is_passed(plan: Plan, verdicts: Sequence[Verdict]) -> bool:
    """True when all images are whole; a control passes when at least one has lost something."""
    if plan.is_control:
        return any(verdict.lost for verdict in verdicts)
    whole = all(one.is_survived and len(one.again) <= SLOTS for one in verdicts)
    return bool(verdicts) and whole


def _verdict(plan: Plan, verdicts: Sequence[Verdict]) -> str:
    passed = is_passed(plan, verdicts)
    if plan.is_control:
        return "PASSED: the control loses" if passed else "FAILED: the control loses nothing"
    if not passed:
        return "FAILED"
    return (
        "PASSED: nothing lost, nothing damaged, nothing invented, each database whole; what would "
        f"be\nsent again is at most what {SLOTS} connections had in hand"
    )
