"""Mail and faults for a quarter of an hour: nothing is lost, and nothing grows. Only in a campaign.

What judges it is tested in every run (tests/unit/bench/test_soak.py); a run that is too short to
tell a trend would tell nothing.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.soaking.campaign import run
from bench.soaking.rig import Plan
from tests.campaign import IS_CAMPAIGN

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(not IS_CAMPAIGN, reason="a quarter of an hour each; make campaign runs it"),
]


def plan(database: str, *, minutes: float, is_control: bool = False) -> Plan:
    return Plan(
        database=database,
        minutes=minutes,
        seed=20_261,
        rate_per_s=20.0,
        retention_s=60.0,
        is_control=is_control,
    )


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_minutes_of_mail_and_faults_leave_nothing_behind(tmp_path: Path, database: str) -> None:
    tmp_path.chmod(0o755)
    verdict = run(tmp_path, plan(database, minutes=15))
    assert verdict.is_good, verdict.to_text()


def test_a_gateway_that_leaks_is_found(tmp_path: Path) -> None:
    verdict = run(tmp_path, plan("sqlite", minutes=4, is_control=True))
    assert verdict.finds_the_leak, verdict.to_text()
