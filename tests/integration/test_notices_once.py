"""A notice is neither lost nor made twice: by killed processes, or by several instances."""

from __future__ import annotations

import itertools
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from relaygw.mail.clock import clock_ms
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store.selection import Selection
from relaygw.store.store import Store, open_store
from tests.builders import accepted, instance
from tests.integration import dying_notices
from tests.processes import PROCESSES
from tests.queues import make_queue

PATIENCE_S = 60.0
ALL = Selection(states=frozenset(DeliveryState))


def told(store: Store) -> Counter[str]:
    """Return how many notices each sender gets."""
    found = store.queue.search(ALL, limit=1000)
    return Counter(one.recipients[0].address for one in found if not one.sender)


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
def test_whenever_its_process_is_killed_there_is_one(tmp_path: Path, is_after: bool) -> None:
    for number in itertools.count(1):
        directory = tmp_path / str(number)
        directory.mkdir()
        make_queue(f"sqlite:///{directory}/queue.db")
        store = open_store(f"sqlite:///{directory}/queue.db")
        message = accepted(at_ms=clock_ms())
        store.intake.accept_batch([message])
        was_killed = False
        for incarnation, at in (("first", number), ("second", 0)):
            process = PROCESSES.Process(
                target=dying_notices.work, args=(directory, incarnation, at, is_after)
            )
            process.start()
            process.join(PATIENCE_S)
            assert process.exitcode in (0, -signal.SIGKILL)
            was_killed |= process.exitcode != 0
            store.instances.bury(incarnation)
        (recipient,) = store.queue.entries([message.queue_id])[0].recipients
        assert recipient.state is RecipientState.BOUNCED
        assert told(store) == {"a@shop.test": 1}, number
        (made,) = store.queue.record_of(message.queue_id).notices
        assert len(made.notice_ids) == 1
        store.close()
        if not was_killed:
            break
    assert number > 4, "each write was one to be killed at"


def test_several_instances_make_one_each(queue_url: str, tmp_path: Path) -> None:
    stores = [open_store(queue_url, rules=dying_notices.TELLS) for _ in range(3)]
    one = stores[0]
    one.instances.register(instance("one"))
    senders = [f"s{n}@shop.test" for n in range(30)]
    one.intake.accept_batch([accepted(sender=sender, at_ms=clock_ms()) for sender in senders])
    dying_notices.fail(one, "one")
    makers = [dying_notices.notices_on(store, tmp_path) for store in stores]

    def work(number: int) -> int:
        made: list[object] = []
        while stores[number].notices.due(limit=1):
            makers[number].make_due(made)  # type: ignore[arg-type]
        return len(made)

    with ThreadPoolExecutor(len(stores)) as threads:
        made = list(threads.map(work, range(len(stores))))
    assert told(one) == dict.fromkeys(senders, 1)
    assert sum(made) == len(senders)
    for store in stores:
        store.close()
