"""Answers lost after the final dot, by the hundred: what recipients get in the end.

In a campaign a thousand of each kind. The provider is a real server that remembers keys; with its
memory off it shows that these answers were lost indeed.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.mail.verdict import Event, Kind
from relaygw.policy import retry
from relaygw.roles.delivery import bury_dead
from relaygw.store.feedback import MatchedEvent
from relaygw.store.rules import StoreRules
from relaygw.store.selection import Selection
from relaygw.store.store import Store, open_store
from tests.builders import accepted
from tests.campaign import times
from tests.fakes.keyed_provider import KEYED, SPARED, KeyedProvider
from tests.fakes.scripted_provider import ThreadedProvider
from tests.integration import loyal_worker
from tests.integration.delivery_rig import Rig, running
from tests.processes import PROCESSES

LOST = times(30, campaign=1000)
KILLED_MAIL = times(9, campaign=120)
RULES = StoreRules(doubt_waits={"p": 300.0})
PATIENCE_S = 120.0
STILL_S = 6.0  # without anything new, the last one that is alive waits for a dead provider
BEGUN_MS = time.time_ns() // 1_000_000 - LOST


def mail(count: int, subject: bytes = b"Subject: lost") -> list[AcceptedMessage]:
    """Return messages, a millisecond apart: several lists of them are sent by turns."""
    return [
        accepted(
            f"c{number}@cust.test",
            at_ms=BEGUN_MS + number,
            content=b"%b %d\r\n\r\n" % (subject, number),
        )
        for number in range(count)
    ]


def results(store: Store) -> set[RecipientState]:
    everything = Selection(states=frozenset(DeliveryState))
    return {
        one.state
        for entry in store.queue.search(everything, limit=4 * LOST)
        for one in entry.recipients
    }


async def wait_for_the_end(rig: Rig) -> None:
    while await asyncio.to_thread(loyal_worker.has_work, rig.store):
        rig.worker.wake()
        await asyncio.sleep(0.05)


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("settings", "knows_keys", "extras"),
    [(KEYED, True, 0), (KEYED, False, LOST), ({}, True, LOST)],
    ids=["key", "keys off", "no key"],
)
async def test_extras_after_lost_answers(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    knows_keys: bool,
    extras: int,
) -> None:
    monkeypatch.setattr(retry, "KEYED_LADDER_S", (0.01,))
    monkeypatch.setattr(retry, "DOUBT_LADDER_S", (0.01, 0.01))
    async with (
        KeyedProvider(loses_first=True, knows_keys=knows_keys) as provider,
        running(tmp_path, {"p": provider.settings(**settings)}) as rig,
    ):
        rig.accept(*mail(LOST))
        await wait_for_the_end(rig)
        assert provider.lost == LOST
        assert await asyncio.to_thread(results, rig.store) == {RecipientState.DELIVERED}
        copies = provider.copies()
        assert len(copies) == LOST, "each got it"
        assert provider.extras() == extras
        assert max(copies.values()) <= 2, "one extra at most for a lost answer"


@pytest.mark.campaign
async def test_with_events_nothing_is_sent_again(tmp_path: Path) -> None:
    def ruled(url: str) -> Store:
        return open_store(url, rules=RULES)

    async with (
        KeyedProvider(loses_first=True, knows_keys=False) as provider,
        running(tmp_path, {"p": provider.settings()}, store_class=ruled) as rig,
    ):
        sent = mail(LOST)
        # a provider that answers nobody would be left alone for a while
        rig.accept(*sent, *mail(LOST, SPARED), *mail(LOST, SPARED + b" too"))
        kinds = itertools.cycle(Kind)
        for start in range(0, LOST, 20):  # some before their mail is sent, some after
            events = [_event(one, kinds) for one in sent[start : start + 20]]
            await asyncio.to_thread(rig.store.feedback.take, events)
            await provider.wait_for_messages(start)
        await wait_for_the_end(rig)
        assert provider.lost == LOST
        assert len(provider.messages) == 3 * LOST
        assert await asyncio.to_thread(results, rig.store) == {RecipientState.DELIVERED}
        assert provider.extras() == 0


def _event(message: AcceptedMessage, kinds: itertools.cycle[Kind]) -> MatchedEvent:
    event = Event(key=message.queue_id, kind=next(kinds), at_ms=message.accepted_at_ms)
    return MatchedEvent(provider="p", event=event, queue_id=message.queue_id, rcpt_no=0)


# --- killed ------------------------------------------------------------------------------------


class Fleet:
    """Two instances, each on a host of its own, that are killed in turn while they wait."""

    def __init__(self, url: str, directory: Path, provider: dict[str, Any]) -> None:
        self._url = url
        self._provider = provider
        self._hosts = [directory / "a", directory / "b"]
        self._workers: list[BaseProcess] = []
        self._numbers = itertools.count(1)
        for host in self._hosts:
            host.mkdir()
            self._workers.append(self._start(host))

    def _start(self, host: Path) -> BaseProcess:
        name = f"{host.name}{next(self._numbers)}"
        worker = PROCESSES.Process(
            target=loyal_worker.deliver, args=(self._url, host, name, self._provider)
        )
        worker.start()
        return worker

    def kill(self, place: int, store: Store) -> None:
        """Kill one with what it has in hand, bury it as its host does, and start another."""
        self._workers[place].kill()
        self._workers[place].join(PATIENCE_S)
        bury_dead(self._hosts[place], store)
        self._workers[place] = self._start(self._hosts[place])

    def end(self) -> None:
        for worker in self._workers:
            worker.kill()
            worker.join(PATIENCE_S)


@pytest.mark.campaign
@pytest.mark.parametrize("knows_keys", [True, False], ids=["key", "keys off"])
def test_extras_after_kills_of_two_instances(
    tmp_path: Path, queue_url: str, knows_keys: bool
) -> None:
    options = {"kind": KeyedProvider, "loses_first": True, "hangs_each": 3}
    with ThreadedProvider(knows_keys=knows_keys, **options) as provider:
        settings = provider.settings(**KEYED).model_dump(mode="json") | KEYED
        store = open_store(queue_url, rules=StoreRules(doubt_waits={"p": 0.0}))
        store.intake.accept_batch(mail(KILLED_MAIL))
        fleet = Fleet(queue_url, tmp_path, settings)
        killed_at = 0
        try:
            for place in itertools.cycle([0, 1]):
                # mail that is in the hands of several who die is held
                got, until_s = provider.hung, time.monotonic() + STILL_S
                while provider.hung < killed_at + 2 and time.monotonic() < until_s:
                    if provider.hung + len(provider.messages) != got:
                        got = provider.hung + len(provider.messages)
                        until_s = time.monotonic() + STILL_S
                    time.sleep(0.02)
                if not loyal_worker.has_work(store):
                    break
                killed_at = provider.hung
                fleet.kill(place, store)
        finally:
            fleet.end()
        copies = provider.copies()
        assert provider.hung >= KILLED_MAIL // 3
        assert results(store) == {RecipientState.DELIVERED}
        store.close()
        assert len(copies) == KILLED_MAIL, "each got it"
        assert provider.extras() == 0 if knows_keys else provider.extras() >= KILLED_MAIL // 2
