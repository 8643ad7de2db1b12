"""How much room is left where the queue lies."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from weakref import WeakKeyDictionary

from relaygw.mail.drop import LEAST_FREE_BYTES, LEAST_FREE_SHARE

_LOOK_AGAIN_S = 1.0
MOVED_S = 5.0  # what came before that was moved from the log into the database
_COPIES = 2  # of content: in the log and in the database


def free_share(directory: Path) -> float:
    """Return the share of a volume that is free for its users; raises OSError.

    It is 1 where the filesystem does not say how large it is.
    """
    volume = os.statvfs(directory)
    return volume.f_bavail / volume.f_blocks if volume.f_blocks else 1.0


def is_full(directory: Path, least_share: float) -> bool:
    """Return whether less than that share of a volume is free, or nobody knows."""
    try:
        return free_share(directory) < least_share
    except OSError:
        return True


class NoRoom(OSError):
    """Large content would fill the volume."""


class Room:
    """Whether mail may still come: `least_share` of the volume has to stay free.

    Between two looks what was taken counts, and what the log may still have of before. Large
    content leaves `LEAST_FREE_BYTES`, too: the database has to go on. It lies on the same volume
    unless `is_queue_elsewhere`.
    """

    def __init__(self, directory: Path, *, least_share: float, is_queue_elsewhere: bool) -> None:
        self._directory = directory
        self._least = least_share
        self._is_queue_elsewhere = is_queue_elsewhere
        self._looked_at_s = float("-inf")
        self._spare_bytes = 0.0
        self._taken_bytes = 0  # since that look
        self._lock = threading.Lock()
        self._reserved_bytes: WeakKeyDictionary[object, int] = WeakKeyDictionary()

    def is_left(self) -> bool:
        """Return whether more may come; the volume is looked at once a second. Raises OSError."""
        now_s = time.monotonic()
        if (age_s := now_s - self._looked_at_s) >= _LOOK_AGAIN_S:
            lately_bytes = self._taken_bytes if age_s < MOVED_S else 0
            self._looked_at_s, self._taken_bytes = now_s, 0
            volume = os.statvfs(self._directory)
            spare = volume.f_bavail - self._least * volume.f_blocks
            self._spare_bytes = spare * volume.f_frsize - _COPIES * lately_bytes
        return self._spare_bytes >= _COPIES * self._taken_bytes

    def take(self, size_bytes: int) -> None:
        """Count content that is stored with its message."""
        if not self._is_queue_elsewhere:
            self._taken_bytes += size_bytes

    def reserve(self, owner: object, more_bytes: int) -> None:
        """Keep room for `more_bytes` of large content; raises NoRoom, or another OSError.

        In a file they lie soon, and are counted by the volume. For the database they are reserved
        until `release`, or until `owner` is gone: what it stores goes through its log.
        """
        volume = os.statvfs(self._directory)
        whole_bytes = volume.f_blocks * volume.f_frsize  # 0: it does not say
        coming_bytes, least_bytes = more_bytes, self._least * whole_bytes
        with self._lock:
            if not self._is_queue_elsewhere:
                coming_bytes += _COPIES * (sum(self._reserved_bytes.values()) + more_bytes)
                least_bytes = max(
                    least_bytes, min(LEAST_FREE_BYTES, LEAST_FREE_SHARE * whole_bytes)
                )
            if whole_bytes and volume.f_bavail * volume.f_frsize - coming_bytes < least_bytes:
                raise NoRoom(f"with {more_bytes} bytes more it would fill the volume")
            self._reserved_bytes[owner] = self._reserved_bytes.get(owner, 0) + more_bytes

    def release(self, owner: object) -> None:
        """Forget what was reserved for `owner`."""
        with self._lock:
            self._reserved_bytes.pop(owner, None)


def is_private_temporary(path: Path, mounts: str | None = None) -> bool:
    """True for a place below /tmp or /var/tmp that systemd empties when the service stops.

    `mounts` is the content of /proc/self/mountinfo: with PrivateTmp= a service has directories of
    its own there, whose names say so (systemd.exec(5)).
    """
    if mounts is None:
        with suppress(OSError):
            mounts = Path("/proc/self/mountinfo").read_text()
    fields = [line.split(" ", 5) for line in (mounts or "").splitlines()]
    return any(
        "/systemd-private-" in root and path.resolve().is_relative_to(mounted)
        for _, _, _, root, mounted, *_ in fields
    )
