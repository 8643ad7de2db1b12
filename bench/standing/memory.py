"""Memory of a running gateway, sampled in a thread."""

from __future__ import annotations

import threading
import time
from typing import Self

from bench.rig.gateway import Gateway, pss_bytes_of

_SAMPLE_S = 0.1
_ROLES = ("front", "delivery", "web")


class MemoryWatch:
    """Entered, samples the PSS of the supervisor and each role every 100 ms.

    Knows what each had before, the most that each had, and the most of all together.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._pids = {role: pid for role in _ROLES for pid in gateway.pids(role)}
        self._pids["supervisor"] = gateway.pid
        self.before_bytes = self._sample()
        self.peak_bytes = dict(self.before_bytes)
        self.most_bytes = sum(self.before_bytes.values())
        self.samples = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    @property
    def added_mb(self) -> float:
        """The most of all together beyond what there was before."""
        return (self.most_bytes - sum(self.before_bytes.values())) / 1e6

    def added_by_role(self) -> str:
        """Return how much each role grew at most, as text."""
        grown = [
            f"{role} {(peak_bytes - self.before_bytes[role]) / 1e6:.0f}"
            for role, peak_bytes in self.peak_bytes.items()
            if role in _ROLES
        ]
        return ", ".join(grown) + " MB"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        next_s = time.monotonic()
        while not self._end.wait(max(0.0, next_s - time.monotonic())):
            sample = self._sample()
            self.peak_bytes = {name: max(self.peak_bytes[name], sample[name]) for name in sample}
            self.most_bytes = max(self.most_bytes, sum(sample.values()))
            self.samples += 1
            next_s += _SAMPLE_S

    def _sample(self) -> dict[str, int]:
        return {name: pss_bytes_of(pid) for name, pid in self._pids.items()}
