"""What is counted for the history, and that counts outlive a queue that is away."""

from __future__ import annotations

from typing import Any

import pytest

from relaygw.mail.envelope import DeliveryUpdate, NewRecipient, RecipientUpdate, Source
from relaygw.mail.outcome import AttemptReport
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.observe.history import tally as tally_module
from relaygw.observe.history.delivery import DeliveryHistory
from relaygw.observe.history.front import FrontHistory
from relaygw.observe.history.series import Series
from relaygw.observe.history.tally import HistoryTally
from relaygw.observe.metrics.meters import SILENT
from tests.builders import NOW_MS, accepted, claimed


def counted(tally: HistoryTally) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for _, counts in tally.take():
        for key, count in counts.items():
            found[key] = found.get(key, 0) + count
    return found


def test_a_front_counts_messages_and_what_becomes_of_their_recipients() -> None:
    tally = HistoryTally()
    meter = FrontHistory(SILENT, tally)
    captured = NewRecipient(
        address="x@y.test", state=RecipientState.CAPTURED, reason="sandbox mode"
    )
    blocked = NewRecipient(address="z@y.test", state=RecipientState.BLOCKED)
    meter.accepted([accepted("a@y.test", "b@y.test", captured, blocked), accepted("c@y.test")])
    meter.accepted([accepted(source=Source(listener="127.0.0.1:25"))])
    assert counted(tally) == {
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
    tally = HistoryTally()
    FrontHistory(SILENT, tally).listener("x").replied(reply)
    assert counted(tally) == ({("refused", label): 1} if label else {})


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
    tally = HistoryTally()
    meter = DeliveryHistory(SILENT, tally)
    report = AttemptReport(provider="main", relay="none", outcomes=())
    meter.settled(claimed(), update, report, now_ms=NOW_MS)
    assert counted(tally) == {
        ("delivered", "main"): 1,
        ("bounced", "main"): 2,
        ("bounced_for", "expired"): 1,
        ("bounced_for", "other"): 1,
        ("deferred", "main"): 1,
        ("deferred_for", "other"): 1,
    }
    unsent = AttemptReport(provider="", relay="none", outcomes=())
    meter.settled(claimed(), update, unsent, now_ms=NOW_MS)
    assert counted(tally) == {}


def test_the_meter_behind_hears_everything() -> None:
    heard: list[str] = []

    class Listening:
        def __getattr__(self, name: str) -> Any:
            def hear(*_: object, **__: object) -> Any:
                heard.append(name)
                return self

            return hear

    meter: Any = Listening()
    front = FrontHistory(meter, HistoryTally())
    front.accepted([])
    front.wrote(0.1)
    front.sample()
    listener = front.listener("x")
    listener.replied("250 Ok")
    listener.sample(3)
    assert heard == ["accepted", "wrote", "sample", "listener", "replied", "sample"]


def test_what_could_not_be_written_is_added_to_what_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1_000_000.0
    monkeypatch.setattr(tally_module.time, "time", lambda: now_s)
    tally = HistoryTally()
    tally.add(Series.ACCEPTED, "default", 2)
    unwritten = tally.take()
    tally.add(Series.ACCEPTED, "default")
    tally.put_back(unwritten)
    now_s += 300
    tally.add(Series.ACCEPTED, "default", 5)
    key = ("accepted", "default")
    assert tally.take() == [(999_900_000, {key: 3}), (1_000_200_000, {key: 5})]
    assert tally.take() == []


def test_of_too_much_that_waits_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally_module, "MAX_COUNTS", 10)
    tally = HistoryTally()
    slices = [(n * 300_000, {("x", str(k)): 1 for k in range(4)}) for n in range(5)]
    tally.put_back(slices)
    assert [at_ms for at_ms, _ in tally.take()] == [3 * 300_000, 4 * 300_000]
