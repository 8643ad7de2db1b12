"""How much room is left where the queue lies."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from weakref import WeakKeyDictionary

from relaygw.mail.drop import LEAST_FREE_BYTES, LEAST_FREE_SHARE

_LOOK_AGAIN_S = 1.0


def free_share(directory: Path, *, coming_bytes: int = 0) -> float:
    """Return the share of a volume that is free for its users, less what comes; raises OSError.

    It is 1 where the filesystem does not say how large it is.
    """
    volume = os.statvfs(directory)
    if not volume.f_blocks:
        return 1.0
    return (volume.f_bavail - coming_bytes / volume.f_frsize) / volume.f_blocks


class NoRoom(OSError):
    """Large content would fill the volume."""


class Room:
    """Whether mail may still come: `least_share` of the volume has to stay free.

    Large content leaves `LEAST_FREE_BYTES`, too, so that the database can go on, which lies on the
    same volume unless `is_queue_elsewhere`.
    """

    def __init__(self, directory: Path, *, least_share: float, is_queue_elsewhere: bool) -> None:
        self._directory = directory
        self._least = least_share
        self._is_queue_elsewhere = is_queue_elsewhere
        self._looked_at_s = float("-inf")
        self._is_left = True
        self._lock = threading.Lock()
        self._reserved_bytes: WeakKeyDictionary[object, int] = WeakKeyDictionary()

    def is_left(self) -> bool:
        """Return whether more may come, as seen within the last second; raises OSError."""
        now_s = time.monotonic()
        if now_s - self._looked_at_s >= _LOOK_AGAIN_S:
            self._looked_at_s = now_s
            self._is_left = free_share(self._directory) >= self._least
        return self._is_left

    def reserve(self, owner: object, more_bytes: int) -> None:
        """Keep room for `more_bytes` of large content; raises NoRoom, or another OSError.

        In a file they lie soon, and are counted by the volume. For the database they are reserved
        until `release`, or until `owner` is gone: what it stores goes through its log.
        """
        with self._lock:
            coming_bytes, least = more_bytes, self._least
            if not self._is_queue_elsewhere:
                coming_bytes += 2 * (sum(self._reserved_bytes.values()) + more_bytes)
                least = max(least, _least_share(self._directory))
            if free_share(self._directory, coming_bytes=coming_bytes) < least:
                raise NoRoom(f"with {more_bytes} bytes more it would fill the volume")
            self._reserved_bytes[owner] = self._reserved_bytes.get(owner, 0) + more_bytes

    def release(self, owner: object) -> None:
        """Forget what was reserved for `owner`."""
        with self._lock:
            self._reserved_bytes.pop(owner, None)


def _least_share(directory: Path) -> float:
    volume = os.statvfs(directory)
    whole_bytes = max(1, volume.f_blocks * volume.f_frsize)
    return min(LEAST_FREE_BYTES / whole_bytes, LEAST_FREE_SHARE)
