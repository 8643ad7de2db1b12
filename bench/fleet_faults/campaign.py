"""The order of a run, and of many on one pair of databases."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.checking.checker import check
from bench.checking.report import Report
from bench.fleet_faults.fates import tell_all_fates
from bench.fleet_faults.faults import inflict
from bench.fleet_faults.outcome import Outcome, recoveries
from bench.fleet_faults.plans import Plan
from bench.fleet_faults.rig import HISTORY, Rig, running, steady_mail
from bench.history import read_history
from bench.rig.queue_fates import wait_until_drained
from bench.rig.standby import Pair

_MORE = 10  # of mail after a fault, at each gateway
_DRAIN_S = 60.0
_TROUBLE = (TimeoutError, RuntimeError, OSError, subprocess.SubprocessError)


def run_all(directory: Path, plans: Iterable[Plan], *, keeps: bool) -> Iterator[Outcome]:
    """Run plans one after the other; the files of one that is not good are kept, others as told.

    The databases stay, each run has a queue of its own; who fails over gets another standby.
    """
    left = list(plans)
    while left:
        with Pair() as pair:
            while left:
                plan = left.pop(0)
                outcome = run(directory / f"{plan.seed}-{plan.kind}", plan, pair)
                if outcome.is_good and not keeps:
                    shutil.rmtree(outcome.directory)
                yield outcome
                if outcome.trouble:
                    break  # who knows how the pair is
                if left and plan.kind == "failover":
                    pair.renew()


def run(directory: Path, plan: Plan, pair: Pair) -> Outcome:
    """Carry out one run in a directory that it makes; return what it came to."""
    directory.mkdir()
    begun_s = time.monotonic()
    trouble, report, back = "", Report(), (float("inf"), float("inf"))
    try:
        with running(directory, pair, **_more(plan)) as rig:
            rig.history.info("campaign", "campaign", **asdict(plan))
            _go_through(rig, plan)
            events = read_history(directory / HISTORY)
            report, back = check(events), recoveries(events, rig.mended_ns)
    except _TROUBLE as error:
        trouble = f"{type(error).__name__}: {error} {getattr(error, 'stderr', '') or ''}".strip()
    return Outcome(plan, directory, report, trouble, time.monotonic() - begun_s, *back)


def _more(plan: Plan) -> dict[str, Any]:
    """Return what a fault needs from the start."""
    if plan.kind == "cut":
        return {"cut_off": plan.target}
    return {"wrong": (plan.target, plan.way)} if plan.kind == "clock" else {}


def _go_through(rig: Rig, plan: Plan) -> None:
    with steady_mail(rig):
        rig.wait_for_more(plan.mails)
        time.sleep(plan.moment_s)
        inflict(rig, plan)
        rig.wait_for_more(_MORE)
    if not wait_until_drained(rig.queue, patience_s=_DRAIN_S):
        raise TimeoutError(f"after {_DRAIN_S:g} s the queue is not empty")
    tell_all_fates(rig.queue, rig.history)
