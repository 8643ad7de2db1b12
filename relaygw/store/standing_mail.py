"""Mail that does not move, as the queue has it: the input of policy.untended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from relaygw.mail.state import CLAIMABLE, DeliveryState
from relaygw.mail.words import printable
from relaygw.policy.untended import Lane, Standing, shortest_in_hand_s
from relaygw.store.home import home_elsewhere

if TYPE_CHECKING:
    from relaygw.settings.model import Settings
    from relaygw.store.holds import Hold
    from relaygw.store.instances import Instance
    from relaygw.store.queue import LaneCount
    from relaygw.store.store import Store


def standing_of(
    store: Store,
    settings: Settings,
    *,
    fingerprint: str,
    lanes: Sequence[LaneCount],
    holds: Sequence[Hold],
    instances: Sequence[Instance],
    now_ms: int,
) -> Standing:
    """Return the input of `policy.untended`, with `settings` and theirs; StoreUnavailable."""
    is_held = any(lane.state is DeliveryState.HELD for lane in lanes)
    is_in_hand = any(lane.state is DeliveryState.ACTIVE for lane in lanes)
    home = home_elsewhere(store.homes, settings)
    before_ms = now_ms - int(shortest_in_hand_s(settings) * 1000)
    return Standing(
        held=store.holds.held_mail() if is_held else (),
        in_hand=store.watch.in_hand_since(before_ms) if is_in_hand else (),
        lanes=tuple(
            Lane(
                route=lane.route,
                deliveries=lane.deliveries,
                accepted_at_ms=lane.oldest_accepted_at_ms,
            )
            for lane in lanes
            if lane.state in CLAIMABLE
        ),
        holds=frozenset((hold.scope, hold.key) for hold in holds),
        ending=frozenset(
            hold.hold_id
            for hold in (store.holds.standing() if is_held else ())
            if hold.until_ms is not None
        ),
        home=None if home is None else printable(home.owner),
        others=tuple(
            f"{instance.role} {instance.pid} on {instance.name}"
            for instance in instances
            if instance.role == "delivery"
            and instance.state != "draining"
            and instance.fingerprint != fingerprint
        ),
    )
