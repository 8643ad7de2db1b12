"""Few words that are always the same, for metrics and history: neither addresses nor replies."""

from __future__ import annotations

from relaygw.mail.outcome import BEFORE_MAIL, RecipientOutcome, Scope, Stage, Verdict
from relaygw.mail.state import CaptureCode, RecipientState
from relaygw.mail.suppression import Action
from relaygw.observe.events import Attempted

MAILDROP = "maildrop"  # the listener of mail that came by no listener
OTHER = CaptureCode.OTHER.value
_REFUSED = {scope: f"refused_{scope.value.replace(' ', '_')}" for scope in Scope}
_NOT_NOW = {Verdict.THROTTLE: "throttled", Verdict.HOLD: "held", Verdict.DOUBT: "in_doubt"}
FOUND = ("warned", "held")  # what the content check did
_NEVER_CAPTURED = (CaptureCode.OTHER, CaptureCode.SUPPRESSED)
CAPTURED = tuple(code.value for code in CaptureCode if code not in _NEVER_CAPTURED)
DEFERRED = (*_NOT_NOW.values(), "local", "unreachable", "no_answer", *_REFUSED.values())
BOUNCED = ("expired", "local", *_REFUSED.values())
DUPLICATE = "duplicate"  # of one that was taken, and not taken itself
REPEATED = ("same", "message_id", "held", DUPLICATE)
NOTICES = ("failed", "delayed", "relayed")
NOTICE_RESULTS = ("made", "none", "error", "null_sender")  # null_sender: failed, and never told
"""What is counted from zero on: a count that begins with 1 is no increase to Prometheus."""


def label_of_few(known: set[str], name: str, most: int) -> str:
    """Return a label; of more names than `most` only the first are told apart."""
    if name not in known:
        if len(known) >= most:
            return OTHER
        known.add(name)
    return name


def suppressed_of(event: Attempted) -> list[tuple[str, str, str]]:
    """Return action, stream and cause for each suppressed recipient."""
    claimed, update = event.claimed, event.update
    listed = {
        recipient.rcpt_no: recipient.listed
        for recipient in claimed.recipients
        if recipient.listed is not None
    }
    if not listed:
        return []
    blocked = [
        listed[change.rcpt_no]
        for change in update.recipients
        if change.state is RecipientState.BLOCKED and change.rcpt_no in listed
    ]
    told = [
        *(("blocked", listing) for listing in blocked if listing.action is Action.BLOCK),
        *(("warned", recipient.listed) for recipient in update.warned),
    ]
    return [(what, claimed.stream, listing.entry.cause.value) for what, listing in told]


def deferral_reason(outcome: RecipientOutcome | None) -> str:
    """Return why a recipient waits."""
    if outcome is None:
        return OTHER
    if outcome.verdict in _NOT_NOW:
        return _NOT_NOW[outcome.verdict]
    if outcome.stage is Stage.LOCAL:
        return "local"
    if outcome.reply is not None:
        return _REFUSED[outcome.scope]
    return "unreachable" if outcome.stage in BEFORE_MAIL else "no_answer"


def bounce_reason(state: RecipientState, outcome: RecipientOutcome | None) -> str:
    """Return why a recipient will not be tried again."""
    if state is RecipientState.EXPIRED:
        return "expired"
    if outcome is None:
        return OTHER
    return "local" if outcome.stage is Stage.LOCAL else _REFUSED[outcome.scope]
