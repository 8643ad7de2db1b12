"""What a front and a worker count for metrics, and the numbers that come of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from relaygw.mail.envelope import DeliveryUpdate, NewDelivery, NewRecipient, RecipientUpdate, Source
from relaygw.mail.outcome import (
    AttemptDelays,
    AttemptReport,
    Meaning,
    RecipientOutcome,
    Scope,
    Stage,
    Verdict,
)
from relaygw.mail.reply import SmtpReply
from relaygw.mail.state import DeliveryState, RecipientState, capture_code
from relaygw.observe.counters import DeliveryMetrics, FrontMetrics
from relaygw.observe.events import Accepted, Attempted
from relaygw.observe.exposition import exposition
from relaygw.observe.labels import BOUNCED, DEFERRED, OTHER, bounce_reason, deferral_reason
from relaygw.observe.metrics import MetricsFile
from relaygw.observe.observer import ListenerObserver
from relaygw.policy.recipients import Decision, Fate, RecipientPolicy
from relaygw.settings.addresses import Recipients
from relaygw.settings.section import Mode
from tests.builders import NOW_MS, accepted, claimed
from tests.tables import each_of
from tests.unit.observe.scraped import Scraped, scraped

_R = RecipientState
REFUSED = SmtpReply(550, ("5.1.1 no such user",))


def scrape(state_dir: Path) -> Scraped:
    return scraped(exposition(state_dir, [], accept="")[0])


def outcome(
    rcpt_no: int,
    verdict: Verdict,
    scope: Scope = Scope.RECIPIENT,
    *,
    stage: Stage = Stage.RCPT,
    reply: SmtpReply | None = REFUSED,
) -> RecipientOutcome:
    meaning = Meaning(verdict=verdict, scope=scope)
    return RecipientOutcome(rcpt_no=rcpt_no, meaning=meaning, stage=stage, reply=reply)


def report(*outcomes: RecipientOutcome, provider: str = "main") -> AttemptReport:
    return AttemptReport(
        provider=provider,
        relay="mx.test[1.2.3.4]:25",
        outcomes=outcomes,
        delays=AttemptDelays(queue_s=9.0, connect_s=0.2, transmit_s=0.2),
    )


def update(*states: RecipientState) -> DeliveryUpdate:
    return DeliveryUpdate(
        queue_id="A",
        delivery_no=0,
        state=DeliveryState.FINISHED,
        due_at_ms=0,
        provider="main",
        reason=None,
        recipients=tuple(
            RecipientUpdate(rcpt_no=number, state=state, reply=None, dsn=None, provider="main")
            for number, state in enumerate(states)
        ),
    )


# --- front --------------------------------------------------------------------------------


def received(listener: str | None, *states: RecipientState, reason: str = "") -> Accepted:
    recipients = tuple(NewRecipient(address="a@x.test", state=s, reason=reason) for s in states)
    delivery = NewDelivery(route="default", stream="transactional", recipients=recipients)
    return Accepted(accepted(deliveries=(delivery,), source=Source(listener=listener)))


def test_messages_count_by_listener_from_zero(state_dir: Path, file: MetricsFile) -> None:
    metrics = FrontMetrics(file)
    metrics.begin("127.0.0.1:25")
    metrics.write()
    assert scrape(state_dir)("relaygw_messages_received_total", listener="127.0.0.1:25") == 0
    metrics.read([received("127.0.0.1:25", _R.PENDING), received("127.0.0.1:25", _R.PENDING)])
    metrics.read([received(None, _R.PENDING)])
    metrics.write()
    numbers = scrape(state_dir)
    assert numbers("relaygw_messages_received_total", listener="127.0.0.1:25") == 2
    assert numbers("relaygw_messages_received_total", listener="maildrop") == 1


def test_captured_recipients_count_by_reason(state_dir: Path, file: MetricsFile) -> None:
    metrics = FrontMetrics(file)
    metrics.read([received("x", _R.CAPTURED, _R.CAPTURED, _R.PENDING, reason="sandbox mode")])
    metrics.read([received("x", _R.BLOCKED, reason="on the block list")])
    metrics.write()
    numbers = scrape(state_dir)
    assert numbers("relaygw_sandbox_captured_total", reason="sandbox") == 2
    assert numbers("relaygw_sandbox_captured_total", reason="blocked") == 0


def test_replies_count_by_code_when_a_second_is_over(state_dir: Path, file: MetricsFile) -> None:
    metrics = FrontMetrics(file)
    observer = ListenerObserver("127.0.0.1:25", None, metrics)
    for reply in ("220 gw ESMTP", "250-gw\r\n250 SIZE 1", "250 2.0.0 Ok", "554 5.7.1 no"):
        observer.replied(reply)
    for sessions in (3, 2):
        observer.sample(sessions)
        metrics.write()
    numbers = scrape(state_dir)
    found = {
        code: numbers("relaygw_smtp_replies_total", listener="127.0.0.1:25", code=code)
        for code in ("220", "250", "554", "221")
    }
    assert found == {"220": 1, "250": 2, "554": 1, "221": None}
    assert numbers("relaygw_smtp_sessions", listener="127.0.0.1:25") == 2


def test_batches_of_both_roles_are_one_metric(state_dir: Path, file: MetricsFile) -> None:
    front, delivery = FrontMetrics(file), DeliveryMetrics(file, ["main"])
    front.batches.add(0.003)
    delivery.batches.add(0.2)
    front.write()
    delivery.write({})
    numbers = scrape(state_dir)
    assert numbers("relaygw_db_write_seconds_bucket", role="front", le="0.005") == 1
    assert numbers("relaygw_db_write_seconds_sum", role="delivery") == 0.2


# --- delivery -----------------------------------------------------------------------------


def test_a_delivered_message_counts_once_for_each_recipient(
    state_dir: Path, file: MetricsFile
) -> None:
    metrics = DeliveryMetrics(file, ["main", "spare"])
    taken = report(outcome(0, Verdict.DELIVERED), outcome(1, Verdict.DELIVERED))
    mail = claimed("a@x.test", "b@x.test")
    metrics.read([Attempted(mail, update(_R.DELIVERED, _R.DELIVERED), taken, NOW_MS + 1500)])
    metrics.write({})
    numbers = scrape(state_dir)
    assert numbers("relaygw_recipients_delivered_total", provider="main") == 2
    assert numbers("relaygw_recipients_delivered_total", provider="spare") == 0
    assert numbers("relaygw_delivery_duration_seconds_sum", provider="main") == 0.4
    assert numbers("relaygw_delivery_duration_seconds_bucket", provider="main", le="0.5") == 1
    assert numbers("relaygw_time_in_queue_seconds_sum") == 1.5
    assert (
        numbers("relaygw_last_success_timestamp_seconds", provider="main")
        == (NOW_MS + 1500) // 1000
    )
    assert numbers("relaygw_last_success_timestamp_seconds", provider="spare") is None


def test_each_recipient_counts_by_what_became_of_it(state_dir: Path, file: MetricsFile) -> None:
    metrics = DeliveryMetrics(file, ["main"])
    mixed = report(
        outcome(0, Verdict.DELIVERED),
        outcome(1, Verdict.BOUNCE),
        outcome(2, Verdict.BOUNCE),
        outcome(3, Verdict.RETRY, Scope.RECIPIENT),
    )
    states = (_R.DELIVERED, _R.BOUNCED, _R.BOUNCED, _R.PENDING, _R.BLOCKED)
    metrics.read([Attempted(claimed(), update(*states), mixed, NOW_MS)])
    metrics.write({})
    numbers = scrape(state_dir)
    assert numbers("relaygw_recipients_delivered_total", provider="main") == 1
    assert (
        numbers("relaygw_recipients_bounced_total", provider="main", reason="refused_recipient")
        == 2
    )
    assert (
        numbers("relaygw_recipients_deferred_total", provider="main", reason="refused_recipient")
        == 1
    )


def test_only_attempts_with_an_answer_tell_how_long_a_provider_takes(
    state_dir: Path, file: MetricsFile
) -> None:
    metrics = DeliveryMetrics(file, ["main"])
    silent = outcome(0, Verdict.RETRY, stage=Stage.CONNECT, reply=None)
    metrics.read([Attempted(claimed(), update(_R.PENDING), report(silent), NOW_MS)])
    metrics.write({})
    assert scrape(state_dir)("relaygw_delivery_duration_seconds_count", provider="main") == 0


def test_what_was_decided_without_a_provider_is_no_attempt(
    state_dir: Path, file: MetricsFile
) -> None:
    metrics = DeliveryMetrics(file, ["main"])
    metrics.read([Attempted(claimed(), update(_R.BLOCKED), report(provider=""), NOW_MS)])
    metrics.write({})
    assert scrape(state_dir)("relaygw_recipients_delivered_total", provider="main") == 0


def test_what_is_written_twice_counts_once(state_dir: Path, file: MetricsFile) -> None:
    metrics = DeliveryMetrics(file, ["main"])
    taken = report(outcome(0, Verdict.DELIVERED))
    for _ in range(2):
        metrics.read([Attempted(claimed(), update(_R.DELIVERED), taken, NOW_MS + 100)])
        metrics.write({})
        metrics.write({})
    numbers = scrape(state_dir)
    assert numbers("relaygw_recipients_delivered_total", provider="main") == 2
    assert numbers("relaygw_time_in_queue_seconds_count") == 2
    assert numbers("relaygw_time_in_queue_seconds_bucket", le="0.05") == 0
    assert numbers("relaygw_time_in_queue_seconds_bucket", le="0.1") == 2  # its bound is within
    assert numbers("relaygw_time_in_queue_seconds_sum") == 0.2


def test_what_takes_longer_than_every_bound_counts_too(state_dir: Path, file: MetricsFile) -> None:
    metrics = DeliveryMetrics(file, ["main"])
    late = NOW_MS + 10 * 86_400_000
    taken = report(outcome(0, Verdict.DELIVERED))
    metrics.read([Attempted(claimed(), update(_R.DELIVERED), taken, late)])
    metrics.write({})
    numbers = scrape(state_dir)
    assert numbers("relaygw_time_in_queue_seconds_bucket", le="86400.0") == 0
    assert numbers("relaygw_time_in_queue_seconds_bucket", le="+Inf") == 1


def test_connections_are_those_of_now(state_dir: Path, file: MetricsFile) -> None:
    metrics = DeliveryMetrics(file, ["main"])
    metrics.write({"main": (3, 1)})
    metrics.write({"main": (1, 2)})
    numbers = scrape(state_dir)
    assert numbers("relaygw_provider_connections", provider="main", state="busy") == 1
    assert numbers("relaygw_provider_connections", provider="main", state="idle") == 2


# --- reasons ------------------------------------------------------------------------------

LISTS = Recipients(allow=("dev@x.test",), block=("bad@x.test",), blocked="capture")


@pytest.mark.parametrize(
    ("mode", "address", "label"),
    [
        (Mode.SANDBOX, "a@x.test", "sandbox"),
        (Mode.STAGING, "a@x.test", "not_allowed"),
        (Mode.PRODUCTION, "bad@x.test", "blocked"),
        (Mode.PRODUCTION, "root", "no_domain"),
    ],
)
def test_every_reason_of_the_policy_has_a_label(mode: Mode, address: str, label: str) -> None:
    decision = RecipientPolicy(mode, LISTS).decide(address)
    assert decision.fate is Fate.CAPTURE
    assert capture_code(decision.reason) == label


@pytest.mark.parametrize(
    ("decision", "label"),
    [
        (Decision(Fate.CAPTURE, "invalid address: a b@x.test has a space"), "invalid_address"),
        (Decision(Fate.CAPTURE, "mail loop: 50 Received fields"), "loop"),
        (Decision(Fate.CAPTURE, "whatever a@x.test said"), OTHER),
        (Decision(Fate.CAPTURE), "no_route"),
    ],
)
def test_a_reason_with_an_address_never_becomes_a_label(decision: Decision, label: str) -> None:
    assert capture_code(decision.reason) == label


@each_of(
    ("of", "label"),
    [
        (outcome(0, Verdict.THROTTLE), "throttled"),
        (outcome(0, Verdict.HOLD, Scope.CREDENTIAL), "held"),
        (outcome(0, Verdict.DOUBT, reply=None), "in_doubt"),
        (outcome(0, Verdict.RETRY, stage=Stage.TLS, reply=None), "unreachable"),
        (outcome(0, Verdict.RETRY, stage=Stage.CONTENT, reply=None), "no_answer"),
        (outcome(0, Verdict.RETRY, Scope.SENDER_DOMAIN), "refused_sender_domain"),
        (outcome(0, Verdict.RETRY, Scope.PROVIDER, stage=Stage.GREETING), "refused_provider"),
        (outcome(0, Verdict.RETRY, stage=Stage.LOCAL, reply=None), "local"),
        (None, OTHER),
    ],
)
def test_deferral_reasons(of: RecipientOutcome | None, label: str) -> None:
    assert deferral_reason(of) == label


@pytest.mark.parametrize(
    ("state", "of", "label"),
    [
        (_R.EXPIRED, outcome(0, Verdict.RETRY), "expired"),
        (_R.BOUNCED, outcome(0, Verdict.BOUNCE, Scope.MESSAGE), "refused_message"),
        (_R.BOUNCED, outcome(0, Verdict.BOUNCE, stage=Stage.LOCAL), "local"),
        (_R.BOUNCED, None, OTHER),
    ],
)
def test_bounce_reasons(state: RecipientState, of: RecipientOutcome | None, label: str) -> None:
    assert bounce_reason(state, of) == label


def reasons(states: Sequence[RecipientState]) -> set[str]:
    """Return every label that an outcome can have in one of `states`."""
    every = [
        outcome(0, verdict, scope, stage=stage, reply=reply)
        for verdict in Verdict
        for scope in Scope
        for stage in Stage
        for reply in (None, REFUSED)
    ]
    if _R.PENDING in states:
        return {deferral_reason(one) for one in every}
    return {bounce_reason(state, one) for state in states for one in every}


def test_there_are_few_reasons() -> None:
    assert len(reasons([_R.PENDING])) == 11
    assert reasons([_R.PENDING]) == set(DEFERRED)
    assert len(reasons([_R.BOUNCED, _R.EXPIRED])) == 7
    assert reasons([_R.BOUNCED, _R.EXPIRED]) == set(BOUNCED)


def test_what_rules_look_for_counts_from_zero(state_dir: Path, file: MetricsFile) -> None:
    front = FrontMetrics(file)
    front.begin("x")
    front.write()
    DeliveryMetrics(file, ["main"]).write({})
    numbers = scrape(state_dir)
    assert numbers("relaygw_smtp_replies_total", listener="x", code="451") == 0
    assert numbers("relaygw_recipients_deferred_total", provider="main", reason="in_doubt") == 0
    assert numbers("relaygw_recipients_bounced_total", provider="main", reason="expired") == 0
