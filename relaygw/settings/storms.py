"""Section `storms`: the same mail to the same recipient, over and over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from relaygw.settings.section import DAY_S, Count, Interval, Section


class Storms(Section):
    """The same mail to the same recipient, over and over."""

    same: Count = 5  # so many are no storm
    window: Interval = 3600.0
    action: Literal["off", "alert", "hold"] = "alert"

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Check that what has to be remembered is bounded."""
        if self.window > DAY_S:
            yield "window", "is longer than a day; write e.g. 1h"
