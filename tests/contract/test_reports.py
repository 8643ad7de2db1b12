"""Mail by what was reported of it after a provider's 250, on every database, and how it goes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from sqlalchemy import func, select, update

from relaygw.mail.envelope import NewDelivery, NewRecipient
from relaygw.mail.queue_id import QueueIdSource
from relaygw.mail.result import ASKED
from relaygw.mail.search import parse_find
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.mail.verdict import FAILED, Kind
from relaygw.operations.selectors import selection_of
from relaygw.store.feedback import MatchedEvent
from relaygw.store.queue_tables import message, recipient
from relaygw.store.reports import MOST_REPORTS
from relaygw.store.side_tables import provider_event, verdict
from relaygw.store.store import Store
from tests.builders import NOW_MS, accepted
from tests.reported import report, told

R, K = RecipientState, Kind
HOUR_MS = 3_600_000
EVERY = frozenset(DeliveryState)
_steps = itertools.count()


def ended(store: Store, *results: R, provider: str = "main", **more: Any) -> str:
    """Store a message whose recipients came to results; those who got it got it by a provider."""
    people = tuple(
        NewRecipient(address=f"{n}.{result}@cust.test", state=result)
        for n, result in enumerate(results)
    )
    part = NewDelivery(route="default", stream="transactional", recipients=people)
    queue_id = QueueIdSource().next_id(NOW_MS + next(_steps))
    store.intake.accept_batch([accepted(queue_id=queue_id, deliveries=(part,), **more)])
    mine = update(recipient).where(recipient.c.queue_id == queue_id)
    with store.database.write() as tx:
        tx.execute(mine.values(changed_at_ms=NOW_MS, provider=provider))
        tx.execute(
            update(message).where(message.c.queue_id == queue_id).values(finished_at_ms=NOW_MS)
        )
    return queue_id


def listed(store: Store, *words: str, newest_first: bool = True, **more: Any) -> list[str]:
    values = {"result": words, **more}
    selection = selection_of(values, default_states=EVERY, now_ms=NOW_MS)
    return store.queue.search_ids(selection, limit=100, newest_first=newest_first)


def looked_for(store: Store, text: str) -> list[str]:
    return [one.queue_id for one in store.find.find(parse_find(text), limit=100).entries]


@pytest.fixture
def mail(store: Store) -> dict[str, str]:
    """Return mail that came to all kinds of ends: queue ids by what was reported last."""
    ids = {"plain": ended(store, R.DELIVERED), "refused": ended(store, R.BOUNCED)}
    for kind in Kind:
        ids[kind.value] = ended(store, R.DELIVERED, sender=f"{kind}@shop.test")
        report(store, ids[kind.value], kind, at_ms=NOW_MS + 1000)
    return ids


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("returned", sorted(FAILED)),
        ("bounced", [*sorted(FAILED), "refused"]),
        ("refused", ["refused"]),
        ("complained", ["complained"]),
        ("unsubscribed", ["unsubscribed"]),
        ("arrived", ["delivered", "unsubscribed", "complained"]),
        ("delivered", ["plain", *Kind]),
    ],
)
def test_each_word_finds_what_came_to_it(
    store: Store, mail: dict[str, str], word: str, expected: list[str]
) -> None:
    wanted = {mail[one] for one in expected}
    assert set(listed(store, word)) == set(looked_for(store, f"is:{word}")) == wanted
    assert listed(store, word, newest_first=False) == sorted(wanted)
    assert set(looked_for(store, f"-is:{word}")) == set(mail.values()) - wanted
    assert set(looked_for(store, f"is:{word} from:shop.test")) == wanted
    assert set(ASKED) >= {word}


def test_several_words_find_the_mail_of_each(store: Store, mail: dict[str, str]) -> None:
    few = listed(store, "refused", "complained")
    assert few == sorted([mail["refused"], mail["complained"]], reverse=True)
    assert set(listed(store, "bounced", "complained", "delivered")) == set(mail.values())
    assert set(listed(store, "arrived", "refused")) == {
        mail[one] for one in ("delivered", "unsubscribed", "complained", "refused")
    }


def test_pages_follow_one_another(store: Store, mail: dict[str, str]) -> None:
    for word in ("bounced", "returned", "arrived"):
        search, pages, before = parse_find(f"is:{word}"), [], ""
        while True:
            page = store.find.find(search, limit=1, before=before)
            pages += [one.queue_id for one in page.entries]
            if not page.next:
                break
            before = page.next
        assert sorted(pages) == sorted(listed(store, word))
        selection = selection_of({"result": [word]}, default_states=EVERY, now_ms=NOW_MS)
        seen: list[str] = []
        while found := store.queue.search_ids(
            selection, limit=2, after=seen[-1] if seen else "", newest_first=True
        ):
            seen += found
        assert seen == listed(store, word)


def test_times_are_those_of_the_report(store: Store) -> None:
    queue_id = ended(store, R.DELIVERED)
    refused = ended(store, R.BOUNCED)
    report(store, queue_id, K.HARD, at_ms=NOW_MS + 60_000)
    assert listed(store, "returned", since=NOW_MS + 60_000) == [queue_id]
    assert listed(store, "returned", since=NOW_MS + 60_001) == []
    assert listed(store, "returned", until=NOW_MS + 59_999) == []
    assert listed(store, "bounced", since=NOW_MS + 1) == [queue_id]
    assert listed(store, "bounced", until=NOW_MS) == [refused]
    at_s = NOW_MS // 1000 + 30
    assert looked_for(store, f"is:bounced after:{at_s}") == [queue_id]
    assert looked_for(store, f"is:bounced before:{at_s}") == [refused]
    assert listed(store, "delivered", since=NOW_MS + 1) == []


def test_conditions_are_about_the_recipient_that_was_reported(store: Store) -> None:
    queue_id = ended(store, R.DELIVERED, R.DELIVERED, sender="news@shop.test")
    report(store, queue_id, K.HARD, rcpt_no=1, at_ms=NOW_MS, detail="550 No such mailbox")
    assert listed(store, "returned", recipient="1.del") == [queue_id]
    assert listed(store, "returned", recipient="0.del") == []
    assert listed(store, "returned", domain="CUST.test", provider="main") == [queue_id]
    assert listed(store, "returned", provider="other") == []
    assert listed(store, "returned", reply="no such") == [queue_id]
    assert listed(store, "refused", reply="no such") == []
    assert listed(store, "returned", route="default", subject="x") == [queue_id]
    assert listed(store, "returned", sender_domain="shop.TEST") == [queue_id]
    assert listed(store, "returned", sender_domain="hop.test") == []
    assert listed(store, "returned", sender="ews@") == [queue_id]
    assert looked_for(store, "reason:such") == [queue_id]
    people = store.queue.entries([queue_id])[0].recipients
    assert [(one.verdict, one.verdict_at_ms) for one in people] == [
        (None, None),
        (K.HARD, NOW_MS),
    ]
    other = ended(store, R.DELIVERED, R.DELIVERED, sender="news@other.test")
    report(store, other, K.HARD, rcpt_no=1, at_ms=NOW_MS, detail="552 mailbox full")
    assert listed(store, "returned", reply="such mailbox") == [queue_id]
    assert listed(store, "returned", reply="full") == [other]


def test_what_is_no_last_word_is_none(store: Store) -> None:
    queue_id = ended(store, R.DELIVERED)
    report(store, queue_id, K.DEFERRED, at_ms=NOW_MS)
    (one,) = store.queue.entries([queue_id])[0].recipients
    assert (one.verdict, one.verdict_at_ms) == (None, None)


def test_counts(store: Store, mail: dict[str, str]) -> None:
    ended(store, R.DELIVERED)
    counts = store.reports.count_last_words(NOW_MS)
    assert counts == dict.fromkeys(set(Kind) - {K.ACCEPTED, K.DEFERRED, K.DELIVERED}, 1)
    assert not store.reports.count_last_words(NOW_MS + 1001)
    other = ended(store, R.DELIVERED, provider="other", sender="x@News.Example")
    report(store, other, K.COMPLAINED, at_ms=NOW_MS + 5000)
    found = store.reports.last_words(NOW_MS + 1001)
    assert found == [(K.COMPLAINED, "other", "news.example", 1)]
    assert sum(one.number for one in store.reports.last_words(NOW_MS)) == 7


def test_reports_come_in_the_providers_order_the_newest_of_many(store: Store) -> None:
    queue_id = ended(store, R.DELIVERED)
    report(store, queue_id, K.HARD, at_ms=NOW_MS + 9, raw="{<b>}", dsn="5.1.1", detail="no")
    report(store, queue_id, K.ACCEPTED, at_ms=NOW_MS + 3, rcpt_no=None)
    late, early = store.reports.of_message(queue_id)[::-1]
    assert (late.kind, late.raw, late.dsn, late.detail) == (K.HARD, "{<b>}", "5.1.1", "no")
    assert (late.provider, late.address) == ("main", "0.delivered@cust.test")
    assert late.received_at_ms > NOW_MS + HOUR_MS
    assert (early.kind, early.rcpt_no) == (K.ACCEPTED, None)
    assert [one.raw for one in store.queue.record_of(queue_id).reports] == ["", ""]
    many = [told(queue_id, K.DEFERRED, at_ms=NOW_MS + 10 + n) for n in range(MOST_REPORTS)]
    store.feedback.take(many)
    reports = store.queue.record_of(queue_id).reports
    assert [one.kind for one in reports] == [K.DEFERRED] * MOST_REPORTS


def news(store: Store, *reports: MatchedEvent) -> list[tuple[str, str, str]]:
    """Return what log and counts are told of reports."""
    taken = store.feedback.take(reports)
    judged = store.reports.judged([verdict for one in taken for verdict in one.verdicts])
    return [(one.address, one.kind.value, one.sender) for one in judged]


def test_log_and_counts_are_told_what_is_new_of_a_recipient_once(store: Store) -> None:
    queue_id = ended(store, R.DELIVERED, R.DELIVERED, sender="a@news.test")
    first, second = "0.delivered@cust.test", "1.delivered@cust.test"

    def of(kind: Kind, rcpt_no: int | None = 0, **more: Any) -> MatchedEvent:
        return told(queue_id, kind, rcpt_no=rcpt_no, at_ms=NOW_MS, **more)

    assert news(store, of(K.ACCEPTED), of(K.DEFERRED)) == []
    assert news(store, of(K.DELIVERED)) == [(first, "delivered", "a@news.test")]
    assert news(store, of(K.DELIVERED), of(K.DEFERRED)) == []
    assert news(store, of(K.SOFT)) == [(first, "soft", "a@news.test")]
    assert news(store, of(K.HARD)) == []  # it had bounced
    assert news(store, of(K.COMPLAINED)) == [(first, "complained", "a@news.test")]
    assert news(store, of(K.HARD)) == []
    # all at once, and the same twice
    some = [of(kind, 1) for kind in (K.HARD, K.SOFT, K.DELIVERED, K.HARD)]
    assert news(store, *some) == [(second, "hard", "a@news.test")]
    assert news(store, of(K.COMPLAINED, None), told(None, K.HARD, at_ms=NOW_MS)) == []


@pytest.mark.parametrize(("since_ms", "is_in"), [(NOW_MS + 1000, True), (NOW_MS + 1001, False)])
def test_what_was_told_at_that_very_time_counts(
    store: Store, mail: dict[str, str], since_ms: int, is_in: bool
) -> None:
    assert (store.reports.count_last_words(since_ms)[K.HARD] == 1) is is_in
    assert (K.HARD in {one.kind for one in store.reports.last_words(since_ms)}) is is_in


# --- retention -----------------------------------------------------------------------------


def left(store: Store) -> tuple[int, int]:
    """Return how many events and last words there are."""
    with store.database.read() as tx:
        return tuple(  # type: ignore[return-value]
            tx.execute(select(func.count()).select_from(table)).scalar()
            for table in (provider_event, verdict)
        )


def test_reports_go_with_their_mail(store: Store) -> None:
    gone = ended(store, R.DELIVERED)
    report(store, gone, K.HARD, at_ms=NOW_MS)
    assert left(store) == (1, 1)
    assert store.janitor.purge({"finished": 10**12}, limit=9) == 0
    assert left(store) == (1, 1)
    assert store.janitor.purge({"finished": 0}, limit=9) == 1
    assert left(store) == (0, 0)
    # what is told of it from now on is of mail that is not known
    report(store, gone, K.COMPLAINED, at_ms=NOW_MS)
    assert left(store) == (1, 0)
    assert store.feedback.forget_feedback(HOUR_MS, limit=9) == 0
    assert store.reports.forget_strays() == 0
    assert store.feedback.forget_feedback(-1, limit=9) == 1
    assert left(store) == (0, 0)


def test_what_another_version_left_behind_goes_too(store: Store) -> None:
    kept, lost = ended(store, R.DELIVERED), ended(store, R.DELIVERED)
    for queue_id in (kept, lost):
        report(store, queue_id, K.HARD, at_ms=NOW_MS)
    with store.database.write() as tx:
        for table in (recipient, message):
            tx.execute(table.delete().where(table.c.queue_id == lost))
    assert store.reports.forget_strays() == 1
    assert [one.kind for one in store.reports.of_message(kept)] == [K.HARD]
    assert store.reports.of_message(lost) == []
    assert listed(store, "returned") == [kept]
