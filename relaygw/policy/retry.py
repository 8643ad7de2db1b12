"""When to try again, and what an attempt makes of a delivery.

Pure: time and chance are arguments. `settle` is the only place where verdicts become
states, so the promises about them are tested here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from enum import StrEnum

from relaygw.mail.envelope import ClaimedDelivery, DeliveryUpdate, RecipientUpdate
from relaygw.mail.outcome import NO_RELAY, AttemptReport, RecipientOutcome, Verdict
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.settings.model import Retry

DOUBT_LADDER_S = (300.0, 1800.0)
"""Waits before the second and the third attempt of a delivery in doubt; then it is held."""
LEAST_TRIES = 3
LEAST_TRYING_S = 3600.0
"""Mail expires only after so many attempts over so long, however old it is: what nobody tried, as
no worker ran or its route was missing, was not given a chance yet."""
REASON_IN_DOUBT = "in_doubt"
REASON_MODE = "mode"
REASON_POISON = "poison"
REASON_RECOVERED = "recovered"

_FINAL = {Verdict.DELIVERED: RecipientState.DELIVERED, Verdict.BOUNCE: RecipientState.BOUNCED}
_UNCHARGED = frozenset({Verdict.THROTTLE, Verdict.HOLD})


_PARKED = re.compile(r"sender domain (\S*) is refused by (.+)")
_NO_SENDER = "no provider of route"
_OVER_QUOTA = "no daily_quota"
_NEEDS_8BITMIME = "needs 8BITMIME"
_IN_HEADER = ("field ", "its header ")  # see policy.recipient_fields and upstream.sifting
_LOST_PROVIDER = "in doubt with"
_OPERATOR = "operator: "


class Why(StrEnum):
    """Why a delivery is held, as a word; docs/states.md has a row for each."""

    MODE = "mode"  # the mode or the lists of the time of sending do not permit its recipients
    POISON = "poison"
    IN_DOUBT = "in_doubt"
    SENDER_REFUSED = "sender_refused"  # by its providers, as long as their holds last
    NO_SENDER = "no_sender"  # no provider of its route may send as its sender
    OVER_QUOTA = "over_quota"
    CONTENT = "content"  # no provider of its route can be given it as it is
    RECOVERED = "recovered"  # from a damaged queue, and may have been sent already
    OPERATOR = "operator"
    OTHER = "other"


def why_held(reason: str) -> Why:
    """Return the word for the reason of a held delivery."""
    if parked_for(reason) is not None:
        return Why.SENDER_REFUSED
    known = (
        (REASON_MODE, Why.MODE),
        (REASON_POISON, Why.POISON),
        (REASON_IN_DOUBT, Why.IN_DOUBT),
        (REASON_RECOVERED, Why.RECOVERED),
    )
    beginnings = (
        (_LOST_PROVIDER, Why.IN_DOUBT),
        (_NO_SENDER, Why.NO_SENDER),
        (_OVER_QUOTA, Why.OVER_QUOTA),
        (_OPERATOR, Why.OPERATOR),
        *((text, Why.CONTENT) for text in (_NEEDS_8BITMIME, *_IN_HEADER)),
    )
    exact = (why for text, why in known if reason == text)
    begun = (why for text, why in beginnings if reason.startswith(text))
    return next(exact, None) or next(begun, Why.OTHER)


def operator_reason(note: str) -> str:
    """Return the reason of what an operator holds."""
    return f"{_OPERATOR}{note}"


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


_REFUSED_ALIKE = " messages in a row were refused alike: "


def refused_alike(number: int, words: str) -> str:
    """Return the reason of a provider's hold that so many refusals in these words have set."""
    return f"{number}{_REFUSED_ALIKE}{words}"


def words_refused_alike(reason: str) -> str | None:
    """Return the words of such a hold, None for the reason of another one."""
    _, is_such, words = reason.partition(_REFUSED_ALIKE)
    return words if is_such else None


def waits_for_provider(provider: str) -> str:
    """Return the reason of deliveries that only a provider in trouble may take."""
    return f"waits for provider {provider}"


def needs_8bitmime_reason(route: str, why: str) -> str:
    """Return the reason of content that no provider of the route can be given as it is."""
    return f"{_NEEDS_8BITMIME}, which no provider of route {route} has for it: {why}"


def is_of_header(reason: str) -> bool:
    """True for what a field of the header that names recipients is the reason for."""
    return reason.startswith(_IN_HEADER)


def is_in_8_bit(reason: str) -> bool:
    """True for content that needs a provider with 8BITMIME."""
    return reason.startswith(_NEEDS_8BITMIME)


