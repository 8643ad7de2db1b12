"""relaygw that logs nothing, counts nothing and watches nothing; no user can start it so.

What observing costs is measured against it. Started as `python -m bench.rig.unobserved ARGUMENTS`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from relaygw import roles
from relaygw.alerting import history as history_keeping
from relaygw.cli import main
from relaygw.observe.history import delivery as delivery_history
from relaygw.observe.history import front as front_history
from relaygw.observe.maillog import MailLog
from relaygw.observe.metrics import opening
from relaygw.observe.metrics.meters import SILENT


@contextlib.asynccontextmanager
async def _nothing_kept(*_: Any, **__: Any) -> AsyncIterator[None]:
    yield


def _meter_alone(meter: Any, _tally: Any) -> Any:
    return meter


def _blind() -> None:
    """Replace everything that observes, before any process is forked."""
    MailLog.write = lambda *_: None  # type: ignore[method-assign]
    roles._watching = lambda *_: contextlib.nullcontext()
    history_keeping.history_kept = _nothing_kept
    front_history.FrontHistory = _meter_alone  # type: ignore[assignment,misc]
    delivery_history.DeliveryHistory = _meter_alone  # type: ignore[assignment,misc]
    opening.front_meter = lambda *_: SILENT
    opening.delivery_meter = lambda *_: SILENT


if __name__ == "__main__":
    _blind()
    main()
