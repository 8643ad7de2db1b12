"""The findings as text of at most 80 columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import mean, median

from bench.checking.report import Report
from bench.killing.blows import Blow, Doubt
from bench.killing.campaign import SLOTS

ROLES = ("front", "delivery", "supervisor", "all", "stop")
_HEAD = """\
               back, ms       acknow-        un-   extra deliveries     in
role    kills  median    max   ledged lost   sent  sum  mean max /slot doubt"""


def render(blows: Sequence[Blow], report: Report) -> str:
    """Return tables and verdict; the last blow never fell."""
    *blows, after = blows
    parts = [_by_role(blows, after), report.to_text()]
    killed = [blow for blow in blows if blow.kill.open is not None]
    if killed:
        parts.insert(1, _reasons(killed))
    if any(blow.kill.begun for blow in killed):
        parts.insert(2, _slots(killed))
    return "\n\n".join(parts)


def _by_role(blows: Sequence[Blow], after: Blow) -> str:
    rows = [_role_row(role, [blow for blow in blows if blow.kill.role == role]) for role in ROLES]
    rows.append(f"{'after the last':<30}{after.acknowledged:>9}{after.lost:>5}")
    notes = (
        "acknowledged, lost: before such a kill and after the one before it; unsent: by",
        "any client, and arrived after it; stop: a clean one; /slot: extras / kills / 20",
    )
    return "\n".join([_HEAD, *(row for row in rows if row), *notes])


def _role_row(role: str, blows: Sequence[Blow]) -> str:
    if not blows:
        return ""
    back_ms = [blow.kill.back_ms for blow in blows]
    extras = [blow.extras.total() for blow in blows]
    acknowledged = sum(blow.acknowledged for blow in blows)
    lost = sum(blow.lost for blow in blows)
    unexpected = sum(blow.unexpected for blow in blows)
    return (
        f"{role:<10}{len(blows):>4}{median(back_ms):>8.0f}{max(back_ms):>8.0f}"
        f"{acknowledged:>9}{lost:>5}{unexpected:>7}"
        f"{sum(extras):>6}{mean(extras):>6.1f}{max(extras):>4}{mean(extras) / SLOTS:>6.2f}"
        f"{sum(len(blow.doubts) for blow in blows):>6}"
    )


def _reasons(blows: Sequence[Blow]) -> str:
    """Tell why extras arrived, and how much of each could have been avoided."""
    extras: Counter[Doubt] = Counter()
    for blow in blows:
        extras += blow.extras
    total = max(1, extras.total())
    lines = ["extra deliveries by what the kill interrupted"]
    lines += [
        f"  {doubt.value:<40}{extras[doubt]:>7}{extras[doubt] / total:>7.0%}"
        f"{extras[doubt] / len(blows) / SLOTS:>7.2f} per slot"
        for doubt in Doubt
    ]
    per_slot = (extras.total() - extras[Doubt.UNRECORDED]) / len(blows) / SLOTS
    lines.append(f"  without an answer, which nobody can avoid: {per_slot:.2f} per slot")
    ages_ms = sorted(age_ms for blow in blows for age_ms in blow.answer_ages_ms)
    if ages_ms:
        p90_ms = ages_ms[len(ages_ms) * 9 // 10]
        lines.append(
            f"  an answer had waited for its record for {median(ages_ms):.1f} ms in the median, "
            f"p90 {p90_ms:.1f}"
        )
    return "\n".join(lines)


def _slots(blows: Sequence[Blow]) -> str:
    slots: Counter[str] = Counter()
    for blow in blows:
        slots += blow.slots()
    busy = sum(slots.values()) / len(blows)
    lines = [f"slots of a killed worker, mean; {busy:.1f} of {SLOTS} were in use"]
    kinds = ("final dot not yet sent", *Doubt, "recorded, slot about to be freed")
    lines += [
        f"  {kind:<40}{slots[kind] / len(blows):>7.1f}{slots[kind] / len(blows) / SLOTS:>7.0%}"
        for kind in map(str, kinds)
    ]
    outside = sum(len(set(blow.doubts) - set(blow.kill.begun)) for blow in blows)
    lines.append(f"  messages in doubt that stood in no slot: {outside}")
    return "\n".join(lines)