def lost_provider_reason(route: str, provider: str) -> str:
    """Return the reason of a delivery in doubt with a provider that its route has no more."""
    return f"{_LOST_PROVIDER} {provider}, which route {route} has no more"


def is_of_configuration(reason: str) -> bool:
    """True for what another configuration may settle: a look at it again is worth while."""
    return (
        reason.startswith((_NO_SENDER, _OVER_QUOTA, _NEEDS_8BITMIME, *_IN_HEADER))
        or parked_for(reason) is not None
    )


def delay_s(attempts: int, retry: Retry, *, chance: float) -> float:
    """Return the wait after `attempts` failed attempts (1 or more).

    first * factor^(attempts-1), at most max, then spread by ± jitter with `chance` in 0…1.
    """
    exponent = min(attempts - 1, 64)  # beyond any max; keeps the power finite
    wait_s = min(retry.first * retry.factor**exponent, retry.max)
    return wait_s * (1 + retry.jitter * (2 * chance - 1))


def ladder_s(attempts: int, retry: Retry) -> float:
    """Return how long so many failed attempts took at least, if each had its usual wait."""
    growing_s, number = 0.0, 1
    while number <= min(attempts, 64) and retry.first * retry.factor ** (number - 1) < retry.max:
        growing_s += delay_s(number, retry, chance=0.0)
        number += 1
    return growing_s + (attempts - number + 1) * delay_s(number, retry, chance=0.0)


def is_over_age(claimed: ClaimedDelivery, retry: Retry, now_ms: int) -> bool:
    """True when the lifetime is over; time spent held does not count."""
    return now_ms >= given_up_at_ms(claimed.accepted_at_ms, claimed.held_ms, retry)


def given_up_at_ms(
    accepted_at_ms: int, held_ms: int, retry: Retry, *, tried_since_ms: int | None = None
) -> int:
    """Return when mail expires at the earliest: its lifetime over, and tried for long enough.

    `tried_since_ms`: its first attempt, None when that is not known.
    """
    over_at_ms = accepted_at_ms + held_ms + int(retry.lifetime * 1000)
    if tried_since_ms is None:
        return over_at_ms
    return max(over_at_ms, tried_since_ms + int(LEAST_TRYING_S * 1000))


def _is_expired(
    claimed: ClaimedDelivery, retry: Retry, now_ms: int, tried_since_ms: int | None
) -> bool:
    """True when mail that is deferred now has had its time and its tries; unknown is no.

    The waits between the tries count besides the clock, which may have been set, or have gone on
    while nothing ran.
    """
    if tried_since_ms is None or claimed.attempts + 1 < LEAST_TRIES:
        return False
    if ladder_s(claimed.attempts, retry) < LEAST_TRYING_S:
        return False
    ends_at_ms = given_up_at_ms(
        claimed.accepted_at_ms, claimed.held_ms, retry, tried_since_ms=tried_since_ms
    )
    return now_ms >= ends_at_ms


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
    tried_since_ms: int | None = None,
) -> DeliveryUpdate:
    """Turn the outcomes of one attempt into what is written about it.

    `retry_wait_s` replaces the usual wait of a retry. `held_reason`: the sender is refused; what
    is left waits without a timer. `tried_since_ms`: when it was first tried, as far as that is
    known of mail over its lifetime; without it nothing expires.
    """
    verdicts = {outcome.verdict for outcome in report.outcomes}
    open_verdicts = verdicts - set(_FINAL)
    # only what the provider deferred expires: a hold, a slow provider or a doubt never costs a mail
    expired = (
        Verdict.RETRY in open_verdicts
        and open_verdicts <= {Verdict.RETRY, Verdict.THROTTLE}
        and _is_expired(claimed, retry, now_ms, tried_since_ms)
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


def with_rest(told: DeliveryUpdate, rest: DeliveryUpdate) -> DeliveryUpdate:
    """Return what an attempt told, of a delivery with recipients that were not reached.

    `rest` is what would be written if none had been: a hold of either holds both, and neither is
    tried before its time.
    """
    if told.state is DeliveryState.FINISHED:
        state, due_at_ms, reason = rest.state, rest.due_at_ms, rest.reason
        if state is DeliveryState.INCOMING:
            state = DeliveryState.DEFERRED
    elif rest.state is DeliveryState.HELD and told.state is not DeliveryState.HELD:
        state, due_at_ms, reason = rest.state, rest.due_at_ms, rest.reason
    else:
        state, reason = told.state, told.reason
        due_at_ms = max(told.due_at_ms, rest.due_at_ms)
    return replace(told, state=state, due_at_ms=due_at_ms, reason=reason)


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
