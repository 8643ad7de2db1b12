"""What a worker knows to hold leases of: from the claim until the lease has ended.

That is what waits in a window, is under way or chained to that, is being recorded or given back.
A lease in the database that is not here belongs to nobody: its claim was never answered.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from relaygw.mail.envelope import ClaimedDelivery
from relaygw.store.protocol import Key


class InHand:
    """The deliveries in the hands of one worker, by route."""

    def __init__(self) -> None:
        self._keys: defaultdict[str, set[Key]] = defaultdict(set)

    def of(self, route: str) -> frozenset[Key]:
        """Return the deliveries of a route as they are now."""
        return frozenset(self._keys[route])

    def take(self, claimed: Iterable[ClaimedDelivery]) -> None:
        """Note deliveries that were just claimed."""
        for one in claimed:
            self._keys[one.route].add(key_of(one))

    def let_go(self, claimed: Iterable[ClaimedDelivery]) -> None:
        """Note that leases have ended, or that nobody here works on them any more."""
        for one in claimed:
            self._keys[one.route].discard(key_of(one))


def key_of(claimed: ClaimedDelivery) -> Key:
    """Return how the store names a delivery."""
    return (claimed.queue_id, claimed.delivery_no)
