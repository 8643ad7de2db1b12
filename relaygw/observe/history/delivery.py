"""What a delivery worker counts for the history, beside its metrics."""

from __future__ import annotations

from relaygw.mail.envelope import ClaimedDelivery, DeliveryUpdate
from relaygw.mail.outcome import AttemptReport
from relaygw.mail.state import RecipientState
from relaygw.observe.history.series import Series
from relaygw.observe.history.tally import HistoryTally
from relaygw.observe.metrics.meters import DeliveryMeter
from relaygw.observe.metrics.reasons import bounce_reason, deferral_reason


class DeliveryHistory:
    """A meter that counts for the history and passes everything on to `meter`."""

    def __init__(self, meter: DeliveryMeter, tally: HistoryTally) -> None:
        self._meter = meter
        self._tally = tally
        self.wrote = meter.wrote
        self.sample = meter.sample

    def settled(
        self,
        claimed: ClaimedDelivery,
        update: DeliveryUpdate,
        report: AttemptReport,
        *,
        now_ms: int,
    ) -> None:
        """Count what an attempt came to, recipient by recipient."""
        self._meter.settled(claimed, update, report, now_ms=now_ms)
        if not report.provider:
            return  # nobody was asked
        add = self._tally.add
        outcomes = {outcome.rcpt_no: outcome for outcome in report.outcomes}
        for change in update.recipients:
            outcome = outcomes.get(change.rcpt_no)
            if change.state is RecipientState.DELIVERED:
                add(Series.DELIVERED, report.provider)
            elif change.state in (RecipientState.BOUNCED, RecipientState.EXPIRED):
                add(Series.BOUNCED, report.provider)
                add(Series.BOUNCED_FOR, bounce_reason(change.state, outcome))
            elif change.state is RecipientState.PENDING:
                add(Series.DEFERRED, report.provider)
                add(Series.DEFERRED_FOR, deferral_reason(outcome))
