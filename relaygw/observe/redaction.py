"""Takes out of events what a configuration does not want to see."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, TypeVar

from relaygw.mail.envelope import NewDelivery, NewRecipient, Recipient
from relaygw.observe.events import Accepted, Attempted, Event, Judged, Note, Rejected

_Entry = TypeVar("_Entry", NewRecipient, Recipient)
_HIDDEN = "*"
_MIN_QUOTED_CHARACTERS = 4  # shorter subjects stand in a reply by chance
# a run begins only where no other does, and no local part of 64 bytes (RFC 5321 section 4.5.3.1.1)
# has more than 32 escapes: so the time grows with the size alone
_ADDRESS = re.compile(
    r'(?:"[^"\\]*+(?:\\.[^"\\]*+){0,32}+"'  # the local part, quoted
    r'|(?<![^\s<>()\[\],;:"@])[^\s<>()\[\],;:"@]+)'  # or not
    r"(?:@|%40)"
    r'(\[[^\[\]\s]*\]|[^\s<>()\[\],;:"@]+)'
)


class Redaction:
    """Takes out of events what a configuration does not want to see."""

    def __init__(self, words: Collection[str]) -> None:
        self._hides_subject = "subject" in words
        self._hides_domain = "addresses" in words
        self._hides_addresses = self._hides_domain or "local_part" in words

    def __bool__(self) -> bool:
        """True when there is anything to take out."""
        return self._hides_subject or self._hides_addresses

    def apply(self, event: Event) -> Event:
        """Return `event` as the log may show it."""
        return _REDACT[type(event)](self, event)

    def _subject(self, subject: str) -> str:
        return _HIDDEN if self._hides_subject else subject

    def _address(self, address: str) -> str:
        """Return an envelope address as it may be shown; the null sender hides nothing."""
        if not self._hides_addresses or not address:
            return address
        _, at, domain = address.rpartition("@")
        return _HIDDEN if self._hides_domain or not at else f"{_HIDDEN}@{domain}"

    def _text(self, text: str, subject: str = "") -> str:
        if self._hides_subject and len(subject) >= _MIN_QUOTED_CHARACTERS:
            text = text.replace(subject, _HIDDEN)
        if self._hides_addresses:
            text = _ADDRESS.sub(_HIDDEN if self._hides_domain else rf"{_HIDDEN}@\1", text)
        return text

    # --- the kinds of events -------------------------------------------------------------

    def _accepted(self, event: Accepted) -> Event:
        message = event.message
        return Accepted(
            replace(
                message,
                sender=self._address(message.sender),
                given_sender=self._address(message.given_sender),
                subject=self._subject(message.subject),
                deliveries=tuple(self._part(part, message.subject) for part in message.deliveries),
            )
        )

    def _part(self, part: NewDelivery, subject: str) -> NewDelivery:
        shown = (
            replace(self._recipient(entry), reason=self._text(entry.reason or "", subject))
            for entry in part.recipients
        )
        return replace(part, recipients=tuple(shown))

    def _recipient(self, entry: _Entry) -> _Entry:
        original = None if entry.original is None else self._address(entry.original)
        return replace(entry, address=self._address(entry.address), original=original)

    def _attempted(self, event: Attempted) -> Event:
        claimed, update = event.claimed, event.update
        subject = claimed.subject
        return event._replace(
            claimed=replace(
                claimed,
                sender=self._address(claimed.sender),
                subject=self._subject(subject),
                recipients=tuple(map(self._recipient, claimed.recipients)),
            ),
            update=replace(
                update,
                reason=self._text(update.reason or "", subject),
                recipients=tuple(
                    replace(change, reply=self._text(change.reply or "", subject))
                    for change in update.recipients
                ),
            ),
        )

    def _judged(self, event: Judged) -> Event:
        return event._replace(
            address=self._address(event.address),
            sender=self._address(event.sender),
            subject=self._subject(event.subject),
            detail=self._text(event.detail, event.subject),
        )

    def _rejected(self, event: Rejected) -> Event:
        return event._replace(
            reply=self._text(event.reply),
            sender=self._address(event.sender),
            helo=self._text(event.helo),
            command=self._text(event.command),
        )

    def _note(self, event: Note) -> Event:
        return Note(event.daemon, self._text(event.text))


_REDACT: dict[type[Event], Callable[[Redaction, Any], Event]] = {
    Accepted: Redaction._accepted,
    Attempted: Redaction._attempted,
    Judged: Redaction._judged,
    Rejected: Redaction._rejected,
    Note: Redaction._note,
}
