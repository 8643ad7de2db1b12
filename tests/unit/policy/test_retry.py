"""Retry times and what an attempt makes of a delivery."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaygw.mail.envelope import DeliveryUpdate
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.outcome import AttemptReport, Meaning, RecipientOutcome, Scope, Stage, Verdict
from relaygw.mail.reply import SmtpReply
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.mail.suppression import Action, Cause, Listed, Suppression
from relaygw.policy.retry import (
    DOUBT_LADDER_S,
    Consequence,
    blocked,
    given_back,
    ladder_s,
    retry_wait_s,
    settle,
    warned,
    with_rest,
)
from relaygw.settings.model import Retry
from tests.builders import NOW_MS, claimed
from tests.tables import each_of

RETRY = Retry()
DAY_MS = 86_400_000


def report(*verdicts: Verdict) -> AttemptReport:
    return AttemptReport(
        provider="main",
        relay="mx[1.2.3.4]:25",
        outcomes=tuple(
            RecipientOutcome(
                rcpt_no=number,
                meaning=Meaning(verdict=verdict, scope=Scope.RECIPIENT),
                stage=Stage.RCPT,
                reply=SmtpReply(250, (verdict.value,)),
            )
            for number, verdict in enumerate(verdicts)
        ),
    )


@each_of(
    ("known", "may_be_taken", "is_untried"),
    [
        ({}, False, True),
        ({"attempts": 1}, False, False),
        ({"provider": "main"}, False, False),
        ({"doubts": 1}, True, False),
        ({"reclaims": 1}, True, False),
    ],
)
def test_what_is_known_of_earlier_tries(
    known: dict[str, Any], may_be_taken: bool, is_untried: bool
) -> None:
    delivery = claimed(**known)
    assert (delivery.may_be_taken, delivery.is_untried) == (may_be_taken, is_untried)


@given(attempts=st.integers(1, 10_000), chance=st.floats(0, 1))
def test_delays_stay_between_first_and_max(attempts: int, chance: float) -> None:
    wait_s = retry_wait_s(attempts, RETRY, chance=chance)
    assert RETRY.first * (1 - RETRY.jitter) <= wait_s <= RETRY.max * (1 + RETRY.jitter)


@given(attempts=st.integers(1, 500))
def test_delays_never_shrink(attempts: int) -> None:
    assert retry_wait_s(attempts, RETRY, chance=0.5) <= retry_wait_s(
        attempts + 1, RETRY, chance=0.5
    )


def test_the_first_delays_are_as_configured() -> None:
    assert [retry_wait_s(n, RETRY, chance=0.5) for n in (1, 2, 3)] == [30, 60, 120]


@given(
    verdicts=st.lists(st.sampled_from(Verdict), min_size=1, max_size=6),
    age_ms=st.integers(0, 20 * DAY_MS),
    doubts=st.integers(0, 5),
    attempts=st.integers(0, 5),
    tried_since_ms=st.none() | st.integers(NOW_MS, NOW_MS + 20 * DAY_MS),
)
def test_settling_is_total_and_consistent(
    verdicts: list[Verdict], age_ms: int, doubts: int, attempts: int, tried_since_ms: int | None
) -> None:
    addresses = [f"r{n}@x.test" for n in range(len(verdicts))]
    delivery = claimed(*addresses, doubts=doubts, attempts=attempts)
    update = settle(
        delivery,
        report(*verdicts),
        RETRY,
        now_ms=NOW_MS + age_ms,
        chance=0.5,
        tried_since_ms=tried_since_ms,
    )
    states = {change.state for change in update.recipients}
    is_open = RecipientState.PENDING in states
    assert (update.state is DeliveryState.FINISHED) == (not is_open)
    assert len(update.recipients) == len(verdicts)
    for change, verdict in zip(update.recipients, verdicts, strict=True):
        if verdict is Verdict.DELIVERED:
            assert change.state is RecipientState.DELIVERED
        if verdict in (Verdict.HOLD, Verdict.DOUBT, Verdict.THROTTLE):
            assert change.state in (RecipientState.PENDING, RecipientState.EXPIRED)
    if Verdict.HOLD in verdicts or Verdict.DOUBT in verdicts or tried_since_ms is None:
        assert RecipientState.EXPIRED not in states


def test_each_recipient_ends_its_own_way() -> None:
    update = settle(
        claimed("a@x.test", "b@x.test", "c@x.test"),
        report(Verdict.DELIVERED, Verdict.RETRY, Verdict.BOUNCE),
        RETRY,
        now_ms=NOW_MS,
        chance=0.5,
    )
    assert [change.state for change in update.recipients] == [
        RecipientState.DELIVERED,
        RecipientState.PENDING,
        RecipientState.BOUNCED,
    ]
    assert (update.state, update.due_at_ms) == (DeliveryState.DEFERRED, NOW_MS + 30_000)


@pytest.mark.parametrize("verdict", [Verdict.THROTTLE, Verdict.HOLD])
def test_the_providers_trouble_is_not_charged_to_the_message(verdict: Verdict) -> None:
    update = settle(
        claimed(),
        report(verdict),
        RETRY,
        now_ms=NOW_MS,
        chance=0.5,
        consequence=Consequence(wait_s=5),
    )
    assert (update.charged, update.state) == (False, DeliveryState.DEFERRED)
    assert not update.recipients[0].charged


def test_doubt_waits_on_a_slow_ladder_and_is_held_in_the_end() -> None:
    for doubts, wait_s in enumerate(DOUBT_LADDER_S):
        update = settle(
            claimed(doubts=doubts), report(Verdict.DOUBT), RETRY, now_ms=NOW_MS, chance=0
        )
        assert (update.state, update.due_at_ms) == (
            DeliveryState.DEFERRED,
            NOW_MS + wait_s * 1000,
        )
        assert update.doubted
    held = settle(
        claimed(doubts=len(DOUBT_LADDER_S)), report(Verdict.DOUBT), RETRY, now_ms=0, chance=0
    )
    assert (held.state, held.reason) == (DeliveryState.HELD, "in_doubt")


def test_so_many_tries_took_so_long_at_least() -> None:
    assert ladder_s(0, RETRY) == 0
    assert ladder_s(3, RETRY) == pytest.approx((30 + 60 + 120) * (1 - RETRY.jitter))
    assert ladder_s(10**9, RETRY) - ladder_s(10**9 - 1, RETRY) == pytest.approx(2880)
    level = Retry(first="5s", max="1h", factor=1.0, jitter="0%")
    assert ladder_s(720, level) == pytest.approx(3600)


def test_what_was_not_sent_is_due_as_before_and_charges_nothing() -> None:
    untried, tried = claimed(), claimed(attempts=1, provider="main")
    now_ms = NOW_MS + 9
    for mail, state, due_at_ms in (
        (untried, DeliveryState.INCOMING, untried.accepted_at_ms),
        (tried, DeliveryState.DEFERRED, now_ms),
    ):
        update = given_back(mail, now_ms)
        assert (update.state, update.due_at_ms, update.provider) == (
            state,
            due_at_ms,
            mail.provider,
        )
        assert (update.queue_id, update.recipients, update.reason) == (mail.queue_id, (), None)
        assert not update.charged


def test_who_is_suppressed_is_told_of_once() -> None:
    entry = Suppression(address="b@cust.test", cause=Cause.BOUNCE, created_at_ms=NOW_MS)
    new, old = Listed(entry, Action.WARN), Listed(entry, Action.WARN, is_told=True)
    people = [
        replace(claimed().recipients[0], rcpt_no=number, listed=listed)
        for number, listed in enumerate((None, old, new))
    ]
    assert [(one.rcpt_no, one.listed) for one in warned(people)] == [(2, new)]


@each_of(
    ("verdicts", "state"),
    [
        ((Verdict.HOLD,), DeliveryState.HELD),
        ((Verdict.HOLD, Verdict.DELIVERED), DeliveryState.HELD),
        ((Verdict.HOLD, Verdict.RETRY), DeliveryState.DEFERRED),
        ((Verdict.THROTTLE,), DeliveryState.DEFERRED),
    ],
)
def test_only_mail_all_of_which_is_refused_is_held(
    verdicts: tuple[Verdict, ...], state: DeliveryState
) -> None:
    hold = HoldCause(HoldCode.NO_SENDER, "main a@shop.test")
    update = settle(
        claimed(*(f"{n}@x.test" for n in range(len(verdicts)))),
        report(*verdicts),
        RETRY,
        now_ms=NOW_MS,
        chance=0.5,
        consequence=Consequence(wait_s=5, hold=hold),
    )
    assert update.state is state
    assert update.hold == (hold if state is DeliveryState.HELD else None)


HOUR_MS = 3_600_000


@each_of(
    ("before", "age_ms", "tried_ms", "state"),
    [
        ({"attempts": 8}, 5 * DAY_MS, HOUR_MS, RecipientState.EXPIRED),
        ({"attempts": 200}, 5 * DAY_MS, 5 * DAY_MS, RecipientState.EXPIRED),
        ({"attempts": 200}, 5 * DAY_MS - 1, 5 * DAY_MS, RecipientState.PENDING),
        ({"attempts": 200, "held_ms": DAY_MS}, 5 * DAY_MS, 5 * DAY_MS, RecipientState.PENDING),
        # nothing ran for days, or tries came one after the other
        ({"attempts": 0}, 50 * DAY_MS, None, RecipientState.PENDING),
        ({"attempts": 1}, 50 * DAY_MS, 2 * HOUR_MS, RecipientState.PENDING),
        ({"attempts": 9}, 50 * DAY_MS, HOUR_MS - 1, RecipientState.PENDING),
        # a clock that was set forward, or a machine that slept: the tries did not take that long
        ({"attempts": 7}, 50 * DAY_MS, 45 * DAY_MS, RecipientState.PENDING),
        ({"attempts": 9}, 50 * DAY_MS, None, RecipientState.PENDING),
    ],
)
def test_mail_expires_after_its_lifetime_if_it_was_tried(
    before: dict[str, int], age_ms: int, tried_ms: int | None, state: RecipientState
) -> None:
    now_ms = NOW_MS + age_ms
    update = settle(
        claimed(**before),
        report(Verdict.RETRY),
        RETRY,
        now_ms=now_ms,
        chance=0.5,
        tried_since_ms=now_ms - tried_ms if tried_ms is not None else None,
    )
    assert update.recipients[0].state is state


def test_an_outcome_tells_where_it_comes_from() -> None:
    update = settle(claimed(), report(Verdict.RETRY), RETRY, now_ms=NOW_MS, chance=0.5)
    (change,) = update.recipients
    assert (update.relay, change.stage, change.verdict) == (
        "mx[1.2.3.4]:25", Stage.RCPT, Verdict.RETRY,
    )  # fmt: skip
    unconnected = replace(report(Verdict.RETRY), relay="none")
    assert settle(claimed(), unconnected, RETRY, now_ms=NOW_MS, chance=0.5).relay is None


@pytest.mark.parametrize(
    ("before", "is_first_try"),
    [
        ({}, True),
        ({"attempts": 1, "provider": "main"}, False),
        ({"provider": "main"}, False),  # asked to slow down, or its worker died
    ],
)
def test_only_a_delivery_that_no_provider_saw_is_at_its_first_try(
    before: dict[str, object], is_first_try: bool
) -> None:
    mail = claimed(**before)
    update = settle(mail, report(Verdict.DELIVERED), RETRY, now_ms=NOW_MS, chance=0.5)
    assert update.is_first_try is is_first_try


# --- those whom an attempt did not reach


def _step(state: str, due_at_ms: int, reason: str | None = None) -> DeliveryUpdate:
    return DeliveryUpdate(
        queue_id="Q",
        delivery_no=0,
        state=DeliveryState(state),
        due_at_ms=due_at_ms,
        provider="p",
        reason=reason,
        recipients=(),
    )


@each_of(
    ("told", "rest", "expected"),
    [
        (("finished", 5), ("incoming", 1), ("deferred", 5)),
        # accepted before the clock was set back
        (("finished", 5), ("incoming", 9), ("deferred", 5)),
        (("deferred", 5, "later"), ("incoming", 9), ("deferred", 5, "later")),
        (("finished", 5), ("deferred", 9), ("deferred", 9)),
        (("finished", 5), ("held", 9, "poison"), ("held", 9, "poison")),
        (("deferred", 300, "in doubt"), ("incoming", 1), ("deferred", 300, "in doubt")),
        (("deferred", 5, "later"), ("deferred", 60), ("deferred", 60, "later")),
        (("deferred", 5, "later"), ("held", 9, "poison"), ("held", 9, "poison")),
        (("held", 5, "in_doubt"), ("held", 9, "poison"), ("held", 9, "in_doubt")),
        (("held", 5, "in_doubt"), ("incoming", 1), ("held", 5, "in_doubt")),
    ],
)
def test_recipients_that_were_not_reached_keep_a_delivery_open(
    told: tuple[Any, ...], rest: tuple[Any, ...], expected: tuple[Any, ...]
) -> None:
    joined, wanted = with_rest(_step(*told), _step(*rest)), _step(*expected)
    assert (joined.state, joined.due_at_ms, joined.reason) == (
        wanted.state,
        wanted.due_at_ms,
        wanted.reason,
    )


def one_report(verdict: Verdict, scope: Scope, *lines: str, **meaning: Any) -> AttemptReport:
    outcome = RecipientOutcome(
        rcpt_no=0,
        meaning=Meaning(verdict=verdict, scope=scope, **meaning),
        stage=Stage.RCPT,
        reply=SmtpReply(550, lines) if lines else None,
    )
    return AttemptReport(provider="main", relay="mx[1.2.3.4]:25", outcomes=(outcome,))


@pytest.mark.parametrize(
    ("scope", "lines", "is_dead"),
    [
        (Scope.RECIPIENT, ("5.1.1 no such user",), True),
        (Scope.RECIPIENT, ("5.1.4 ambiguous",), False),
        (Scope.RECIPIENT, ("5.2.2 mailbox full",), False),
        (Scope.RECIPIENT, ("no such user",), False),
        (Scope.RECIPIENT, (), False),
        (Scope.MESSAGE, ("5.1.1 no such user",), False),
    ],
)
def test_an_address_is_dead_by_the_scope_and_the_status_of_a_refusal(
    scope: Scope, lines: tuple[str, ...], is_dead: bool
) -> None:
    update = settle(
        claimed(), one_report(Verdict.BOUNCE, scope, *lines), RETRY, now_ms=NOW_MS, chance=0.5
    )
    assert update.recipients[0].is_dead_address is is_dead


@pytest.mark.parametrize(("key_left_s", "wait_s"), [(100, 60), (10, DOUBT_LADDER_S[0])])
def test_a_doubt_of_the_provider_waits_as_it_says_while_its_key_is_known(
    key_left_s: int, wait_s: float
) -> None:
    doubt = one_report(Verdict.DOUBT, Scope.MESSAGE, "later", rule="a row", wait_s=(60.0,))
    until_ms = NOW_MS + key_left_s * 1000
    update = settle(claimed(), doubt, RETRY, now_ms=NOW_MS, chance=0.5, key_until_ms=until_ms)
    assert (update.state, update.due_at_ms - NOW_MS) == (DeliveryState.DEFERRED, wait_s * 1000)


def test_who_is_blocked_is_charged_nothing() -> None:
    (update,) = blocked(claimed().recipients)
    assert (update.state, update.charged) == (RecipientState.BLOCKED, False)
