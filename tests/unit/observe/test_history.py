"""What is counted for the history, and that counts outlive a queue that is away."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from relaygw.mail.envelope import DeliveryUpdate, NewRecipient, RecipientUpdate, Source
from relaygw.mail.outcome import AttemptReport
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.mail.verdict import Kind
from relaygw.observe import history as history_module
from relaygw.observe.counters import DeliveryMetrics, FrontMetrics
from relaygw.observe.events import Accepted, Attempted
from relaygw.observe.exposition import exposition
from relaygw.observe.history import MAX_COUNTS, MAX_DOMAINS, History, Series
from relaygw.observe.metrics import MetricsFile
from relaygw.observe.observer import DeliveryObserver, FrontObserver, ListenerObserver, Observer
from tests.builders import NOW_MS, accepted, claimed
from tests.logs import text_log
from tests.unit.observe.events import judged, outcome
from tests.unit.observe.scraped import scraped


def counted(history: History) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for _, counts in history.take():
        for key, count in counts.items():
            found[key] = found.get(key, 0) + count
    return found


def test_a_front_counts_messages_and_what_becomes_of_their_recipients() -> None:
    history = History()
    captured = NewRecipient(
        address="x@y.test", state=RecipientState.CAPTURED, reason="sandbox mode"
    )
    blocked = NewRecipient(address="z@y.test", state=RecipientState.BLOCKED)
    several = [accepted("a@y.test", "b@y.test", captured, blocked), accepted("c@y.test")]
    history.read([Accepted(message) for message in several])
    history.read([Accepted(accepted(source=Source(listener="127.0.0.1:25")))])
    assert counted(history) == {
        ("messages", "maildrop"): 2,
        ("messages", "127.0.0.1:25"): 1,
        ("accepted", "default"): 4,
        ("captured", "sandbox"): 1,
        ("blocked", "default"): 1,
    }


@pytest.mark.parametrize(
    ("reply", "label"),
    [
        ("554 5.7.1 <x>: Relay access denied", "554 5.7.1"),
        ("451 4.3.0 Error: temporary trouble", "451 4.3.0"),
        ("502 Error: command not recognized", "502"),
        ("500-5.5.2 several\r\n500 5.5.2 lines", "500 5.5.2"),
        ("250 2.0.0 Ok", None),
        ("354 go on", None),
    ],
)
def test_refusals_are_counted_by_code_and_status(reply: str, label: str | None) -> None:
    history = History()
    ListenerObserver("x", history, None).replied(reply)
    assert counted(history) == ({("refused", label): 1} if label else {})


def test_a_worker_counts_what_attempts_came_to() -> None:
    states = [RecipientState.DELIVERED, RecipientState.BOUNCED, RecipientState.EXPIRED]
    states += [RecipientState.PENDING, RecipientState.BLOCKED]
    update = DeliveryUpdate(
        queue_id="Q",
        delivery_no=0,
        state=DeliveryState.DEFERRED,
        due_at_ms=NOW_MS,
        provider="main",
        reason=None,
        recipients=tuple(
            RecipientUpdate(rcpt_no=n, state=state, reply=None, dsn=None, provider="main")
            for n, state in enumerate(states)
        ),
    )
    history = History()
    report = AttemptReport(provider="main", relay="none", outcomes=())
    history.read([Attempted(claimed(), update, report, NOW_MS)])
    assert counted(history) == {
        ("delivered", "main"): 1,
        ("bounced", "main"): 2,
        ("bounced_for", "expired"): 1,
        ("bounced_for", "other"): 1,
        ("deferred", "main"): 1,
        ("deferred_for", "other"): 1,
    }
    unsent = AttemptReport(provider="", relay="none", outcomes=())
    history.read([Attempted(claimed(), update, unsent, NOW_MS)])
    assert counted(history) == {}


def test_what_is_reported_is_counted_by_provider_and_senders_domain() -> None:
    history = History(counts_senders=True)
    history.read([outcome(sender="News@Shop.test"), outcome(RecipientState.BOUNCED, "550 no")])
    history.read([judged(Kind.HARD), judged(Kind.COMPLAINED, sender="x@NEWS.test")])
    found = counted(history)
    told = {key: n for key, n in found.items() if key[0] in ("sent", "verdicts", "complaints")}
    assert told == {
        ("sent", "shop.test"): 1,
        ("verdicts", "p hard"): 1,
        ("verdicts", "p complained"): 1,
        ("complaints", "news.test"): 1,
    }


def test_of_very_many_senders_the_rest_is_one() -> None:
    history = History(counts_senders=True)
    names = [*range(MAX_DOMAINS + 1), 0, MAX_DOMAINS]
    history.read([outcome(sender=f"a@{name}.test") for name in names])
    sent = {label: n for (series, label), n in counted(history).items() if series == "sent"}
    known = {f"{name}.test": 1 for name in range(MAX_DOMAINS)}
    assert sent == {**known, "0.test": 2, "other": 2}


def test_what_a_front_tells_is_logged_and_counted_twice(state_dir: Path, file: MetricsFile) -> None:
    output, history = io.StringIO(), History()
    observer = FrontObserver(text_log(output), history, FrontMetrics(file))
    message = accepted(source=Source(client="10.0.0.5", listener="x"))
    observer.tell([Accepted(message)])
    observer.wrote(0.1)
    observer.sample()
    assert f"{message.queue_id}: client=unknown[10.0.0.5]" in output.getvalue()
    assert counted(history)["messages", "x"] == 1
    numbers = scraped(exposition(state_dir, [], accept="")[0])
    assert numbers("relaygw_messages_received_total", listener="x") == 1
    assert numbers("relaygw_db_write_seconds_count", role="front") == 1


def test_what_a_worker_tells_is_logged_and_counted_twice(
    state_dir: Path, file: MetricsFile
) -> None:
    output, history = io.StringIO(), History()
    observer = DeliveryObserver(text_log(output), history, DeliveryMetrics(file, ["p"]))
    event = outcome()
    observer.tell([event])
    observer.sample({})
    assert f"{event.claimed.queue_id}: to=<b@cust.test>" in output.getvalue()
    assert counted(history) == {("delivered", "p"): 1}
    numbers = scraped(exposition(state_dir, [], accept="")[0])
    assert numbers("relaygw_recipients_delivered_total", provider="p") == 1


def test_a_log_with_a_defect_keeps_nothing_from_being_counted() -> None:
    history = History()
    log: Any = None  # nothing can be written to it
    with pytest.raises(AttributeError):
        Observer(log, history).tell([outcome()])
    assert counted(history) == {("delivered", "p"): 1}


def test_what_could_not_be_written_is_added_to_what_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1_000_000.0
    monkeypatch.setattr(history_module.time, "time", lambda: now_s)
    history = History()
    history.add(Series.ACCEPTED, "default", 2)
    unwritten = history.take()
    history.add(Series.ACCEPTED, "default")
    history.put_back(unwritten)
    now_s += 300
    history.add(Series.ACCEPTED, "default", 5)
    key = ("accepted", "default")
    assert history.take() == [(999_900_000, {key: 3}), (1_000_200_000, {key: 5})]
    assert history.take() == []


def test_of_too_much_that_waits_the_oldest_goes() -> None:
    history = History()
    counts = {("x", str(k)): 1 for k in range(MAX_COUNTS // 5 * 2)}
    slices = [(n * 300_000, dict(counts)) for n in range(5)]
    history.put_back(slices)
    assert [at_ms for at_ms, _ in history.take()] == [3 * 300_000, 4 * 300_000]


@pytest.mark.parametrize(("took_ms", "bound_ms"), [(0, 10), (180, 200), (10**10, 700_000_000)])
def test_mail_that_comes_to_its_end_is_counted_by_its_time_in_the_queue(
    took_ms: int, bound_ms: int
) -> None:
    update = DeliveryUpdate(
        queue_id="Q",
        delivery_no=0,
        state=DeliveryState.FINISHED,
        due_at_ms=NOW_MS,
        provider="main",
        reason=None,
        recipients=(),
    )
    report = AttemptReport(provider="main", relay="none", outcomes=())
    one, history = claimed(), History()
    history.read([Attempted(one, update, report, one.accepted_at_ms + took_ms)])
    assert counted(history) == {("in_queue", f"main {bound_ms}"): 1}
