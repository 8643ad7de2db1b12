"""How much room is left where the queue lies."""

from __future__ import annotations

import os
import time
from pathlib import Path

_LOOK_AGAIN_S = 1.0


def free_share(directory: Path, *, coming_bytes: int = 0) -> float:
    """Return the share of a volume that is free for its users, less what comes; raises OSError.

    It is 1 where the filesystem does not say how large it is.
    """
    volume = os.statvfs(directory)
    if not volume.f_blocks:
        return 1.0
    return (volume.f_bavail - coming_bytes / volume.f_frsize) / volume.f_blocks


class Room:
    """Whether mail may still come: `least_share` of the volume has to stay free.

    Content goes to the volume unless `is_queue_elsewhere`, as a database server has it.
    """

    def __init__(self, directory: Path, *, least_share: float, is_queue_elsewhere: bool) -> None:
        self._directory = directory
        self._least = least_share
        self._is_queue_elsewhere = is_queue_elsewhere
        self._looked_at_s = float("-inf")
        self._is_left = True

    def is_left(self) -> bool:
        """Return whether more may come, as seen within the last second; raises OSError."""
        now_s = time.monotonic()
        if now_s - self._looked_at_s >= _LOOK_AGAIN_S:
            self._looked_at_s = now_s
            self._is_left = free_share(self._directory) >= self._least
        return self._is_left

    def is_left_for(self, size_bytes: int) -> bool:
        """Return whether there is room for large content now; raises OSError."""
        coming_bytes = 0 if self._is_queue_elsewhere else size_bytes
        return free_share(self._directory, coming_bytes=coming_bytes) >= self._least
