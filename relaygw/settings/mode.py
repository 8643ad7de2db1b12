"""What may leave the gateway: the modes and their order."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from relaygw.settings.section import Conflict
from relaygw.settings.tree import Keys


class Mode(StrEnum):
    """What may leave the gateway."""

    PRODUCTION = "production"  # everything, less the block list
    STAGING = "staging"  # only recipients on the allow list
    SANDBOX = "sandbox"  # nothing

    @property
    def strictness(self) -> int:
        """More for what lets less out."""
        return _STRICTNESS.index(self)


_STRICTNESS = tuple(Mode)


def looser_mode(keys: Keys, mode: Mode | None, everywhere: Mode) -> Iterator[Conflict]:
    """Check that the mode of a listener or a user is no looser than that of the gateway."""
    if mode is not None and mode.strictness < everywhere.strictness:
        yield Conflict(
            keys,
            f"{mode.value} is looser than mode {everywhere.value} of the gateway; only stricter is "
            "possible here: production, staging, sandbox, in this order",
        )
