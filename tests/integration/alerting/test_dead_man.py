"""The dead-man's signal: who calls, when, and what a receiver may do; on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relaygw.alerting.dead_man import DeadMansSignal
from relaygw.alerting.facts import Finding, QueueFacts
from relaygw.alerting.mail_trouble import mail_trouble
from relaygw.alerting.notifier import Notifier
from relaygw.alerting.watch import Watch
from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import NewDelivery, NewRecipient
from relaygw.observe.history import Series
from relaygw.settings.alerts import Rule
from relaygw.settings.model import Settings
from relaygw.settings.secrets import SecretUrl
from relaygw.store import home
from relaygw.store.home import Machine
from relaygw.store.instances import STALE_AFTER_S
from relaygw.store.store import Store
from relaygw.store.watch import HistoryPoint
from tests.builders import accepted, instance
from tests.fakes.notice_receiver import Behaviour, NoticeReceiver

MINUTE_MS = 60_000


def settings(url: str = "", **more: Any) -> Settings:
    return Settings.model_validate(
        {
            "mode": "production",
            "hostname": "gw.test",
            "listeners": [{"bind": "127.0.0.1:25"}],
            "providers": {"main": {"host": "smtp.example.com"}},
            "routes": [
                {
                    "name": "news",
                    "providers": ["main"],
                    "stream": "promotional",
                    "sender": ["@news.test"],
                },
                {"name": "default", "providers": ["main"]},
            ],
            "heartbeat_url": url or None,
            **more,
        }
    )


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - nobody signals it
            await asyncio.sleep(0.02)


@pytest.fixture
def receiver() -> Iterator[NoticeReceiver]:
    with NoticeReceiver() as receiver:
        yield receiver


# --- whether all is well ----------------------------------------------------------------------


def trouble(
    store: Store,
    directory: Path,
    *findings: Finding,
    now_ms: int = 0,
    claimed_s: float = 1.0,
    delivered: int = 0,
    **more: Any,
) -> str | None:
    now_ms = now_ms or clock_ms()
    points = (
        HistoryPoint(
            slice_at_ms=now_ms, series=Series.DELIVERED.value, label="main", amount=delivered
        ),
    )
    return mail_trouble(
        store,
        settings(**more),
        QueueFacts(lanes=store.queue.counts(), points=points if delivered else ()),
        findings,
        state_dir=directory,
        claimed_s=claimed_s,
        now_ms=now_ms,
    )


def test_all_is_well_while_mail_is_accepted_claimed_and_not_late(
    store: Store, tmp_path: Path
) -> None:
    assert trouble(store, tmp_path) == "no front is registered"
    store.instances.register(instance("f1", role="front"))
    assert trouble(store, tmp_path) is None, "a night without mail is no trouble"
    later_ms = clock_ms() + int(STALE_AFTER_S * 1000) + 1000
    assert trouble(store, tmp_path, now_ms=later_ms) == "no front has sent a heartbeat for 15 s"
    store.instances.heartbeat("f1", state="draining")
    assert trouble(store, tmp_path) == "every front is stopping"
    store.instances.heartbeat("f1")
    refusing = Finding(Rule.FRONT_REFUSING, "", "", "")
    assert trouble(store, tmp_path, refusing) == "the front refuses mail"
    full = trouble(store, tmp_path, queue={"min_free": "100%"})
    assert full == "the front refuses mail"
    assert trouble(store, tmp_path / "gone") == "the front refuses mail"
    slow = "the delivery worker has not looked for due mail for 30 s"
    assert trouble(store, tmp_path, claimed_s=31) == slow


def test_a_copy_of_a_production_host_does_not_speak_for_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home, "this_machine", lambda: Machine("here"))
    store.instances.register(instance("f1", role="front"))
    store.homes.learn(home.Home(mark="elsewhere", hostname="shop1.test", since_ms=clock_ms()))
    assert "another machine" in str(trouble(store, tmp_path))
    assert trouble(store, tmp_path, mode="staging") is None


def test_mail_is_late_when_it_is_due_for_five_minutes(store: Store, tmp_path: Path) -> None:
    store.instances.register(instance("f1", role="front"))
    now_ms = clock_ms()
    store.intake.accept_batch([accepted(at_ms=now_ms - 4 * MINUTE_MS)])
    assert trouble(store, tmp_path, now_ms=now_ms) is None
    store.intake.accept_batch([accepted(at_ms=now_ms - 6 * MINUTE_MS)])
    late = trouble(store, tmp_path, now_ms=now_ms, delivered=5)
    assert late == "mail of route default is due for more than five minutes"


def test_a_newsletter_that_waits_its_turn_is_not_late(store: Store, tmp_path: Path) -> None:
    store.instances.register(instance("f1", role="front"))
    now_ms = clock_ms()
    part = NewDelivery(
        route="news", stream="promotional", recipients=(NewRecipient(address="b@cust.test"),)
    )
    store.intake.accept_batch([accepted(at_ms=now_ms - 9 * MINUTE_MS, deliveries=(part,))])
    assert trouble(store, tmp_path, now_ms=now_ms, delivered=5) is None
    stands = trouble(store, tmp_path, now_ms=now_ms)
    assert stands == "mail of route news is due for more than five minutes"


# --- the call ---------------------------------------------------------------------------------


async def beats(signal: DeadMansSignal, trouble: str | None = None) -> None:
    signal.beat(trouble)
    await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("behaviour", "limit_s", "told"),
    [
        (Behaviour.HANG, 1, "no answer within 1 s"),
        (Behaviour.DRIP, 1, "no answer within 1 s"),
        (Behaviour.FAIL, 60, "the answer was 500"),
        (Behaviour.REDIRECT, 60, "the answer was 307"),
        (Behaviour.CLOSE, 60, ""),
    ],
)
async def test_a_bad_receiver_is_asked_again_and_told_of_once(
    receiver: NoticeReceiver, behaviour: Behaviour, limit_s: float, told: str
) -> None:
    receiver.behaviour, notes = behaviour, list[str]()
    url = SecretUrl.parse(receiver.url)
    signal = DeadMansSignal(url, notes.append, each_s=0.05, limit_s=limit_s)
    while receiver.asked < 3:  # one that hangs never has two calls
        await beats(signal)
    await wait_until(lambda: bool(notes))
    assert len(notes) == 1
    assert notes[0].startswith(f"warning: heartbeat_url was called in vain: {told}")
    receiver.behaviour = Behaviour.ANSWER
    while len(notes) < 2:
        await beats(signal)
    assert notes[1] == "heartbeat_url is called each minute"
    taken = len(receiver.bodies)
    while len(notes) < 3:
        await beats(signal, "every front is stopping")
    assert notes[2] == "warning: heartbeat_url is not called: every front is stopping"
    assert len(receiver.bodies) <= taken + 1
    assert not any("secret" in line or "127.0.0.1" in line for line in notes)
    signal.stop()


async def test_a_reference_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    notes = list[str]()
    signal = DeadMansSignal(SecretUrl.parse(f"file:{tmp_path}/none"), notes.append)
    signal.beat(None)
    await wait_until(lambda: bool(notes))
    assert "in vain" in notes[0]
    assert f"{tmp_path}/none" in notes[0]


async def test_of_two_gateways_one_calls_until_it_dies(
    store: Store, tmp_path: Path, receiver: NoticeReceiver
) -> None:
    configured = settings(receiver.url)
    store.instances.register(instance("f1", role="front"))
    signals, tasks = {}, {}
    for name in ("a", "b"):
        store.instances.register(replace(instance(name), name=f"gw-{name}"))
        here = configured.model_copy(update={"hostname": f"gw-{name}"})
        watch = Watch(
            settings=here,
            store=store,
            incarnation=name,
            state_dir=tmp_path,
            notifier=Notifier(here, [], store, lambda _line: None),
            note=lambda _line: None,
            look_s=0.02,
            call_s=0.05,
        )
        signals[name] = watch
        tasks[name] = asyncio.create_task(watch.run())
        if name == "a":
            await asyncio.to_thread(receiver.wait_for, 1)
    first = receiver.asked
    await asyncio.to_thread(receiver.wait_for_asked, first + 3)
    assert [name for name, watch in signals.items() if watch.is_on_duty] == ["a"]
    assert signals["b"].signal is not None
    assert signals["b"].signal.calling is None, "only one calls"
    tasks["a"].cancel()
    await asyncio.gather(tasks["a"], return_exceptions=True)
    before = receiver.asked
    await asyncio.to_thread(store.instances.bury, "a")
    await asyncio.to_thread(receiver.wait_for_asked, before + 2)
    await asyncio.to_thread(store.instances.heartbeat, "f1", state="draining")
    await wait_until(lambda: signals["b"].trouble is not None)
    tasks["b"].cancel()
    await asyncio.gather(tasks["b"], return_exceptions=True)
