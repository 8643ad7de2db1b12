"""When to try again, and what an attempt makes of a delivery; time and chance are arguments.

`settle` is the only place where verdicts become states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from relaygw.mail.dsn_request import SUCCESS
from relaygw.mail.envelope import (
    ClaimedDelivery,
    DeliveryUpdate,
    Recipient,
    RecipientUpdate,
    Warned,
)
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.outcome import NO_RELAY, AttemptReport, RecipientOutcome, Scope, Verdict
from relaygw.mail.state import CaptureCode, DeliveryState, RecipientState
from relaygw.mail.suppression import is_dead_address
from relaygw.policy.pacing import ladder_step
from relaygw.settings.model import Retry
from relaygw.settings.provider import Provider

DOUBT_LADDER_S = (300.0, 1800.0)  # before the next attempts of mail in doubt; then it is held
KEYED_LADDER_S = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
"""The same where the provider knows by its key what it has: the last again, while it knows it."""
_KEY_SHARE = 0.9  # of its life, for which a key is relied on: clocks differ, a try takes a while
LEAST_TRIES = 3
LEAST_TRYING_S = 3600.0
"""Mail expires only after so many attempts over so long, however old it is: what nobody tried, as
no worker ran or its route was missing, was not given a chance yet."""

_FINAL = {Verdict.DELIVERED: RecipientState.DELIVERED, Verdict.BOUNCE: RecipientState.BOUNCED}
_UNCHARGED = frozenset({Verdict.THROTTLE, Verdict.HOLD})


def retry_wait_s(attempts: int, retry: Retry, *, chance: float) -> float:
    """Return the wait after so many failed attempts; `chance` in 0…1 spreads it by ± jitter."""
    exponent = min(attempts - 1, 64)  # beyond any max; keeps the power finite
    wait_s = min(retry.first * retry.factor**exponent, retry.max)
    return wait_s * (1 + retry.jitter * (2 * chance - 1))


def ladder_s(attempts: int, retry: Retry) -> float:
    """Return how long so many failed attempts took at least, if each had its usual wait."""
    growing_s, number = 0.0, 1
    while number <= min(attempts, 64) and retry.first * retry.factor ** (number - 1) < retry.max:
        growing_s += retry_wait_s(number, retry, chance=0.0)
        number += 1
    return growing_s + (attempts - number + 1) * retry_wait_s(number, retry, chance=0.0)


def is_over_age(claimed: ClaimedDelivery, retry: Retry, now_ms: int) -> bool:
    """True when the lifetime is over; time spent held does not count."""
    return now_ms >= given_up_at_ms(claimed.accepted_at_ms, claimed.held_ms, retry)


def given_up_at_ms(
    accepted_at_ms: int, held_ms: int, retry: Retry, *, tried_since_ms: int | None = None
) -> int:
    """Return when mail expires at the earliest: its lifetime over, and tried for long enough."""
    over_at_ms = accepted_at_ms + held_ms + int(retry.lifetime * 1000)
    if tried_since_ms is None:
        return over_at_ms
    return max(over_at_ms, tried_since_ms + int(LEAST_TRYING_S * 1000))


def _is_expired(
    claimed: ClaimedDelivery, retry: Retry, now_ms: int, tried_since_ms: int | None
) -> bool:
    """True when mail that is deferred now has had its time and its tries; unknown is no.

    The waits between tries count as well: the clock may have been set, or have gone on alone.
    """
    tries, accepted_at_ms, held_ms = claimed.attempts, claimed.accepted_at_ms, claimed.held_ms
    if tried_since_ms is None or tries + 1 < LEAST_TRIES or ladder_s(tries, retry) < LEAST_TRYING_S:
        return False
    return now_ms >= given_up_at_ms(accepted_at_ms, held_ms, retry, tried_since_ms=tried_since_ms)


def key_until_ms(since_ms: int, life_s: float) -> int:
    """Return until when a try may rely on the key of one that was made after `since_ms`."""
    return since_ms + int(life_s * _KEY_SHARE * 1000)


def doubt_waits(providers: Mapping[str, Provider]) -> dict[str, float]:
    """Return how long mail waits that a provider may have from a worker that died.

    Not at all with a key; where only an event settles it, until that had time to come.
    """
    waits = {
        name: DOUBT_LADDER_S[0]
        for name, provider in providers.items()
        if provider.events is not None
    }
    return waits | {
        name: 0.0 for name, provider in providers.items() if provider.key_header is not None
    }


def is_doubt_spent(claimed: ClaimedDelivery) -> bool:
    """True when mail in doubt has had its tries, as far as no key makes one more harmless."""
    return claimed.doubts > len(DOUBT_LADDER_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Consequence:
    """What the state of its provider means for a delivery."""

    wait_s: float = 0.0  # when the provider asked to slow down or is held
    retry_wait_s: float | None = None  # instead of the usual wait of a retry
    hold: HoldCause | None = None  # when it is held without a timer, as its sender is refused


NO_CONSEQUENCE = Consequence()


def settle(
    claimed: ClaimedDelivery,
    report: AttemptReport,
    retry: Retry,
    *,
    now_ms: int,
    chance: float,
    consequence: Consequence = NO_CONSEQUENCE,
    tried_since_ms: int | None = None,
    key_until_ms: int | None = None,
) -> DeliveryUpdate:
    """Turn an attempt's outcomes into what is written; without `tried_since_ms` nothing expires.

    Until `key_until_ms` the provider takes a second try for the first one.
    """
    verdicts = {outcome.meaning.verdict for outcome in report.outcomes}
    open_verdicts = verdicts - _FINAL.keys()
    # only what the provider deferred expires: a hold, a slow provider or a doubt never costs a mail
    is_deferred = {Verdict.RETRY} <= open_verdicts <= {Verdict.RETRY, Verdict.THROTTLE}
    expired = is_deferred and _is_expired(claimed, retry, now_ms, tried_since_ms)
    state, wait_s, cause, reason = DeliveryState.FINISHED, 0.0, None, None
    if open_verdicts and not expired:
        if Verdict.DOUBT in open_verdicts:
            key_left_s = 0.0 if key_until_ms is None else (key_until_ms - now_ms) / 1000
            state, wait_s, cause = _after_doubt(claimed, report, key_left_s)
            wait_s = max(wait_s, consequence.wait_s)
        else:
            usual_s = retry_wait_s(claimed.attempts + 1, retry, chance=chance)
            state, wait_s, cause = _next_step(claimed, report, open_verdicts, consequence, usual_s)
        reason = (cause.sentence if cause is not None else "") or _open_words(report)
    return DeliveryUpdate(
        queue_id=claimed.queue_id,
        delivery_no=claimed.delivery_no,
        state=state,
        due_at_ms=now_ms + int(wait_s * 1000),
        provider=report.provider,
        reason=reason,
        recipients=_recipient_updates(claimed, report, expired),
        hold=cause,
        charged=bool(verdicts - _UNCHARGED),
        doubted=Verdict.DOUBT in verdicts,
        relay=report.relay if report.relay != NO_RELAY else None,
        # whose worker died with it has a provider, but no attempt
        is_first_try=claimed.attempts == 0 and claimed.provider is None,
    )


def _open_words(report: AttemptReport) -> str:
    """Words of the first recipient that is not done with."""
    return next(outcome.words for outcome in report.outcomes if outcome.verdict not in _FINAL)


def with_rest(told: DeliveryUpdate, rest: DeliveryUpdate) -> DeliveryUpdate:
    """Return the update of an attempt with that of the recipients it did not reach.

    A hold of either, `rest` too, holds both, and neither is tried before its time.
    """
    is_held = rest.state is DeliveryState.HELD and told.state is not DeliveryState.HELD
    state, due_at_ms = rest.state, rest.due_at_ms
    if state is DeliveryState.INCOMING:
        # due since it was accepted, which is still to come once a clock was set back
        state, due_at_ms = DeliveryState.DEFERRED, told.due_at_ms
    if told.state is not DeliveryState.FINISHED and not is_held:
        return replace(told, due_at_ms=max(told.due_at_ms, due_at_ms))
    return replace(told, state=state, due_at_ms=due_at_ms, reason=rest.reason, hold=rest.hold)


def held_in_doubt(update: DeliveryUpdate) -> DeliveryUpdate:
    """Return an outcome whose mail may have been sent, and is held for that: it is charged."""
    cause, held = HoldCause(HoldCode.IN_DOUBT), DeliveryState.HELD
    return replace(
        update, state=held, reason=cause.sentence, hold=cause, charged=True, doubted=True
    )


def retried_in_doubt(update: DeliveryUpdate, due_at_ms: int) -> DeliveryUpdate:
    """Return the same where its provider knows by a key what it has: it is tried again."""
    doubted = replace(held_in_doubt(update), state=DeliveryState.DEFERRED, hold=None)
    return replace(doubted, due_at_ms=due_at_ms)


def unsent(
    claimed: ClaimedDelivery, state: DeliveryState, due_at_ms: int, hold: HoldCause | None = None
) -> DeliveryUpdate:
    """Return the update of a delivery of which nothing was sent: nothing is charged."""
    return DeliveryUpdate(
        queue_id=claimed.queue_id,
        delivery_no=claimed.delivery_no,
        state=state,
        due_at_ms=due_at_ms,
        provider=claimed.provider,
        reason=hold.sentence if hold is not None else None,
        recipients=(),
        hold=hold,
        charged=False,
    )


def given_back(claimed: ClaimedDelivery, now_ms: int) -> DeliveryUpdate:
    """Return the update that undoes a lease: due at once, and nothing is charged."""
    if claimed.attempts == 0:
        return unsent(claimed, DeliveryState.INCOMING, claimed.accepted_at_ms)
    return unsent(claimed, DeliveryState.DEFERRED, now_ms)


def blocked(
    recipients: Sequence[Recipient], suppressed: Sequence[Recipient] = ()
) -> tuple[RecipientUpdate, ...]:
    """Return the updates of recipients on the block list of now, and of suppressed ones."""
    on_list = CaptureCode.BLOCKED.sentence()
    reasons = [(recipient, on_list) for recipient in recipients]
    reasons += [
        (recipient, recipient.listed.sentence)
        for recipient in suppressed
        if recipient.listed is not None
    ]
    return tuple(
        RecipientUpdate(
            rcpt_no=recipient.rcpt_no,
            state=RecipientState.BLOCKED,
            reply=reason,
            dsn="5.7.1",
            provider=None,
            charged=False,
        )
        for recipient, reason in reasons
    )


def warned(recipients: Sequence[Recipient]) -> tuple[Warned, ...]:
    """Return who is sent to although it is suppressed, and was not told of yet."""
    return tuple(
        Warned(recipient.rcpt_no, recipient.address, recipient.listed)
        for recipient in recipients
        if recipient.listed is not None and not recipient.listed.is_told
    )


def _after_doubt(
    claimed: ClaimedDelivery, report: AttemptReport, key_left_s: float
) -> tuple[DeliveryState, float, HoldCause | None]:
    """Return the same of mail that is in doubt.

    What the provider itself calls one is held, unless the catalogue says how long it waits.
    """
    doubts = [outcome for outcome in report.outcomes if outcome.verdict is Verdict.DOUBT]
    told = [doubt.meaning.wait_s for doubt in doubts if doubt.meaning.rule]  # by a row of it
    wait_s = ladder_step(KEYED_LADDER_S, claimed.doubts)
    if told:
        wait_s = max(ladder_step(waits_s, claimed.doubts) if waits_s else 0.0 for waits_s in told)
    if all(told) and wait_s < key_left_s:
        return DeliveryState.DEFERRED, wait_s, None
    if not all(told) or claimed.doubts >= len(DOUBT_LADDER_S):
        return DeliveryState.HELD, 0.0, HoldCause(HoldCode.IN_DOUBT)
    return DeliveryState.DEFERRED, DOUBT_LADDER_S[claimed.doubts], None


def _next_step(
    claimed: ClaimedDelivery,
    report: AttemptReport,
    open_verdicts: set[Verdict],
    consequence: Consequence,
    usual_s: float,
) -> tuple[DeliveryState, float, HoldCause | None]:
    """Return the state of what is not over, how long it waits, and why it is held."""
    if consequence.hold is not None and open_verdicts == {Verdict.HOLD}:
        return DeliveryState.HELD, 0.0, consequence.hold
    if Verdict.RETRY not in open_verdicts:
        return DeliveryState.DEFERRED, consequence.wait_s, None
    # what the catalogue knows for a reply, the shortest of several
    waits_s = [
        ladder_step(outcome.meaning.wait_s, claimed.attempts)
        for outcome in report.outcomes
        if outcome.verdict is Verdict.RETRY and outcome.meaning.wait_s
    ]
    if consequence.retry_wait_s is not None:
        waits_s.append(consequence.retry_wait_s)
    return DeliveryState.DEFERRED, min(waits_s, default=usual_s), None


def _recipient_updates(
    claimed: ClaimedDelivery, report: AttemptReport, expired: bool
) -> tuple[RecipientUpdate, ...]:
    wants_success = {
        recipient.rcpt_no
        for recipient in claimed.recipients
        if recipient.dsn_notify and SUCCESS in recipient.dsn_notify
    }
    return tuple(
        [
            _recipient_update(outcome, report.provider, expired, outcome.rcpt_no in wants_success)
            for outcome in report.outcomes
        ]
    )


def _recipient_update(
    outcome: RecipientOutcome, provider: str, expired: bool, wants_success: bool
) -> RecipientUpdate:
    verdict = outcome.meaning.verdict
    state = _FINAL.get(verdict, RecipientState.EXPIRED if expired else RecipientState.PENDING)
    return RecipientUpdate(
        rcpt_no=outcome.rcpt_no,
        state=state,
        reply=outcome.words,
        dsn=outcome.dsn,
        provider=provider,
        charged=verdict not in _UNCHARGED,
        stage=outcome.stage,
        verdict=verdict,
        is_dead_address=_is_dead_address(outcome),
        is_relayed=wants_success and verdict is Verdict.DELIVERED and not outcome.is_passed_on,
    )


def _is_dead_address(outcome: RecipientOutcome) -> bool:
    """True if the reply is about the recipient, by the catalogue, and its status says so, too."""
    is_refused = outcome.verdict is Verdict.BOUNCE and outcome.scope is Scope.RECIPIENT
    return is_refused and outcome.reply is not None and is_dead_address(outcome.reply.status)
