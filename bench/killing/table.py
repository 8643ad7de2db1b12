"""The findings as text of at most 80 columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import mean, median

from bench.killing.campaign import SLOTS
from bench.killing.doubts import Blow, Doubt
from bench.killing.verifier import Findings

ROLES = ("front", "delivery", "supervisor", "all", "stop")
TARGET_PER_SLOT = 0.35
_SHOWN = 10
_HEAD = """\
               back, ms       acknow-        in-   extra deliveries     in
role    kills  median    max   ledged lost vented  sum  mean max /slot doubt"""


def render(findings: Findings) -> str:
    """Return tables and verdict."""
    parts = [_by_role(findings), _totals(findings)]
    killed = [blow for blow in findings.blows if blow.kill.role in ("delivery", "all")]
    if killed:
        parts += [_reasons(killed), _slots(killed)]
    return "\n\n".join([*parts, _verdict(findings)])


def _by_role(findings: Findings) -> str:
    rows = [_role_row(role, findings) for role in ROLES]
    after = findings.acknowledged_before.get(len(findings.blows), 0)
    lost = findings.lost_before.get(len(findings.blows), 0)
    rows.append(f"{'after the last':<30}{after:>9}{lost:>5}")
    notes = (
        "acknowledged, lost: before such a kill and after the one before it; invented:",
        "after it; stop: a clean one between kills; /slot: extras / kills / 20 slots",
    )
    return "\n".join([_HEAD, *(row for row in rows if row), *notes])


def _role_row(role: str, findings: Findings) -> str:
    numbers = [n for n, blow in enumerate(findings.blows) if blow.kill.role == role]
    if not numbers:
        return ""
    blows = [findings.blows[n] for n in numbers]
    back_ms = [blow.kill.back_ms for blow in blows]
    extras = [blow.extras.total() for blow in blows]
    acknowledged, lost, invented = (
        sum(counts.get(n, 0) for n in numbers)
        for counts in (
            findings.acknowledged_before,
            findings.lost_before,
            findings.invented_after,
        )
    )
    return (
        f"{role:<10}{len(blows):>4}{median(back_ms):>8.0f}{max(back_ms):>8.0f}"
        f"{acknowledged:>9}{lost:>5}{invented:>7}"
        f"{sum(extras):>6}{mean(extras):>6.1f}{max(extras):>4}{mean(extras) / SLOTS:>6.2f}"
        f"{sum(len(blow.doubts) for blow in blows):>6}"
    )


def _totals(findings: Findings) -> str:
    return "\n".join(
        (
            f"sent {findings.sent}, acknowledged {findings.acknowledged}, "
            f"delivered {findings.delivered}, still queued {findings.queued}",
            f"delivered though the client heard no 250: {findings.unacknowledged} "
            f"({findings.refused} of them refused)",
            f"arrived once more: {findings.extras} "
            f"({len(findings.beyond)} without having been in doubt)",
        )
    )


def _reasons(blows: Sequence[Blow]) -> str:
    """Tell why extras arrived, and how much of each the gateway could have avoided."""
    extras: Counter[Doubt] = Counter()
    for blow in blows:
        extras += blow.extras
    total = max(1, extras.total())
    lines = ["extra deliveries of `delivery` and `all` by what the kill interrupted"]
    lines += [
        f"  {doubt.value:<40}{extras[doubt]:>7}{extras[doubt] / total:>7.0%}"
        f"{extras[doubt] / len(blows) / SLOTS:>7.2f} per slot"
        for doubt in Doubt
    ]
    per_slot = (extras.total() - extras[Doubt.UNRECORDED]) / len(blows) / SLOTS
    lines.append(f"  without an answer, which no gateway can avoid: {per_slot:.2f} per slot")
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
    outside = sum(len(set(blow.doubts) - set(blow.kill.begun_ids)) for blow in blows)
    lines.append(f"  messages in doubt that stood in no slot: {outside}")
    return "\n".join(lines)


def _verdict(findings: Findings) -> str:
    faults = {
        "lost": findings.lost,
        "invented": [take.message_id for take in findings.invented],
        "damaged": [take.message_id for take in findings.damaged],
        "extra without doubt": [take.message_id for take in findings.beyond],
        "kills with more extras than in doubt": [
            str(findings.blows.index(blow)) for blow in findings.over_bound
        ],
    }
    lines = [
        f"{what}: {len(ids)} ({', '.join(ids[:_SHOWN])}{', ...' if len(ids) > _SHOWN else ''})"
        for what, ids in faults.items()
        if ids
    ]
    killed = [blow for blow in findings.blows if blow.kill.role == "delivery"]
    if killed:
        per_slot = sum(blow.extras.total() for blow in killed) / len(killed) / SLOTS
        ours = sum(blow.extras[Doubt.UNRECORDED] for blow in killed) / len(killed) / SLOTS
        reached = "reached" if per_slot <= TARGET_PER_SLOT else "MISSED"
        lines.append(
            f"extras per slot {per_slot:.2f} ({ours:.2f} had an answer), "
            f"target {TARGET_PER_SLOT}: {reached}"
        )
    lines.append(
        "PASSED: nothing lost, nothing invented, nothing damaged, every extra was in doubt"
        if findings.is_passed
        else "FAILED"
    )
    return "\n".join(lines)
