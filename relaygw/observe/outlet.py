"""Where lines leave the process: a file, syslog, or what stderr is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class OutletGone(Exception):
    """Nobody will ever read here again."""


class Outlet(Protocol):
    """Takes records, never waits for anyone."""

    def send(self, records: Sequence[bytes]) -> int:
        """Hand over records in order; return how many bytes of them were taken, at least one.

        Raises BlockingIOError when there is no room at the moment, OutletGone when there will
        be none any more, and another OSError when it does not work; then nothing was taken.
        """

    def wait(self, timeout_s: float) -> None:
        """Return when there may be room again, or after `timeout_s` at the latest."""

    def reopen(self) -> None:
        """Begin anew under the same name; raises OSError, and then all stays as it was."""

    def close(self) -> None:
        """Let go."""
