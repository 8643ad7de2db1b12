"""Who may receive a queued mail by the settings of now, which may not be those it came under."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from relaygw.mail.envelope import ClaimedDelivery, Recipient, Source
from relaygw.policy.modes import Modes
from relaygw.policy.recipient_fields import NO_FIELDS, FieldRule, FieldRules
from relaygw.policy.recipients import RecipientPolicy
from relaygw.policy.releases import ReleasePolicy
from relaygw.settings.mode import Mode
from relaygw.settings.model import Settings


class Screened(NamedTuple):
    """The recipients of a delivery by what may happen to them now, and what its header may name."""

    sendable: tuple[Recipient, ...]
    blocked: tuple[Recipient, ...]
    held: tuple[Recipient, ...]  # the mode or the allow list of now does not permit them
    field_rule: FieldRule | None = NO_FIELDS


NOBODY = Screened((), (), ())


class Screen:
    """Looks once more at who may receive, by the settings of now (mode flips hold)."""

    def __init__(self, settings: Settings) -> None:
        self._policy = RecipientPolicy(settings.mode, settings.recipients)
        self._modes = Modes(settings)
        self._releases = ReleasePolicy(settings)
        self._field_rules = FieldRules(settings)

    def sort(self, claimed: ClaimedDelivery) -> Screened:
        """Return the pending recipients by what may happen to them."""
        obstacle = self.obstacle_of(claimed.source, Mode(claimed.mode), claimed.released)
        by_obstacle: dict[str | None, list[Recipient]] = {None: [], "blocked": [], "mode": []}
        for recipient in claimed.recipients:
            by_obstacle[obstacle(recipient.address)].append(recipient)
        return Screened(
            tuple(by_obstacle[None]),
            tuple(by_obstacle["blocked"]),
            tuple(by_obstacle["mode"]),
            self._field_rules.of(
                claimed.source,
                accepted_in=Mode(claimed.mode),
                is_released=claimed.released is not None,
            ),
        )

    def obstacle_of(
        self, source: Source, accepted_in: Mode, released: str | None
    ) -> Callable[[str], str | None]:
        """Return what says why an address may not be sent to; None: it may."""
        if released is not None:
            return partial(
                self._releases.obstacle, released=released, source=source, accepted_in=accepted_in
            )
        mode = self._modes.of(source.listener, source.user, accepted_in=accepted_in)
        return partial(self._policy.obstacle, mode=mode)
