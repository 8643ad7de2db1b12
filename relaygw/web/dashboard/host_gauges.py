"""What is known of a host without its store, as gauges: version, disk, certificates, maildrop."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from relaygw import __version__
from relaygw.observe.maildrop import look_at_maildrop
from relaygw.observe.metrics.exposition import GaugeFamily, Numbers
from relaygw.settings.certificate_end import certificate_end
from relaygw.settings.model import Settings


def host_gauges(settings: Settings, state_dir: Path) -> Iterator[GaugeFamily]:
    """Yield the gauges; reads the certificates of listeners."""
    yield GaugeFamily(
        name="build_info",
        meaning="The version that answers.",
        labels=("version",),
        numbers={(__version__,): 1},
    )
    volume = os.statvfs(state_dir)
    yield GaugeFamily(
        name="volume_free_ratio",
        meaning="Free share of the volume of the state directory.",
        numbers={(): volume.f_bavail / max(volume.f_blocks, 1)},
    )
    yield GaugeFamily(
        name="tls_certificate_expiry_timestamp_seconds",
        meaning="When the certificate of a listener ends.",
        labels=("listener",),
        numbers=_ends(settings),
    )
    yield from _maildrop(settings.maildrop.path)


def _maildrop(path: str | None) -> Iterator[GaugeFamily]:
    """Yield what lies in the maildrop, no numbers where nobody can tell."""
    left = look_at_maildrop(path)
    files: Numbers = {}
    oldest: Numbers = {}
    if left is not None and left.trouble is None:
        files = {("waiting",): left.waiting, ("aside",): left.aside}
        oldest = {(): left.oldest_age_s}
    yield GaugeFamily(
        name="maildrop_files",
        meaning="Files in the maildrop: to be taken, or left alone by the front.",
        labels=("state",),
        numbers=files,
    )
    yield GaugeFamily(
        name="maildrop_oldest_age_seconds",
        meaning="Age of the oldest file in the maildrop; 0 without any.",
        numbers=oldest,
    )


def _ends(settings: Settings) -> Numbers:
    ends: Numbers = {}
    for listener in settings.listeners:
        if listener.tls.mode == "off" or listener.tls.cert is None:
            continue
        with contextlib.suppress(OSError, ValueError):  # the front says what is wrong with it
            end = certificate_end(Path(listener.tls.cert))
            ends[str(listener.bind),] = end.timestamp()
    return ends
