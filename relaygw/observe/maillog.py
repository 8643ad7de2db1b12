"""The mail log of one process: events in, lines out, and nobody ever waits for it.

A log that cannot be written never stops mail: see `channel`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.state import RecipientState
from relaygw.observe.channel import Channel
from relaygw.observe.events import Accepted, Event, Note, Settled
from relaygw.observe.form import Form
from relaygw.observe.framing import Framing
from relaygw.observe.redaction import Redaction


class MailLog:
    """Writes events in the form and to the place that the settings name."""

    def __init__(
        self,
        channel: Channel,
        form: Form,
        framing: Framing,
        *,
        redaction: Redaction | None = None,
    ) -> None:
        self._channel = channel
        self._form = form
        self._framing = framing
        self._redaction = redaction or None  # none where nothing is hidden

    def write(self, events: Iterable[Event]) -> None:
        """Write events, all of them at once; returns at once and raises nothing."""
        if self._redaction is not None:
            events = map(self._redaction.apply, events)
        lines = [line for event in events for line in self._form.lines(event)]
        if lines:
            self._channel.write(self._framing(lines))

    def note(self, daemon: str, text: str) -> None:
        """Write one line of free text; see `events.Note` for how it begins."""
        self.write([Note(daemon, text)])

    def accepted(self, messages: Sequence[AcceptedMessage]) -> None:
        """Write that messages are durable, and which of their recipients are settled by that."""
        self.write(event for message in messages for event in _acceptance(message))

    # --- life ----------------------------------------------------------------------------

    @property
    def is_waiting(self) -> bool:
        """True while something has not gone out yet."""
        return self._channel.is_waiting

    def pump(self) -> None:
        """Send what waits; for a process without threads, from time to time."""
        self._channel.pump()

    def adopt(self) -> None:
        """After a fork, in the child: go on with the parent's log as one's own."""
        self._channel.adopt()

    def reopen(self) -> None:
        """Go on in a fresh file of the same name: logrotate has moved the old one away."""
        self._channel.reopen()

    def close(self) -> None:
        """Send what waits, as long as it is taken (a second at most), and let go."""
        self._channel.close()


def _acceptance(message: AcceptedMessage) -> Iterator[Event]:
    yield Accepted(message)
    for part in message.deliveries:
        for entry in part.recipients:
            if entry.state is not RecipientState.PENDING:
                yield Settled(message, part.route, entry)
