"""How many messages each client may begin in a time: a bucket of tokens for each."""

from __future__ import annotations

import time
from collections import OrderedDict

from relaygw.settings.units import Rate

_MAX_CLIENTS = 10_000


class ClientRates:
    """The rate of every client of one listener, in this process."""

    def __init__(self, rate: Rate) -> None:
        self._capacity = max(1.0, rate.amount)
        self._per_s = rate.per_s
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> bool:
        """Count a message of `client`; False, and not counted, when it is over the rate."""
        now_s = time.monotonic()
        left, at_s = self._buckets.get(client, (self._capacity, now_s))
        left = min(self._capacity, left + (now_s - at_s) * self._per_s)
        is_within = left >= 1.0
        self._buckets[client] = (left - 1.0 if is_within else left, now_s)
        self._buckets.move_to_end(client)
        while len(self._buckets) > _MAX_CLIENTS:  # the one that was quiet longest
            self._buckets.popitem(last=False)
        return is_within
