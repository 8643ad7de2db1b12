"""Gateways that are gone. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from relaygw.mail.clock import utc_text
from relaygw.policy.untended import Untended, deliveries, grouped
from relaygw.settings.alerts import Rule

LOST_MS = 86_400_000  # for how long a lost instance is told of
"""As long workers may run different settings before mail of a route that only some may know of
is told of: a change of settings goes from one gateway to the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LostInstance:
    """A process that died without a goodbye, and none of its name and role came back."""

    incarnation: str
    name: str
    role: str
    pid: int
    heartbeat_at_ms: int  # the last one
    leases: int  # deliveries it was sending, which others have now


def lost_gateways(lost: Iterable[LostInstance]) -> list[Untended]:
    """Return the hosts whose processes are gone, with what they had."""
    by_name = grouped((instance.name, instance) for instance in lost)
    return [_lost(name, mine) for name, mine in by_name.items()]


def _lost(name: str, mine: Sequence[LostInstance]) -> Untended:
    roles = ", ".join(dict.fromkeys(instance.role for instance in mine))
    leases = sum(instance.leases for instance in mine)
    last_ms = max(instance.heartbeat_at_ms for instance in mine)
    at = utc_text(last_ms)
    had = f"; {deliveries(leases)} it was sending went back to the queue" if leases else ""
    return Untended(
        kind=Rule.INSTANCE_LOST,
        rule=Rule.INSTANCE_LOST,
        key=name,
        deliveries=leases,
        since_ms=last_ms,
        summary=f"gateway {name} is lost ({roles}): its last heartbeat was at {at}{had}",
        remedy="check "
        "that machine; mail in its maildrop waits there until the gateway runs again. An instance "
        "that does not come back is forgotten after a day",
    )
