from __future__ import annotations

from pathlib import Path

import pytest

from relaygw.delivery.gate import Gate
from relaygw.delivery.holds import Holds
from relaygw.delivery.permits import Permits, share_out
from relaygw.delivery.shares import Shares
from relaygw.policy.recipients import Screen
from relaygw.settings.provider import Provider
from relaygw.store.store import open_store
from tests.builders import NOW_MS, accepted, instance
from tests.queues import make_queue, queue_with_worker
from tests.tables import each_of
from tests.unit.delivery.worker_context import worker_context


def gate(permits: int, in_flight: int) -> Gate:
    settings = Provider(host="h.test", port=25, tls="none")
    return Gate(provider="p", settings=settings, permits=permits, in_flight=in_flight)


@each_of(
    ("before", "held", "after"),
    [
        ([(3, 1)], 3, [3]),
        ([(3, 1)], 5, [5]),
        ([(3, 3)], 1, [1]),
        ([(3, 1)], 0, [0]),
        ([(3, 3), (4, 0)], 5, [3, 2]),  # from the one that uses none
        ([(3, 3), (4, 0)], 2, [2, 0]),
        ([(3, 3), (0, 0), (2, 1)], 9, [3, 0, 6]),
        ([(0, 0), (0, 0)], 0, [0, 0]),
    ],
)
def test_permits_of_an_account_add_up_to_what_the_store_says(
    before: list[tuple[int, int]], held: int, after: list[int]
) -> None:
    gates = [gate(*each) for each in before]
    share_out(gates, held)
    assert [each.permits for each in gates] == after


@pytest.mark.parametrize(
    ("is_asking", "in_flight", "connections", "is_sharing", "left"),
    [
        (False, 1, 2, True, 2),
        (False, 3, 2, True, 3),
        (False, 1, 2, False, 4),  # nobody else wants them
        (True, 1, 2, True, 4),  # what is asked for is meant for something
    ],
)
async def test_spare_permits_are_given_back(
    tmp_path: Path, is_asking: bool, in_flight: int, connections: int, is_sharing: bool, left: int
) -> None:
    store = queue_with_worker(tmp_path)
    made = gate(0, in_flight)
    permits = Permits(worker_context(store), [made])
    await permits.acquire(made, 4)
    assert made.permits == 4
    made.is_asking = is_asking
    await permits.return_spare(made, connections, is_sharing=is_sharing)
    assert made.permits == left
    assert store.limits.permits_held("p", incarnation="w") == left
    store.close()


async def test_quota_that_came_back_meanwhile_is_not_asked_for(tmp_path: Path) -> None:
    """Nor given back by the way: an answer that is lost would have it given back once more."""
    url = f"sqlite:///{tmp_path}/queue.db"
    make_queue(url)
    store = open_store(url)
    settings = Provider(host="h.test", daily_quota=4)
    limited = Gate(provider="p", settings=settings, permits=1)
    context = worker_context(store)
    shares = Shares(
        context, [limited], Holds(context, {}, Screen(context.settings)), lambda _: None
    )
    assert store.limits.use_quota(limited.limit_group, wanted=4, quota=4).granted == 4
    limited.allowance.quota_left = 3
    store.instances.register(instance("w"))
    store.intake.accept_batch([accepted()])
    (claimed,) = store.leases.claim("default", limit=1, incarnation="w", now_ms=NOW_MS)
    assert await shares.more_quota(limited, claimed)
    assert (limited.allowance.quota_left, store.limits.quota_used(limited.limit_group)) == (3, 4)
    store.close()
