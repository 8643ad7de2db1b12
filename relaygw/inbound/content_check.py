"""The check for what must not be mailed, as the settings want it for each stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from relaygw.inbound.content import ReceivedContent
from relaygw.inbound.screen import Check, ScreenHold
from relaygw.mail.content import HeaderFacts
from relaygw.mail.envelope import AcceptedMessage, NewDelivery
from relaygw.mail.finding import Kind
from relaygw.mail.hold import HoldCode
from relaygw.mail.state import RecipientState
from relaygw.policy.content_check import find_in, shown_subject
from relaygw.settings.guard import ContentCheck

Found = Callable[[str, Mapping[Kind, int], bool], None]
"""Is told of what was found: queue id, how many of each kind, whether the mail is held."""


class Wishes:
    """What the settings want of the mail of each stream that is looked at: warn, or hold."""

    def __init__(self, settings: ContentCheck) -> None:
        wanted = {"transactional": settings.transactional, "promotional": settings.promotional}
        self._wanted = {stream: wish for stream, wish in wanted.items() if wish != "off"}
        self.own_ibans = frozenset(settings.own_ibans)

    def of(self, deliveries: Iterable[NewDelivery]) -> set[str]:
        """Return what is wanted of a message, nothing if nobody looks at it."""
        return {self._wanted[one.stream] for one in deliveries if one.stream in self._wanted}

    def shown(self, subject: str, deliveries: Iterable[NewDelivery]) -> str:
        """Return the subject of a message as it is stored and told."""
        if not self._wanted or not self.of(deliveries):
            return subject
        return shown_subject(subject, self.own_ibans)


class ContentLook(Check):
    """Looks for it in the mail of the streams that it is on for."""

    name = "content"

    def __init__(self, settings: ContentCheck, told: Found) -> None:
        self._wishes = Wishes(settings)
        self._told = told

    def look(
        self, message: AcceptedMessage, facts: HeaderFacts, content: ReceivedContent
    ) -> ScreenHold | None:
        """Return a hold for mail of which one part at least goes by a stream that wants it."""
        wishes = self._wishes.of(message.deliveries)
        if not wishes:
            return None
        found = find_in(
            content.head,
            header_end=facts.end,
            subject=facts.subject,
            own_ibans=self._wishes.own_ibans,
        )
        if not found:
            return None
        states = (one.state for part in message.deliveries for one in part.recipients)
        is_held = "hold" in wishes and RecipientState.PENDING in states
        self._told(message.queue_id, found, is_held)
        if not is_held:
            return None
        return ScreenHold(HoldCode.CONTENT_CHECK, "+".join(found), "found in its text")
