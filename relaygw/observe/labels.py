"""The labels of what is counted: few words that are always the same, for metrics and history.

They tell neither addresses nor replies.
"""

from __future__ import annotations

from relaygw.mail.envelope import NewRecipient
from relaygw.mail.outcome import BEFORE_MAIL, RecipientOutcome, Scope, Stage, Verdict
from relaygw.mail.state import RecipientState

MAILDROP = "maildrop"
"""The listener of mail that came by no listener."""
OTHER = "other"
_CAPTURED = {
    "sandbox mode": "sandbox",
    "staging:": "not_allowed",
    "on the block list": "blocked",
    "local recipient": "no_domain",
    "invalid address": "invalid_address",
    "mail loop": "loop",
    "larger than max_message_size": "too_large",
}
"""By how the reason begins that is stored."""
_REFUSED = {scope: f"refused_{scope.value.replace(' ', '_')}" for scope in Scope}
_NOT_NOW = {Verdict.THROTTLE: "throttled", Verdict.HOLD: "held", Verdict.DOUBT: "in_doubt"}

CAPTURED = ("no_route", *_CAPTURED.values())
DEFERRED = (*_NOT_NOW.values(), "local", "unreachable", "no_answer", *_REFUSED.values())
BOUNCED = ("expired", "local", *_REFUSED.values())
"""What is counted from zero on: a count that begins with 1 is no increase to Prometheus."""


def capture_reason(recipient: NewRecipient) -> str:
    """Return why a recipient was captured."""
    if recipient.reason is None:
        return "no_route"
    found = (word for start, word in _CAPTURED.items() if recipient.reason.startswith(start))
    return next(found, OTHER)


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
