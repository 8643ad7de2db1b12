"""What a front counts for the history, beside its metrics."""

from __future__ import annotations

from collections.abc import Sequence

from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.state import RecipientState
from relaygw.observe.history.series import Series
from relaygw.observe.history.tally import HistoryTally
from relaygw.observe.metrics.front import MAILDROP
from relaygw.observe.metrics.meters import FrontMeter, ListenerMeter
from relaygw.observe.metrics.reasons import capture_reason


class FrontHistory:
    """A meter that counts for the history and passes everything on to `meter`."""

    def __init__(self, meter: FrontMeter, tally: HistoryTally) -> None:
        self._meter = meter
        self._tally = tally
        self.wrote = meter.wrote
        self.sample = meter.sample

    def listener(self, name: str) -> ListenerMeter:
        """Return what counts at the listener of that name."""
        return _ListenerHistory(self._meter.listener(name), self._tally)

    def accepted(self, messages: Sequence[AcceptedMessage]) -> None:
        """Count messages that are durable, and what becomes of their recipients."""
        self._meter.accepted(messages)
        add = self._tally.add
        for message in messages:
            add(Series.MESSAGES, message.source.listener or MAILDROP)
            for delivery in message.deliveries:
                for recipient in delivery.recipients:
                    if recipient.state is RecipientState.CAPTURED:
                        add(Series.CAPTURED, capture_reason(recipient))
                    elif recipient.state is RecipientState.BLOCKED:
                        add(Series.BLOCKED, delivery.route)
                    else:
                        add(Series.ACCEPTED, delivery.route)


class _ListenerHistory:
    def __init__(self, meter: ListenerMeter, tally: HistoryTally) -> None:
        self._meter = meter
        self._tally = tally
        self.sample = meter.sample

    def replied(self, reply: str) -> None:
        """Count a reply to a client, a refusal by its code and status."""
        self._meter.replied(reply)
        if reply[0] in "45":
            self._tally.add(Series.REFUSED, _code(reply))


def _code(reply: str) -> str:
    """Return code and enhanced status; few, whatever the text tells."""
    code, status = reply[:3], reply[4:].partition(" ")[0]
    has_status = status.count(".") == 2 and status.replace(".", "").isdigit()
    return f"{code} {status}" if has_status else code
