"""SIGKILL before and after each transaction of a delivery worker: what is sent twice is told."""

from __future__ import annotations

import itertools
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relaygw.mail.attempt_state import AttemptState
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.roles.delivery import bury_dead
from relaygw.store.selection import Selection
from relaygw.store.store import open_store
from tests.builders import NOW_MS, accepted
from tests.campaign import times
from tests.fakes.scripted_provider import ThreadedProvider
from tests.integration import dying_worker
from tests.processes import PROCESSES
from tests.queues import make_queue

PATIENCE_S = 60.0
STRIDE = times(3, campaign=1)
PART = 2
TOLD = (AttemptState.IN_DOUBT, AttemptState.INTERRUPTED)


@pytest.fixture(scope="module")
def provider() -> Iterator[ThreadedProvider]:
    with ThreadedProvider() as provider:
        yield provider


class Killed:
    """A queue whose worker was killed at one of its writes."""

    def __init__(
        self,
        provider: ThreadedProvider,
        directory: Path,
        settings: dict[str, Any],
    ) -> None:
        self._provider = provider
        self._directory = directory
        self._settings = provider.settings(**settings).model_dump(mode="json") | settings
        self.store = open_store(f"sqlite:///{directory}/queue.db")

    def deliver(self, incarnation: str, *, number: int = 0, is_after: bool = False) -> bool:
        """Return True if the worker was killed, False if it came to its end."""
        worker = PROCESSES.Process(
            target=dying_worker.deliver,
            args=(self._directory, incarnation, self._settings, number, is_after),
        )
        worker.start()
        worker.join(PATIENCE_S)
        assert worker.exitcode in (0, -signal.SIGKILL), worker.exitcode
        return worker.exitcode != 0

    def copies(self) -> Counter[str]:
        return Counter(
            address for message in self._provider.messages for address in message.recipients
        )

    def told(self) -> set[str]:
        """Return the recipients that are written down as perhaps sent twice."""
        return {
            one.address
            for entry in self.store.queue.search(Selection(states=ALL), limit=100)
            for attempt in self.store.queue.attempts(entry.queue_id)
            if attempt.state in TOLD
            for one in entry.recipients
            if attempt.rcpt_no in (None, one.rcpt_no)
        }

    def recorded(self) -> set[str]:
        """Return the recipients whose delivery is durable."""
        return {
            one.address
            for entry in self.store.queue.search(Selection(states=ALL), limit=100)
            for one in entry.recipients
            if one.state is RecipientState.DELIVERED
        }


ALL = frozenset(DeliveryState)


@pytest.mark.campaign
@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("recipients", "settings"),
    [
        ((6,), {"max_recipients": PART}),
        ((1, 1, 1), {"chain_transactions": True, "max_connections": 1}),
    ],
    ids=["parts", "chained"],
)
def test_killed_at_any_write_nothing_is_sent_twice_untold(
    provider: ThreadedProvider,
    tmp_path: Path,
    recipients: tuple[int, ...],
    settings: dict[str, Any],
    is_after: bool,
) -> None:
    empty = tmp_path / "queue.db"
    make_queue(f"sqlite:///{empty}")
    # after a write is nearly before the next: one of them is tried between any two
    for number in itertools.count(1, STRIDE):
        directory = tmp_path / str(number)
        directory.mkdir()
        shutil.copy(empty, directory)
        killed = Killed(provider, directory, settings)
        mail = [
            accepted(
                *(f"r{n}-{place}-{number}-{tmp_path.name}@cust.test" for n in range(count)),
                at_ms=NOW_MS + place,
            )
            for place, count in enumerate(recipients)
        ]
        killed.store.intake.accept_batch(mail)
        was_killed = killed.deliver("one", number=number, is_after=is_after)
        bury_dead(directory / "instances", killed.store)
        recorded, told, before = killed.recorded(), killed.told(), killed.copies()
        assert not killed.deliver("two")
        everyone = {one.address for part in mail for one in part.deliveries[0].recipients}
        copies = {address: killed.copies()[address] for address in everyone}
        killed.store.close()
        twice = {address for address, count in copies.items() if count > 1}
        assert min(copies.values()) == 1, f"write {number}: {copies}"
        assert twice <= told, f"write {number}: sent twice and not told: {twice - told}"
        assert not twice & recorded, f"write {number}: sent again what was recorded"
        assert all(before[address] == 1 for address in twice)
        assert len(twice) <= PART, f"write {number}: more than one transaction was sent again"
        if not was_killed:
            break
    assert number > 5, "the worker hardly wrote anything"
