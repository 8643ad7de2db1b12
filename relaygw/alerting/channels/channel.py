"""What every channel can do."""

from __future__ import annotations

from typing import Protocol

from relaygw.alerting.notices import Notice
from relaygw.errors import RelaygwError


class NotTold(RelaygwError):
    """A notice did not reach its receiver; the text says why, and holds no secret."""


class Channel(Protocol):
    """One receiver of notices."""

    async def tell(self, notice: Notice) -> str:
        """Return once the receiver has taken a notice, with words on who that was.

        Raises NotTold, after some seconds at most.
        """
