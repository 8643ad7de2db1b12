"""The worst mails, bounce mails, replies and events: nobody waits long. Only in a campaign."""

from __future__ import annotations

import pytest

from bench.hostiles.program import main
from tests.campaign import IS_CAMPAIGN

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(not IS_CAMPAIGN, reason="a quarter of an hour; make campaign runs it"),
]


def test_others_wait_no_longer_than_half_a_second() -> None:
    assert main(["--count", "1000", "--seed", "20261"]) == 0
