from __future__ import annotations

import pytest
from starlette.datastructures import QueryParams

from relaygw.mail.search import Field
from relaygw.mail.state import OPEN, DeliveryState
from relaygw.operations.selectors import ANY_STATE
from relaygw.web.page import Problem
from relaygw.web.queue.selection import read_conditions

NOW = 1_795_600_000_000


def test_nothing_asked_for_is_all_that_waits() -> None:
    conditions = read_conditions(QueryParams("subject=&state=&after=X"), now_ms=NOW)
    assert conditions.given == {}
    assert conditions.selection.states == OPEN
    assert conditions.path() == "/queue"


def test_conditions_become_a_selection_and_a_path_again() -> None:
    conditions = read_conditions(
        QueryParams(
            "subject=a+b&state=held&state=deferred,active&older_than=4h&id=abc&sender=%3C%3E"
        ),
        now_ms=NOW,
    )
    terms = {term.field: term.text for term in conditions.selection.terms}
    assert terms == {Field.SUBJECT: "a b", Field.FROM: "<>"}
    assert conditions.one("sender") == "<>"
    assert conditions.selection.queue_ids == ("ABC",)
    assert conditions.selection.accepted_before_ms == NOW - 4 * 3_600_000
    assert conditions.selection.states == {
        DeliveryState.HELD,
        DeliveryState.DEFERRED,
        DeliveryState.ACTIVE,
    }
    again = read_conditions(QueryParams(conditions.path(after="X").partition("?")[2]), now_ms=NOW)
    assert again == conditions


def test_ids_are_found_in_every_state() -> None:
    assert read_conditions(QueryParams("id=A&id=B"), now_ms=NOW).selection.states == ANY_STATE
    assert read_conditions(QueryParams("state=all"), now_ms=NOW).selection.states == ANY_STATE


@pytest.mark.parametrize(
    "query",
    ["state=lost", "state=held,lost", "older_than=4", "older_than=x", f"subject={'x' * 1001}"],
)
def test_what_selects_nothing_is_an_error(query: str) -> None:
    with pytest.raises(Problem) as caught:
        read_conditions(QueryParams(query), now_ms=NOW)
    assert caught.value.status_code == 400
    assert caught.value.expected


def test_a_condition_is_set_and_taken_away() -> None:
    conditions = read_conditions(QueryParams("subject=x&state=held"), now_ms=NOW)
    assert conditions.changed({"state": ""}).path() == "/queue?subject=x"
    assert conditions.changed({"route": "r"}).path() == "/queue?subject=x&state=held&route=r"


def test_the_earlier_of_two_limits_holds() -> None:
    conditions = read_conditions(QueryParams("older_than=1h"), now_ms=NOW)
    assert conditions.narrowed(OPEN, NOW) == conditions
    found = conditions.narrowed(OPEN, 5)
    assert found is not None
    assert found.selection.accepted_before_ms == 5


def test_no_state_in_common_is_no_message() -> None:
    conditions = read_conditions(QueryParams("state=held"), now_ms=NOW)
    assert conditions.narrowed(frozenset({DeliveryState.DEFERRED}), NOW) is None
    found = conditions.narrowed(OPEN, NOW)
    assert found is not None
    assert found.selection.states == {DeliveryState.HELD}
