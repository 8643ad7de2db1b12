"""A time that bounds a search belongs to what is found, on every database, whatever is searched."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from relaygw.mail.search import Field, MailSearch, Term
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store.audit import Trail
from relaygw.store.selection import Selection
from relaygw.store.store import Store
from tests.builders import NOW_MS, accepted
from tests.contract.captured import AUDITED, indexed
from tests.contract.test_find import accept, end

Look = Callable[[Store, int, int], Sequence[object]]
BOUNCED = RecipientState.BOUNCED


def between(since_ms: int, until_ms: int, *more: Term) -> MailSearch:
    after = Term(field=Field.AFTER, number=since_ms)
    return MailSearch(terms=(*more, after, Term(field=Field.BEFORE, number=until_ms)))


def bounce(store: Store) -> None:
    end(store, accept(store, "b@cust.test"), BOUNCED, at_ms=NOW_MS)


def captured(store: Store, since_ms: int, until_ms: int) -> Sequence[object]:
    search = between(since_ms, until_ms)
    return store.sandbox.captured_ids(search, limit=9)


def bounced(store: Store, since_ms: int, until_ms: int) -> Sequence[object]:
    search = between(since_ms, until_ms, Term(field=Field.OUTCOME, text=BOUNCED.value))
    return store.find.find(search, limit=9).entries


def selected(store: Store, since_ms: int, until_ms: int) -> Sequence[object]:
    every, results = frozenset(DeliveryState), frozenset({BOUNCED})
    of_time = Selection(states=every, results=results, since_ms=since_ms, until_ms=until_ms)
    return store.queue.search_ids(of_time, limit=9)


def waiting(store: Store, since_ms: int, until_ms: int) -> Sequence[object]:
    return store.queue.search_ids(Selection(since_ms=since_ms, until_ms=until_ms), limit=9)


def trail(store: Store, since_ms: int, until_ms: int) -> Sequence[object]:
    return store.audit.entries(limit=9, trail=Trail(since_ms=since_ms, until_ms=until_ms))


@pytest.mark.parametrize(
    ("put", "look"),
    [
        (lambda store: store.audit.add(AUDITED), trail),
        (indexed, captured),
        (bounce, bounced),
        (bounce, selected),
        (lambda store: store.intake.accept_batch([accepted()]), waiting),
    ],
    ids=["audit", "captured", "found by its end", "listed by its end", "waiting"],
)
def test_both_ends_of_a_time_belong_to_it(
    store: Store, put: Callable[[Store], object], look: Look
) -> None:
    put(store)
    assert len(look(store, NOW_MS, NOW_MS)) == 1
    assert len(look(store, NOW_MS - 1, NOW_MS + 1)) == 1
    assert not look(store, NOW_MS + 1, NOW_MS + 1)
    assert not look(store, NOW_MS - 1, NOW_MS - 1)
