"""The order of a run: mail flows, faults come one after the other, and somebody measures."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench.checking.checker import check
from bench.history import read_history
from bench.rig.progress import say, telling
from bench.rig.queue_fates import wait_until_drained
from bench.rig.repeated import repeated
from bench.soaking.doubts import DoubtWatch, tell_fates
from bench.soaking.faults import OF_POSTGRES, OTHERS, RENEWING, Seen, inflict
from bench.soaking.rig import HISTORY, Plan, Rig, running, steady_mail
from bench.soaking.samples import EVERY_S, SAMPLES, Sampler, read_samples
from bench.soaking.schedule import Slot, plan_slots
from bench.soaking.verdict import Verdict

_HOLD_SHARE = 0.4  # of a slot: the rest is for being seen, and for calm
_DRAIN_S = 60.0


def run(directory: Path, plan: Plan) -> Verdict:
    """Carry out a run in a directory, which keeps its files; return what it came to."""
    run_s = plan.minutes * 60
    others = OTHERS + OF_POSTGRES if plan.database == "postgres" else OTHERS
    slots = plan_slots(RENEWING, others, run_s=run_s, seed=plan.seed)
    with running(directory, plan) as (rig, beside):
        rig.history.info("campaign", "campaign", **asdict(plan))
        doubts = DoubtWatch(rig.gateway.queue, rig.history)
        sampler = Sampler(rig.gateway, directory / SAMPLES)
        beside.enter_context(repeated(doubts.look, each_s=EVERY_S))
        with steady_mail(rig):
            rig.wait_for_more_taken(1)
            begun_s = time.monotonic()
            with repeated(sampler.take, each_s=EVERY_S):
                seen = _go_through(rig, slots, begun_s)
                _sleep_until(begun_s + run_s)
        say("the queue drains")
        if not wait_until_drained(rig.gateway.queue, patience_s=_DRAIN_S):
            say("it does not get empty; some mail stays queued")
        beside.close()
        doubts.look()
        rig.gateway.stop()
        doubts.look()
        tell_fates(rig.gateway.queue, rig.history)
    report = check(read_history(directory / HISTORY))
    samples = read_samples(directory / SAMPLES)
    return Verdict.of(samples, seen, report, run_s=run_s, begun_s=begun_s)


def _go_through(rig: Rig, slots: Sequence[Slot], begun_s: float) -> list[Seen]:
    """Do each fault at its time; one that is late puts the later ones off."""
    seen: list[Seen] = []

    def progress() -> str:
        fault = slots[len(seen)].fault if len(seen) < len(slots) else "calm"
        return (
            f"{time.monotonic() - begun_s:5.0f} s: {len(seen)} of {len(slots)} faults, "
            f"{rig.acknowledged()} acknowledged, {rig.watch.taken} taken; {fault}"
        )

    with telling(progress):
        for slot in slots:
            _sleep_until(begun_s + slot.at_s)
            one = inflict(rig, slot.fault, hold_s=slot.length_s * _HOLD_SHARE)
            seen.append(one)
            if one.trouble:
                sys.stderr.write(f"   {one.fault}: {one.trouble}\n")
    return seen


def _sleep_until(at_s: float) -> None:
    time.sleep(max(0.0, at_s - time.monotonic()))
