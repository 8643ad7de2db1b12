"""What is watched over, as the alerts and the dashboard see it: part of the store.

History are counts in slices of five minutes, added up by all instances. A *duty* is what one
instance does for all. An *incident* is something that is or was wrong, and who was told of it.
Counts and duties are not synced by themselves: a power cut may forget the last ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from relaygw.mail.standing import HeldMail, MailInHand
from relaygw.mail.state import DeliveryState
from relaygw.policy.untended import Lane, LostInstance, Standing, shortest_in_hand_s
from relaygw.settings.model import Settings

if TYPE_CHECKING:  # protocol.Store inherits from here
    from relaygw.store.protocol import Hold, Instance, LaneCount

HISTORY_SLICE_MS = 300_000
"""How long a slice of history is; slices begin at multiples of it."""
DUTY_S = 20.0
"""An instance that did not renew a duty for so long has lost it."""

Count = tuple[str, str]
"""What is counted: series and label, "" where a series has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPoint:
    """What was counted in one slice."""

    slice_at_ms: int  # its beginning
    series: str
    label: str
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """What is or was wrong; `told` and `recovery_told` name the channels that took a notice."""

    incident_id: str
    rule: str
    key: str  # whom it concerns: a provider, a host, a route; "" is the whole gateway
    summary: str
    remedy: str
    since_ms: int
    told: tuple[str, ...] = ()
    recovered_at_ms: int | None = None
    recovery_told: tuple[str, ...] = ()


class Watching(Protocol):
    """History, duties and incidents; `protocol.Store` says what holds for all methods."""

    # --- history -------------------------------------------------------------------------

    def add_history(self, at_ms: int, amounts: Mapping[Count, int]) -> None:
        """Add counts to the slice that `at_ms` lies in."""

    def raise_history(self, at_ms: int, amounts: Mapping[Count, int]) -> None:
        """Keep gauges in the slice that `at_ms` lies in: the greatest number of each counts."""

    def history(self, since_ms: int, *, series: Collection[str] = ()) -> list[HistoryPoint]:
        """Return what was counted from the slice of `since_ms` on, oldest first.

        Of these series only, if any are named.
        """

    def forget_watched(self, before_ms: int) -> bool:
        """Delete a day of history before a time, and incidents over by then; True if more is left.

        The incidents go all at once, and so do instances lost before it.
        """

    # --- duties --------------------------------------------------------------------------

    def duty(self, name: str, incarnation: str) -> bool:
        """Take or renew a duty; True for the one living incarnation that has it.

        One that is not registered (any more) has none. Ask again each few seconds.
        """

    # --- incidents -----------------------------------------------------------------------

    def open_incident(self, incident: Incident) -> bool:
        """Write an incident that begins; False if its rule and key have one that is not over."""

    def end_incident(self, incident_id: str, *, at_ms: int) -> None:
        """Note that an incident is over; one that was over already stays as it is."""

    def note_told(self, incident_id: str, channel: str, *, is_recovery: bool) -> None:
        """Note that a channel took the notice of an incident, or of its end."""

    def incidents(self, since_ms: int) -> list[Incident]:
        """Return the incidents that last, and those that ended since; oldest first."""

    # --- what stands still ---------------------------------------------------------------

    def doubtful(self) -> dict[str, int]:
        """Return how many open deliveries a provider may have taken, by provider."""

    def held_mail(self) -> list[HeldMail]:
        """Return what is held, by route and reason."""

    def in_hand_since(self, before_ms: int) -> list[MailInHand]:
        """Return the deliveries that a registered worker has had in hand since before a time."""

    def lost_instances(self, since_ms: int) -> list[LostInstance]:
        """Return the instances lost whose last heartbeat came since a time, the latest first.

        Without those of a name and role that is registered again.
        """


def standing_of(
    store: Watching,
    settings: Settings,
    *,
    fingerprint: str,
    lanes: Sequence[LaneCount],
    holds: Sequence[Hold],
    instances: Sequence[Instance],
    now_ms: int,
) -> Standing:
    """Return what `policy.untended` judges; `fingerprint` is that of `settings`.

    Raises StoreUnavailable.
    """
    is_held = any(lane.state is DeliveryState.HELD for lane in lanes)
    is_in_hand = any(lane.state is DeliveryState.ACTIVE for lane in lanes)
    before_ms = now_ms - int(shortest_in_hand_s(settings) * 1000)
    return Standing(
        held=store.held_mail() if is_held else (),
        in_hand=store.in_hand_since(before_ms) if is_in_hand else (),
        lanes=tuple(
            Lane(
                route=lane.route,
                deliveries=lane.deliveries,
                accepted_at_ms=lane.oldest_accepted_at_ms,
            )
            for lane in lanes
            if lane.state in (DeliveryState.INCOMING, DeliveryState.DEFERRED)
        ),
        holds=frozenset((hold.scope, hold.key) for hold in holds),
        others=tuple(
            f"{one.role} {one.pid} on {one.name}"
            for one in instances
            if one.role == "delivery" and one.state != "draining" and one.fingerprint != fingerprint
        ),
    )
