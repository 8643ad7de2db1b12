"""Lists by result look at an index, or go through ids from the newest on; counts never scan."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from relaygw.mail.attempt_state import PUT_OFF
from relaygw.mail.state import RARE_RESULTS, DeliveryState, RecipientState
from relaygw.store.store import Store, open_store
from tests.builders import selected
from tests.queues import make_queue

R = RecipientState
RARE = "SEARCH recipient USING COVERING INDEX recipient_outcome (state=? AND changed_at_ms>?"
ANY_TIME = "SEARCH recipient USING COVERING INDEX recipient_outcome (state=?)"


def plan_of(store: Store, verb: Callable[[Store], object]) -> list[str]:
    """Return the steps of the first statement of a verb."""
    return plans_of(store, verb)[0]


def plans_of(store: Store, verb: Callable[[Store], object]) -> list[list[str]]:
    """Return the steps of each statement of a verb."""
    steps: list[list[str]] = []

    def explain(
        connection: Connection, _cursor: object, sql: str, parameters: object, *_more: object
    ) -> None:
        raw: Any = connection.connection.dbapi_connection
        if sql.startswith("SELECT"):
            rows = raw.execute("EXPLAIN QUERY PLAN " + sql, parameters)
            steps.append([row[3] for row in rows])

    event.listen(Engine, "before_cursor_execute", explain)
    try:
        verb(store)
    finally:
        event.remove(Engine, "before_cursor_execute", explain)
    return steps


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    url = f"sqlite:///{Path(tmp_path_factory.mktemp('plans'))}/queue.db"
    make_queue(url)
    return open_store(url)


def listed(*results: R, newest_first: bool = True, **more: Any) -> Callable[[Store], object]:
    """Return the search for a page of messages with these results."""
    states = frozenset(DeliveryState)
    selection = selected(results=frozenset(results), **{"states": states, **more})
    return lambda store: store.queue.search_ids(selection, limit=9, newest_first=newest_first)


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("result", sorted(RARE_RESULTS))
def test_rare_results_are_read_from_their_index(
    store: Store, result: R, newest_first: bool
) -> None:
    order = {"newest_first": newest_first}
    assert plan_of(store, listed(result, **order))[1] == ANY_TIME
    assert plan_of(store, listed(result, since_ms=1, until_ms=2, **order))[1].startswith(RARE)
    found = plan_of(store, listed(result, since_ms=1, recipient="anna", **order))
    assert found[1].startswith(RARE.replace("COVERING ", ""))
    two = plan_of(store, listed(result, R.BOUNCED, since_ms=1, subject="order", **order))
    assert any("recipient_outcome" in step for step in two)
    assert not any(step.startswith("SCAN message") or step == "SCAN recipient" for step in two)


def test_captured_mail_is_read_from_its_index(store: Store) -> None:
    for more in ({}, {"since_ms": 1}, {"recipient": "anna"}):
        steps = plan_of(store, listed(R.CAPTURED, **more))
        assert "USING COVERING INDEX message_captured" in steps[1]


@pytest.mark.parametrize("results", [(R.DELIVERED,), (R.DELIVERED, R.BOUNCED)])
def test_delivered_mail_is_walked_through_in_the_order_of_ids(
    store: Store, results: tuple[R, ...]
) -> None:
    for more in ({}, {"since_ms": 1}, {"until_ms": 2}):
        steps = plan_of(store, listed(*results, **more))
        assert not any("TEMP B-TREE" in step for step in steps)


def test_what_was_put_off_is_read_from_its_index(store: Store) -> None:
    window: dict[str, int] = {"since_ms": 1, "until_ms": 2}
    for more in ({}, window, {"provider": "main", **window}, {"domain": "x.test", **window}):
        steps = plan_of(store, listed(attempts=frozenset(PUT_OFF), **more))
        way = "SEARCH" if more else "SCAN"
        assert re.match(f"{way} attempt USING (COVERING )?INDEX attempt_put_off", steps[1])


def test_failures_are_read_from_their_indexes(store: Store) -> None:
    plans = plans_of(store, lambda store: store.queue.failures(1, step_ms=9, limit=9))
    assert len(plans) == 6
    for steps in plans:
        assert any(re.search("(recipient_outcome|attempt_put_off) [(]", step) for step in steps)
        assert not any("SCAN" in step for step in steps)


def test_counts_look_at_what_is_new_alone(store: Store) -> None:
    (step, *_) = plan_of(store, lambda store: store.queue.count_results(1))
    assert step.startswith(RARE)
