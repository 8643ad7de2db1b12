"""When to try again, and what an attempt makes of a delivery.

Pure: time and chance are arguments. `settle` is the only place where verdicts become
states, so the promises about them are tested here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from relaygw.mail.envelope import ClaimedDelivery, DeliveryUpdate, RecipientUpdate
from relaygw.mail.outcome import NO_RELAY, AttemptReport, RecipientOutcome, Verdict
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.settings.model import Retry

DOUBT_LADDER_S = (300.0, 1800.0)
"""Waits before the second and the third attempt of a delivery in doubt; then it is held."""
REASON_IN_DOUBT = "in_doubt"
REASON_MODE = "mode"
REASON_POISON = "poison"
REASON_RECOVERED = "recovered"

_FINAL = {Verdict.DELIVERED: RecipientState.DELIVERED, Verdict.BOUNCE: RecipientState.BOUNCED}
_UNCHARGED = frozenset({Verdict.THROTTLE, Verdict.HOLD})


_PARKED = re.compile(r"sender domain (\S*) is refused by (.+)")
_NO_SENDER = "no provider of route"
_OVER_QUOTA = "no daily_quota"


def held_sender_reason(providers: Iterable[str], domain: str) -> str:
    """Return the reason of deliveries that wait until a provider takes a sender's domain."""
    return f"sender domain {domain} is refused by {', '.join(providers)}"


def parked_for(reason: str) -> tuple[frozenset[str], str] | None:
    """Return the providers and the sender's domain of such a reason, None of another one."""
    match = _PARKED.fullmatch(reason)
    return (frozenset(match[2].split(", ")), match[1]) if match else None


def no_sender_reason(route: str, sender: str) -> str:
    """Return the reason of deliveries whose sender no provider of the route may send as."""
    return f"{_NO_SENDER} {route} may send as {sender}"


def over_quota_reason(route: str, recipients: int) -> str:
    """Return the reason of a delivery with more recipients than a day's quota."""
    return f"{_OVER_QUOTA} of route {route} covers its {recipients} recipients"


def put_off_reason(provider: str) -> str:
    """Return the reason of deliveries that only a provider in trouble may take."""
    return f"waits for provider {provider}"


def is_of_configuration(reason: str) -> bool:
    """True for what another configuration may settle: a look at it again is worth while."""
    return reason.startswith((_NO_SENDER, _OVER_QUOTA)) or parked_for(reason) is not None


def delay_s(attempts: int, retry: Retry, *, chance: float) -> float:
    """Return the wait after `attempts` failed attempts (1 or more).

    first * factor^(attempts-1), at most max, then spread by ± jitter with `chance` in 0…1.
    """
    exponent = min(attempts - 1, 64)  # beyond any max; keeps the power finite
    wait_s = min(retry.first * retry.factor**exponent, retry.max)
    return wait_s * (1 + retry.jitter * (2 * chance - 1))


def is_expired(claimed: ClaimedDelivery, retry: Retry, now_ms: int) -> bool:
    """True when the lifetime is over; time spent held does not count."""
    age_ms = now_ms - claimed.accepted_at_ms - claimed.held_ms
    return age_ms >= retry.lifetime * 1000


def settle(
    claimed: ClaimedDelivery,
    report: AttemptReport,
    retry: Retry,
    *,
    now_ms: int,
    chance: float,
    throttle_wait_s: float = 0.0,
    retry_wait_s: float | None = None,
    held_reason: str | None = None,
) -> DeliveryUpdate:
    """Turn the outcomes of one attempt into what is written about it.

    `retry_wait_s` replaces the usual wait of a retry. `held_reason`: the sender is refused; what
    is left waits without a timer.
    """
    verdicts = {outcome.verdict for outcome in report.outcomes}
    open_verdicts = verdicts - set(_FINAL)
    # only what the provider deferred expires: a hold, a slow provider or a doubt never costs a mail
    expired = (
        Verdict.RETRY in open_verdicts
        and open_verdicts <= {Verdict.RETRY, Verdict.THROTTLE}
        and is_expired(claimed, retry, now_ms)
    )
    charged = bool(verdicts - _UNCHARGED)
    if held_reason is not None and open_verdicts == {Verdict.HOLD}:
        step: tuple[DeliveryState, int, str | None] = (DeliveryState.HELD, now_ms, held_reason)
    else:
        step = _next_step(
            claimed,
            report,
            open_verdicts,
            retry,
            expired=expired,
            now_ms=now_ms,
            chance=chance,
            throttle_wait_s=throttle_wait_s,
            retry_wait_s=retry_wait_s,
        )
    state, due_at_ms, reason = step
    words = next((_words(o) for o in report.outcomes if o.verdict not in _FINAL), None)
    return DeliveryUpdate(
        queue_id=claimed.queue_id,
        delivery_no=claimed.delivery_no,
        state=state,
        due_at_ms=due_at_ms,
        provider=report.provider,
        reason=reason or (words if state is not DeliveryState.FINISHED else None),
        recipients=tuple(
            _recipient_update(outcome, report.provider, expired) for outcome in report.outcomes
        ),
        charged=charged,
        doubted=Verdict.DOUBT in verdicts,
        relay=report.relay if report.relay != NO_RELAY else None,
        # whose worker died with it has a provider, but no attempt
        is_first_try=claimed.attempts == 0 and claimed.provider is None,
    )


def _next_step(
    claimed: ClaimedDelivery,
    report: AttemptReport,
    open_verdicts: set[Verdict],
    retry: Retry,
    *,
    expired: bool,
    now_ms: int,
    chance: float,
    throttle_wait_s: float,
    retry_wait_s: float | None,
) -> tuple[DeliveryState, int, str | None]:
    if not open_verdicts or expired:
        return DeliveryState.FINISHED, now_ms, None
    if Verdict.DOUBT in open_verdicts:
        if claimed.doubts >= len(DOUBT_LADDER_S):
            return DeliveryState.HELD, now_ms, REASON_IN_DOUBT
        wait_s = DOUBT_LADDER_S[claimed.doubts]
    elif Verdict.RETRY in open_verdicts:
        known_wait_s = _known_wait_s(report, claimed.attempts)
        usual_s = delay_s(claimed.attempts + 1, retry, chance=chance)
        wait_s = min((w for w in (retry_wait_s, known_wait_s) if w is not None), default=usual_s)
    else:
        wait_s = throttle_wait_s
    return DeliveryState.DEFERRED, now_ms + int(wait_s * 1000), None


def _known_wait_s(report: AttemptReport, attempts: int) -> float | None:
    """Return the wait that the catalogue knows for a reply, the shortest of several."""
    waits_s = [
        outcome.meaning.wait_s[min(attempts, len(outcome.meaning.wait_s) - 1)]
        for outcome in report.outcomes
        if outcome.verdict is Verdict.RETRY and outcome.meaning.wait_s
    ]
    return min(waits_s, default=None)


def _recipient_update(outcome: RecipientOutcome, provider: str, expired: bool) -> RecipientUpdate:
    state = _FINAL.get(outcome.verdict, RecipientState.PENDING)
    if state is RecipientState.PENDING and expired:
        state = RecipientState.EXPIRED
    return RecipientUpdate(
        rcpt_no=outcome.rcpt_no,
        state=state,
        reply=_words(outcome),
        dsn=outcome.dsn,
        provider=provider,
        charged=outcome.verdict not in _UNCHARGED,
        stage=outcome.stage,
        verdict=outcome.verdict,
    )


def _words(outcome: RecipientOutcome) -> str:
    return str(outcome.reply) if outcome.reply is not None else outcome.detail
