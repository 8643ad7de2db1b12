"""How often things are repeated: a few times in every run, many in `make campaign`.

Each kind of kill, of fault and of client is in every run; a campaign only repeats it.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from typing import TypeVar

import pytest

_Test = TypeVar("_Test", bound=Callable[..., object])
_DATABASES = ("postgres", "sqlite")
IS_CAMPAIGN = os.environ.get("RELAYGW_CAMPAIGN", "") == "1"


def times(count: int, *, campaign: int) -> int:
    """Return a number of repetitions: `count`, or that of a campaign."""
    return campaign if IS_CAMPAIGN else count


def on_a_database(test: _Test) -> _Test:
    """Run a test of `tests/e2e` on one of the databases, by turns of the names; else on each.

    It is about what a gateway does with mail on any of them: verb by verb they are compared by the
    tests of the contract.
    """
    turn = zlib.crc32(test.__name__.encode()) % len(_DATABASES)
    databases = _DATABASES if IS_CAMPAIGN else _DATABASES[turn : turn + 1]
    test = pytest.mark.usefixtures("each_database")(test)
    return pytest.mark.campaign(
        pytest.mark.parametrize("each_database", databases, indirect=True)(test)
    )
