"""Two gateways on a database with a synchronous standby meet a fault: nothing is lost.

What the faults do each has a test of its own; here the campaign's own runs, each kind in a
campaign, and the standby that is not waited for, which has to lose.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.fleet_faults.campaign import run_all
from bench.fleet_faults.control import lose
from bench.fleet_faults.plans import KINDS, plan_of
from bench.fleet_faults.table import table
from tests.campaign import IS_CAMPAIGN, times

pytestmark = pytest.mark.campaign

SEED = 20_262
SHOWN = KINDS if IS_CAMPAIGN else ("failover",)


def test_a_fleet_loses_nothing_to_a_fault(tmp_path: Path) -> None:
    plans = [plan_of(SEED + number, SHOWN) for number in range(times(1, campaign=21))]
    outcomes = list(run_all(tmp_path, plans, keeps=True))
    assert all(one.is_good for one in outcomes), table(outcomes)
    assert {one.plan.kind for one in outcomes} == set(SHOWN)


@pytest.mark.skipif(not IS_CAMPAIGN, reason="bench/fleets --control; make campaign runs it")
def test_a_standby_that_is_not_waited_for_loses_what_was_answered_in_its_lag(
    tmp_path: Path,
) -> None:
    loss = lose(tmp_path, SEED)
    assert loss.is_found, loss.to_text()
