"""How processes come by their meters. Without room for files they count nothing, and say so."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from relaygw.observe.maillog import MailLog
from relaygw.observe.metrics.delivery import DeliveryCounters
from relaygw.observe.metrics.front import FrontCounters
from relaygw.observe.metrics.meters import SILENT, DeliveryMeter, FrontMeter
from relaygw.observe.metrics.own_files import count_in
from relaygw.observe.metrics.run_files import RunFiles


def open_run_files(state_dir: Path, log: MailLog) -> RunFiles | None:
    """Return the files of a supervisor's processes, None when they cannot be."""
    try:
        return RunFiles(state_dir)
    except OSError as error:
        log.note("master", f"warning: no metrics of mail, {state_dir}: {error.strerror}")
        return None


def front_meter(directory: Path | None, log: MailLog) -> FrontMeter:
    """Return what a front counts with in the `directory` of its supervisor's files."""
    return FrontCounters() if _may_count(directory, log) else SILENT


def delivery_meter(
    directory: Path | None, providers: Collection[str], log: MailLog
) -> DeliveryMeter:
    """Return what a delivery worker for `providers` counts with."""
    return DeliveryCounters(providers) if _may_count(directory, log) else SILENT


def _may_count(directory: Path | None, log: MailLog) -> bool:
    if directory is None:
        return False
    try:
        count_in(directory)
    except OSError as error:
        log.note("master", f"warning: this process has no metrics, {directory}: {error.strerror}")
        return False
    return True
