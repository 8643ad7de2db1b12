"""The section `metrics`: an address of its own for Prometheus, without a login."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from relaygw.settings.bind import Bind
from relaygw.settings.conflicts import Conflict
from relaygw.settings.section import Section

if TYPE_CHECKING:
    from relaygw.settings.model import Settings

EXAMPLE = "127.0.0.1:9154"
"""The port that exporters of Postfix's metrics use."""


class Metrics(Section):
    """Where metrics are served beside the pages."""

    bind: Bind | None = Field(default=None, examples=[EXAMPLE])  # None: with the pages only


def metrics_conflicts(settings: Settings) -> Iterator[Conflict]:
    """Check that the address is not that of the pages."""
    bind = settings.metrics.bind
    if bind is not None and bind.port and bind == settings.web.bind:
        yield Conflict(
            ("metrics", "bind"),
            f"{bind} is web.bind, where /metrics is served as well; remove it, or write {EXAMPLE}",
        )
