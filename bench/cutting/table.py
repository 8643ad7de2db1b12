"""What the images of a campaign prove, as text of at most 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from textwrap import wrap

from bench.checking.report import control_verdict
from bench.cutting.cuts import Kept
from bench.cutting.load import SLOTS, Plan
from bench.cutting.verdict import LOSSES, Verdict

_SHOWN = 5
_OTHERS = "unexpected", "damaged", "twice"
_HEAD = """\
of what was not       acknowledged   with       unex- dam-       data-sent again
flushed, kept   images  mean   max losses  max pected aged twice  base mean  max
                                                                 wrong"""
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
    promised = [verdict.report.acknowledged for verdict in group]
    again = [verdict.again for verdict in group]
    losses = [verdict.count(*LOSSES) for verdict in group]
    others = [[verdict.count(kind) for verdict in group] for kind in _OTHERS]
    unexpected, damaged, twice = map(sum, others)
    return (
        f"{name:<16}{len(group):>6}{mean(promised):>6.0f}{max(promised):>6}"
        f"{sum(map(bool, losses)):>7}{max(losses):>5}{unexpected:>7}{damaged:>5}{twice:>6}"
        f"{sum(bool(v.problems) for v in group):>6}{mean(again):>5.1f}{max(again):>5}"
    )


def _bad(verdicts: Sequence[Verdict]) -> list[str]:
    lines = []
    for verdict in verdicts:
        told = [one.to_text().strip() for one in verdict.report.anomalies] + verdict.problems
        if told:
            more = f" ... and {len(told) - 1} more" if told[1:] else ""
            lines.append(
                f"cut at event {verdict.cut.number} ({_NAMES[verdict.cut.kept]}): {told[0]}{more}"
            )
    shown = [part for line in lines[:_SHOWN] for part in wrap(line, 80, subsequent_indent="  ")]
    return [*shown, *([f"... and {len(lines) - _SHOWN} more"] if lines[_SHOWN:] else [])]


def is_passed(plan: Plan, verdicts: Sequence[Verdict]) -> bool:
    """True when all images are whole; a control passes when at least one has lost something."""
    if plan.is_control:
        return any(verdict.count(*LOSSES) for verdict in verdicts)
    whole = all(one.is_survived and one.again <= SLOTS for one in verdicts)
    return bool(verdicts) and whole


def _verdict(plan: Plan, verdicts: Sequence[Verdict]) -> str:
    passed = is_passed(plan, verdicts)
    if plan.is_control:
        return control_verdict(sum(verdict.count(*LOSSES) for verdict in verdicts), "lost")
    if not passed:
        return "FAILED"
    return (
        "PASSED: nothing lost, unexpected or damaged, each database whole; what would "
        f"be sent\nagain is at most what {SLOTS} connections had in hand"
    )
