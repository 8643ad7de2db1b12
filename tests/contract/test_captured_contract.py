"""What every store must do with captured mail: lists, marks, deletions, logins."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from sqlalchemy import delete, func, select

from relaygw.mail.content_facts import ContentFacts
from relaygw.mail.envelope import NewDelivery, NewRecipient, Source
from relaygw.mail.search import EVERYTHING, MailSearch, parse_search
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store.queue_tables import (
    captured_facts,
    captured_index,
    captured_tag,
    captured_text,
    message,
)
from relaygw.store.sessions import WebSession
from relaygw.store.store import Store
from tests.builders import NOW_MS, accepted
from tests.contract.captured import AUDITED, capture, contact, found, indexed, listed
from tests.contract.conftest import clock_at, purge_before

FACTS = ContentFacts(
    sender=contact("shop@shop.test", "Der Shop"),
    to=(contact("b@cust.test", "Bé"), contact("c@cust.test")),
    cc=(contact("d@cust.test"),),
    bcc=(),
    reply_to=(contact("help@shop.test"),),
    attachments=2,
    inlines=1,
    snippet="Your order …",
    words="your order is on its way",
)


def rows_left(store: Store) -> list[int]:
    """Return how many rows there are beside captured messages, of each kind."""
    with store.database.read() as connection:
        return [
            connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (captured_index, captured_text, captured_facts, captured_tag)
        ]


def test_what_came_by_smtp_is_counted_from_a_time_on(store: Store) -> None:
    smtp = Source(listener="127.0.0.1:2525")
    assert store.sandbox.taken_since(0) == (0, 0)
    for shift in (10, 20, 30):
        capture(store, at_ms=NOW_MS + shift, source=smtp, size_bytes=100 + shift)
    capture(store, at_ms=NOW_MS + 40)  # from the maildrop
    store.intake.accept_batch([accepted(source=smtp)])  # to be sent
    assert store.sandbox.taken_since(0) == (3, 360)
    assert store.sandbox.taken_since(NOW_MS + 20) == (2, 250)


# --- content ------------------------------------------------------------------------------


def test_what_nobody_has_read_is_handed_out_oldest_first(store: Store) -> None:
    ids = [capture(store, at_ms=NOW_MS + shift) for shift in (20, 10, 30)]
    store.intake.accept_batch([accepted()])  # not captured
    oldest = [entry.queue_id for entry in store.sandbox.unindexed(limit=2)]
    assert oldest == [ids[1], ids[0]]
    store.sandbox.index(dict.fromkeys(oldest, ContentFacts()))
    assert [entry.queue_id for entry in store.sandbox.unindexed(limit=2)] == [ids[2]]


def test_facts_are_kept_as_they_were_given(store: Store) -> None:
    queue_id = capture(store)
    one = store.sandbox.captured_entry(queue_id)
    assert one is not None and one.facts is None
    store.sandbox.index({queue_id: FACTS})
    one = store.sandbox.captured_entry(queue_id)
    assert one is not None and one.facts == dataclasses.replace(FACTS, words="")


def test_facts_are_written_once(store: Store) -> None:
    queue_id = indexed(store, facts=FACTS)
    store.sandbox.index({queue_id: ContentFacts(words="something else")})
    assert found(store, "order") == [queue_id]
    assert found(store, "something") == []
    assert rows_left(store)[:3] == [1, 1, 1]


def test_what_is_not_captured_has_no_facts(store: Store) -> None:
    queued = accepted()
    store.intake.accept_batch([queued])
    store.sandbox.index({queued.queue_id: FACTS, "0" * 17: FACTS})
    assert rows_left(store) == [0, 0, 0, 0]


def test_many_are_indexed_at_once(store: Store) -> None:
    ids = [capture(store, at_ms=NOW_MS + number) for number in range(70)]
    store.sandbox.index(
        {one: ContentFacts(words=f"n{number} " * 900) for number, one in enumerate(ids)}
    )
    assert found(store, "n69 n69") == [ids[69]]
    assert rows_left(store)[:3] == [70, 70, 70]
    assert listed(store) == found(store, "larger:1") == ids[::-1]


# --- lists --------------------------------------------------------------------------------


def test_a_list_has_the_newest_first_and_pages(store: Store) -> None:
    ids = [capture(store, at_ms=NOW_MS + number) for number in range(5)]
    indexed_ids = [indexed(store, at_ms=NOW_MS + 10 + number) for number in range(2)]
    assert listed(store) == [*indexed_ids[::-1], *ids[::-1]]
    page = store.sandbox.find_captured(EVERYTHING, start=1, limit=2)
    assert [one.entry.queue_id for one in page] == [indexed_ids[0], ids[4]]
    assert store.sandbox.count_captured(EVERYTHING) == (7, 7)
    assert store.sandbox.find_captured(EVERYTHING, start=7, limit=2) == []


def test_a_search_pages_too(store: Store) -> None:
    ids = [indexed(store, facts=FACTS, at_ms=NOW_MS + number) for number in range(5)]
    for query in ("order", "is:unread"):
        page = store.sandbox.find_captured(parse_search(query), start=1, limit=2)
        assert [one.entry.queue_id for one in page] == [ids[3], ids[2]]


def test_ids_come_in_the_order_of_acceptance_after_one(store: Store) -> None:
    ids = [indexed(store, facts=FACTS, at_ms=NOW_MS + number) for number in range(4)]
    for search in (EVERYTHING, parse_search("order")):
        assert store.sandbox.captured_ids(search, limit=2) == ids[:2]
        assert store.sandbox.captured_ids(search, limit=9, after=ids[1]) == ids[2:]


def test_one_is_looked_up_by_id_or_the_newest(store: Store) -> None:
    assert store.sandbox.captured_entry(None) is None
    older = capture(store)
    newer = capture(store, at_ms=NOW_MS + 1)
    queued = accepted(at_ms=NOW_MS + 2)
    store.intake.accept_batch([queued])
    newest, by_id = store.sandbox.captured_entry(None), store.sandbox.captured_entry(older)
    assert newest is not None and newest.entry.queue_id == newer
    assert by_id is not None and by_id.entry.queue_id == older
    assert store.sandbox.captured_entry(queued.queue_id) is None


def test_what_cannot_be_looked_for_finds_nothing(store: Store) -> None:
    indexed(store, facts=FACTS)
    for query in ("(),;", "x" * 1001, "order " * 21):
        assert found(store, query) == []
    assert store.sandbox.captured_ids(MailSearch(is_void=True), limit=9) == []


# --- marks --------------------------------------------------------------------------------


def test_opened_messages_are_counted_apart(store: Store) -> None:
    ids = [indexed(store, facts=FACTS) for _ in range(3)]
    with clock_at(store, 7):
        assert store.sandbox.mark_read(ids[:2], is_read=True) == 2
    assert store.sandbox.mark_read(ids[:2], is_read=True) == 0
    one = store.sandbox.captured_entry(ids[0])
    assert one is not None and one.entry.read_at_ms == 7
    assert store.sandbox.count_captured(EVERYTHING) == (3, 1)
    assert store.sandbox.count_captured(parse_search("order")) == (3, 1)
    assert found(store, "is:unread") == [ids[2]]
    assert found(store, "is:read") == [ids[1], ids[0]]


def test_a_message_that_was_opened_before_it_was_read_is_read(store: Store) -> None:
    queue_id = capture(store)
    store.sandbox.mark_read([queue_id], is_read=True)
    store.sandbox.index({queue_id: FACTS})
    assert found(store, "is:read") == [queue_id]


def test_all_are_marked_as_read_and_unread(store: Store) -> None:
    ids = [indexed(store, facts=FACTS, at_ms=NOW_MS + number) for number in range(3)]
    capture(store)
    store.sandbox.mark_read(ids[:1], is_read=True)
    assert store.sandbox.mark_read(None, is_read=True) == 3
    assert store.sandbox.count_captured(EVERYTHING) == (4, 0)
    assert store.sandbox.mark_read(None, is_read=False) == 4
    assert store.sandbox.count_captured(EVERYTHING) == (4, 4)
    assert store.sandbox.count_captured(parse_search("is:unread")) == (3, 3)
    assert store.sandbox.mark_read(None, is_read=False) == 0


def test_mail_that_is_not_captured_is_never_marked(store: Store) -> None:
    queued = accepted()
    store.intake.accept_batch([queued])
    assert store.sandbox.mark_read([queued.queue_id], is_read=True) == 0


# --- tags ---------------------------------------------------------------------------------


def tags_of(store: Store, queue_id: str) -> tuple[str, ...]:
    one = store.sandbox.captured_entry(queue_id)
    assert one is not None
    return one.tags


def test_tags_that_the_content_has_are_added(store: Store) -> None:
    queue_id = capture(store)
    store.sandbox.set_tags([queue_id], ["Checkout"])
    store.sandbox.index({queue_id: ContentFacts(tags=("checkout", "invoice"))})
    assert tags_of(store, queue_id) == ("Checkout", "invoice")


def test_tags_are_replaced_and_counted(store: Store) -> None:
    ids = [indexed(store) for _ in range(3)]
    store.sandbox.set_tags(ids[:2], ["two words", "Checkout", "", "checkout"])
    assert store.sandbox.tags() == {"Checkout": 2, "two words": 2}
    assert tags_of(store, ids[0]) == ("Checkout", "two words")
    store.sandbox.set_tags(ids[1:], ["other"])
    assert store.sandbox.tags() == {"Checkout": 1, "other": 2, "two words": 1}
    store.sandbox.set_tags(ids, [])
    assert store.sandbox.tags() == {}


def test_a_tag_keeps_the_spelling_that_is_in_use(store: Store) -> None:
    ids = [indexed(store) for _ in range(2)]
    store.sandbox.set_tags(ids[:1], ["Straße"])
    store.sandbox.set_tags(ids[1:], ["STRASSE"])
    assert store.sandbox.tags() == {"Straße": 2}
    assert found(store, "tag:strasse") == ids[::-1]


def test_a_tag_is_renamed_and_removed(store: Store) -> None:
    ids = [indexed(store) for _ in range(3)]
    store.sandbox.set_tags(ids[:2], ["old"])
    store.sandbox.set_tags(ids[1:2], ["old", "New"])
    assert store.sandbox.rename_tag("OLD", "Older") == 2
    assert store.sandbox.tags() == {"New": 1, "Older": 2}
    assert store.sandbox.rename_tag("older", "oldeR") == 2
    assert store.sandbox.tags() == {"New": 1, "oldeR": 2}
    assert store.sandbox.rename_tag("older", "new") == 2
    assert store.sandbox.tags() == {"New": 2}
    assert store.sandbox.rename_tag("unknown", "new") == 0
    assert store.sandbox.delete_tag("NEW") == 2
    assert store.sandbox.tags() == {}


def test_only_captured_mail_has_tags(store: Store) -> None:
    queued = accepted()
    store.intake.accept_batch([queued])
    store.sandbox.set_tags([queued.queue_id, "0" * 17], ["x"])
    assert store.sandbox.tags() == {}


# --- deletions ----------------------------------------------------------------------------


def some(store: Store, ids: list[str]) -> None:
    store.sandbox.delete_captured(ids, entry=AUDITED)


def all_of_it(store: Store, _ids: list[str]) -> None:
    assert store.sandbox.delete_captured(None, entry=AUDITED) == 2


def purge(store: Store, _ids: list[str]) -> None:
    assert purge_before(store, {"captured": NOW_MS + 1}, limit=10) == 2


def trim(store: Store, _ids: list[str]) -> None:
    assert store.janitor.trim_captured(keep=0, limit=10) == 2


@pytest.mark.parametrize("remove", [some, all_of_it, purge, trim])
def test_what_belongs_to_deleted_mail_goes_with_it(store: Store, remove: Any) -> None:
    ids = [indexed(store, facts=FACTS) for _ in range(2)]
    store.sandbox.set_tags(ids, ["x"])
    remove(store, ids)
    assert listed(store) == found(store, "order") == []
    assert rows_left(store) == [0, 0, 0, 0]
    # a new message may have the old one's place in the index
    newer = indexed(store, facts=ContentFacts(words="quite different"))
    assert found(store, "order") == []
    assert found(store, "quite") == [newer]


def test_the_others_stay(store: Store) -> None:
    ids = [indexed(store, facts=FACTS, at_ms=NOW_MS + number) for number in range(3)]
    assert store.sandbox.delete_captured(ids[1:2], entry=AUDITED) == 1
    assert found(store, "order") == [ids[2], ids[0]]
    assert rows_left(store)[:3] == [2, 2, 2]


def test_mail_that_still_waits_for_somebody_only_leaves(store: Store) -> None:
    captured = NewRecipient(address="b@cust.test", state=RecipientState.CAPTURED)
    parts = tuple(
        NewDelivery(route="default", stream="transactional", recipients=(one,))
        for one in (captured, NewRecipient(address="c@cust.test"))
    )
    queue_id = indexed(store, facts=FACTS, deliveries=parts)
    store.sandbox.set_tags([queue_id], ["x"])
    assert store.sandbox.delete_captured([queue_id], entry=AUDITED) == 1
    store.sandbox.index({queue_id: FACTS})
    assert found(store, "order") == listed(store) == []
    assert rows_left(store) == [0, 0, 0, 0]
    (waiting,) = store.leases.claim("default", limit=9, incarnation="one", now_ms=NOW_MS)
    assert waiting.content is not None


def test_mail_in_the_trash_of_the_queue_only_leaves(store: Store) -> None:
    captured = NewRecipient(address="b@cust.test", state=RecipientState.CAPTURED)
    parts = tuple(
        NewDelivery(route="default", stream="transactional", recipients=(one,))
        for one in (captured, NewRecipient(address="c@cust.test"))
    )
    queue_id = indexed(store, facts=FACTS, deliveries=parts)
    store.queue.change_state(
        [queue_id],
        from_states=frozenset({DeliveryState.INCOMING}),
        to=DeliveryState.DELETED,
        entry=AUDITED,
    )
    assert store.sandbox.delete_captured([queue_id], entry=AUDITED) == 1
    assert listed(store) == []
    assert store.queue.undelete([queue_id], entry=AUDITED) == 1
    (waiting,) = store.leases.claim("default", limit=9, incarnation="one", now_ms=NOW_MS + 1)
    assert waiting.content is not None


def test_mail_that_was_not_captured_is_not_deleted(store: Store) -> None:
    queued = accepted()
    store.intake.accept_batch([queued])
    store.sandbox.delete_captured([queued.queue_id], entry=AUDITED)
    assert len(store.leases.claim("default", limit=9, incarnation="one", now_ms=NOW_MS)) == 1


def test_a_deletion_of_many_is_one_line_of_the_trail(store: Store) -> None:
    for number in range(450):
        capture(store, at_ms=NOW_MS + number)
    assert store.sandbox.delete_captured(None, entry=AUDITED) == 450
    assert listed(store) == []
    assert [entry.affected for entry in store.audit.entries(limit=9)] == [450]


def test_what_an_older_version_left_is_cleared(store: Store) -> None:
    ids = [indexed(store, facts=FACTS, at_ms=NOW_MS + number) for number in range(3)]
    store.sandbox.set_tags(ids, ["x"])
    with store.database.write() as connection:  # knows nothing of searches
        connection.execute(delete(message).where(message.c.queue_id == ids[0]))
    purge_before(store, {"captured": 1}, limit=10)
    assert rows_left(store) == [3, 3, 3, 3]
    purge_before(store, {"orphans": 1}, limit=10)
    assert rows_left(store) == [2, 2, 2, 2]
    assert found(store, "order") == [ids[2], ids[1]]


# --- logins -------------------------------------------------------------------------------


def login(token_hash: str, *, user: str = "ann", expires_at_ms: int = 2**62) -> WebSession:
    return WebSession(
        token_hash=token_hash,
        user_name=user,
        created_at_ms=5,
        seen_at_ms=5,
        expires_at_ms=expires_at_ms,
    )


def test_a_login_is_kept_and_renewed(store: Store) -> None:
    session = login("t")
    store.sessions.put(session)
    assert store.sessions.get("t") == session
    seen = dataclasses.replace(session, seen_at_ms=6, expires_at_ms=99)
    store.sessions.put(seen)
    assert store.sessions.get("t") == seen
    assert store.sessions.get("u") is None


def test_a_login_that_was_ended_is_not_renewed(store: Store) -> None:
    session = login("t")
    store.sessions.put(session)
    store.sessions.drop("t")
    store.sessions.put(dataclasses.replace(session, seen_at_ms=6))
    assert store.sessions.get("t") is None
    store.sessions.drop("t")


def test_logins_that_have_expired_are_purged(store: Store) -> None:
    store.sessions.put(login("old", expires_at_ms=1))
    store.sessions.put(login("new"))
    purge_before(store, {}, limit=1)
    assert store.sessions.get("old") is None
    assert store.sessions.get("new") is not None
