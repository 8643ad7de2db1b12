"""How long a worker waits, and for what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relaygw.store.batch_writer import RETRY_LADDER_S

LEASE_S = 20.0  # an incarnation whose heartbeat is older is dead to the others
HEARTBEAT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Waits:
    """Waits of one worker, in seconds."""

    lease_s: float = LEASE_S
    heartbeat_s: float = HEARTBEAT_S
    unknown_leases_s: float = 60.0  # between looks for leases that are not known here
    routes_s: float = 5.0  # between looks for mail whose route is gone
    rest_s: float = 5.0  # so long it is believed that nothing is to be done
    stale_s: float = 2.0  # a claim of this age does not know who was suppressed meanwhile
    record_s: float = 0.005  # between batches, while other attempts may end meanwhile
    record_ladder_s: Sequence[float] = RETRY_LADDER_S  # while outcomes cannot be written
    store_ladder_s: Sequence[float] = (1.0, 2.0, 5.0, 15.0, 30.0)
    """After the store failed in an attempt that had sent nothing, the last again."""
    drain_s: float = 25.0  # for what is under way when it ends


USUAL = Waits()
