"""How often things are repeated: a few times in every run, many in `make campaign`.

Each kind of kill, of fault and of client is in every run; a campaign only repeats it.
"""

from __future__ import annotations

import os

IS_CAMPAIGN = os.environ.get("RELAYGW_CAMPAIGN", "") == "1"


def times(count: int, *, campaign: int) -> int:
    """Return a number of repetitions: `count`, or that of a campaign."""
    return campaign if IS_CAMPAIGN else count
