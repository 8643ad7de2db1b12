"""What a search over all mail must find, on every database, whatever state the mail is in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import NewDelivery, NewRecipient, Source
from relaygw.mail.search import parse_find
from relaygw.mail.search_words import reply_ids, split_words
from relaygw.mail.state import RESULTS, DeliveryState, RecipientState
from relaygw.store import find as finding
from relaygw.store import find_index
from relaygw.store.audit import AuditEntry
from relaygw.store.find import Found
from relaygw.store.store import Store
from tests.builders import NOW_MS, accepted, taken, update_of
from tests.campaign import times
from tests.contract.conftest import clock_at
from tests.tables import each_of

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
AUDITED = AuditEntry(at_ms=NOW_MS, actor="a", action="x", target="", affected=1, detail="")


def accept(store: Store, *recipients: str | NewRecipient, at_ms: int = NOW_MS, **more: Any) -> str:
    """Take a message in; return its id."""
    values: dict[str, Any] = {"message_id": "", **more}
    message = accepted(*recipients, at_ms=at_ms, **values)
    store.intake.accept_batch([message])
    return message.queue_id


def index(store: Store) -> None:
    """Write all words that are to be written."""
    while store.find.index_batch(limit=3):
        pass


def deliver(store: Store, queue_id: str, *, reply: str = "250 2.0.0 Ok") -> None:
    """Let a worker deliver a message."""
    end(store, queue_id, RecipientState.DELIVERED, reply=reply)


def end(
    store: Store,
    queue_id: str,
    state: RecipientState,
    *,
    reply: str = "550 no such user",
    at_ms: int | None = None,
) -> None:
    """Let the first recipient of a message end in a state."""
    if state is RecipientState.CANCELLED:
        any_state = frozenset(DeliveryState)
        to = DeliveryState.DELETED
        store.queue.change_state([queue_id], from_states=any_state, to=to, entry=AUDITED)
        return
    leased(store)
    one = replace(taken(0, reply=reply), state=state)
    done = store.leases.record_batch(
        [update_of(queue_id, recipients=(one,))], incarnation="one", now_ms=at_ms or clock_ms()
    )
    assert done.lost == ()


def leased(store: Store) -> None:
    while store.leases.claim("default", limit=100, incarnation="one", now_ms=NOW_MS + 9 * DAY_MS):
        pass


def look(store: Store, query: str, *, limit: int = 100, before: str = "") -> Found:
    return store.find.find(parse_find(query), limit=limit, before=before)


def found(store: Store, query: str) -> list[str]:
    return [one.queue_id for one in look(store, query).entries]


@pytest.fixture(params=["unwritten", "written"])
def order(request: pytest.FixtureRequest, store: Store) -> str:
    """Return a message that most searches here find, whether its words are written or not."""
    accept(store, "x@other.test", subject="quite another", at_ms=NOW_MS - DAY_MS)
    queue_id = accept(
        store,
        NewRecipient(address="anna.k@cust.example", original="Anna.K@web1"),
        "ben@cust.example",
        subject="Bestellung #904127 für Straße №5",
        message_id="<20261125.7abc@web.shop.test>",
        sender="bounce+47110815@shop.test",
        source=Source(
            client="10.1.2.3", user="shop1", listener="127.0.0.1:2525", uid=33,
            script="33:checkout.php", host="web7",
        ),
    )  # fmt: skip
    accept(store, "y@other.test", at_ms=NOW_MS + DAY_MS, source=Source(client="10.1.2.30"))
    if request.param == "written":
        index(store)
    return queue_id


@each_of(
    "query",
    [
        "anna.k@cust.example",
        "ANNA",
        "anna k",
        "ann",
        "anna.k@cust",
        "cust.example",
        "@cust.example",
        "web1",
        "bestellung",
        "best",
        "904127",
        "#904127",
        "90412",
        "straße",
        "STRASSE",
        "für",
        "straße №5",
        '"bestellung 904127"',
        '"bestellung #90412"',
        "20261125.7abc@web.shop.test",
        "<20261125.7abc@web.shop.test>",
        "bounce+47110815",
        "47110815",
        "ben anna bestellung",
        "bestellung -another",
        "ben -anna.x",
        "from:bounce+47110815",
        "from:47110815@shop",
        "to:anna.k@",
        "to:ben to:anna",
        "-to:x@other bestellung",
        "addressed:shop.test anna",
        "subject:bestellung",
        'subject:"#904127 für"',
        "message-id:20261125",
        "user:shop1",
        "user:SHOP1",
        "-user:shop2 user:shop1",
        "client:10.1.2.3",
        "client:10.1.2. user:shop1",
        "listener::2525",
        "uid:33",
        "script:checkout",
        "host:web7",
        "route:default user:shop1",
        "is:waiting user:shop1",
        "is:incoming anna",
        "-is:delivered anna",
        "after:2026-11-01 anna",
        "after:2026-11-25 before:2026-11-26T12:00 is:waiting user:shop1",
        "larger:1b anna",
        "nna",  # inside of a word
        "estell 0412",
        "to:nna.k",
        "-provider:ses anna",
    ],
)
def test_it_is_found(store: Store, order: str, query: str) -> None:
    assert found(store, query) == [order]


@each_of(
    "query",
    [
        "annax",
        "anna -bestellung",
        "anna another",
        '"anna ben"x',
        '"web1 ben"',  # no phrase runs over two fields
        '"123 bestellung"',
        "from:anna",
        "to:bounce",
        "subject:anna",
        "user:shop",
        "client:10.1.2",
        "uid:3",
        "is:bounced",
        "is:held anna",
        "after:2026-11-30 anna",
        "before:2026-11-01 anna",
        "smaller:1b anna",
        "provider:ses",
        "' OR 1=1 --",
        '"anna" OR ben*',
        "anna* NEAR(ben)x",
        "uu:* | anna",  # no queue id has a U
        "is:captured anna",
        "has:attachment anna",
        "u00% anna_",
    ],
)
def test_it_is_not_found(store: Store, order: str, query: str) -> None:
    assert order not in found(store, query)


def test_the_queue_id_is_found(store: Store, order: str) -> None:
    assert found(store, order) == found(store, order.lower()[:-2]) == [order]


def test_all_mail_and_its_pages_newest_first(store: Store, order: str) -> None:
    ids = sorted((one.queue_id for one in look(store, "").entries), reverse=True)
    assert len(ids) == 3 and found(store, "") == ids == found(store, "test")
    for query in ("", "test", "is:waiting", "-nothing"):
        assert pages_of(store, query, limit=1) == ids


def pages_of(store: Store, query: str, *, limit: int) -> list[str]:
    ids, before = [], ""
    while True:
        page = look(store, query, limit=limit, before=before)
        ids += [one.queue_id for one in page.entries]
        if not page.next:
            return ids
        before = page.next


@each_of("before", ["x", "words.x", "words.1.2", "newest.1M'", "words.9999999999999999999", "."])
def test_what_is_no_place_is_refused(store: Store, before: str) -> None:
    with pytest.raises(ValueError, match="is not a position in a search"):
        look(store, "anna", before=before)


# --- outcomes -----------------------------------------------------------------------------


def test_each_outcome_is_a_list_of_its_own_by_its_time(store: Store) -> None:
    ids = {}
    for number, state in enumerate(one.value for one in RESULTS):
        reason = NewRecipient(address=f"{state}@cust.test", state=RecipientState(state), reason="r")
        is_final = state in ("captured", "blocked")
        ids[state] = accept(
            store, reason if is_final else f"{state}@cust.test", at_ms=NOW_MS + number
        )
        if not is_final:  # those before are leased
            end(store, ids[state], RecipientState(state))
    index(store)
    for state, queue_id in ids.items():
        assert found(store, f"is:{state}") == [queue_id]
        assert found(store, f"is:{state} {state}@cust") == [queue_id]
        assert found(store, f"is:{state} other") == []
        assert queue_id not in found(store, f"-is:{state}")


def test_times_of_a_list_by_outcome_are_those_of_the_outcome(store: Store) -> None:
    old = accept(store, "a@cust.test", at_ms=NOW_MS - 3 * DAY_MS)
    new = accept(store, "b@cust.test", at_ms=NOW_MS)
    end(store, new, RecipientState.BOUNCED, at_ms=NOW_MS + HOUR_MS)
    end(store, old, RecipientState.BOUNCED, at_ms=NOW_MS + DAY_MS)
    assert found(store, "is:bounced") == [old, new]
    day = (NOW_MS + DAY_MS - 1) // 1000 * 1000
    assert found(store, f"is:bounced after:{day}") == [old]
    assert found(store, f"is:bounced before:{day}") == [new]
    assert found(store, f"after:{day}") == []
    assert pages_of(store, "is:bounced", limit=1) == [old, new]


# --- what is written when -----------------------------------------------------------------


def test_the_providers_id_is_found_at_once_and_when_it_comes_late(store: Store) -> None:
    early = accept(store, "a@cust.test")
    deliver(store, early, reply="250 2.0.0 Ok: queued as 4F3A2B1C0D")
    late = accept(store, "b@cust.test")
    index(store)
    assert found(store, "4f3a2b1c0d") == [early]
    deliver(store, late, reply="250 Ok 0100018c-7d2f-000000")
    index(store)
    assert found(store, "0100018c-7d2f") == [late]
    assert found(store, "queued") == found(store, "250") == []


def test_new_mail_waits_until_it_has_its_reply(store: Store) -> None:
    queue_id = accept(store, "a@cust.test")
    with clock_at(store, NOW_MS + find_index.SETTLED_MS - 1):
        assert store.find.index_batch(limit=10) == 0
        assert found(store, "a@cust") == [queue_id]
        assert store.find.progress().waiting == 1
    with clock_at(store, NOW_MS + find_index.SETTLED_MS):
        assert store.find.index_batch(limit=10) == 1
        assert found(store, "a@cust") == [queue_id]
        assert store.find.progress().waiting == 0


def test_what_is_deleted_is_gone(store: Store) -> None:
    kept, gone = accept(store, "a@cust.test"), accept(store, "a@cust.test")
    for queue_id in (kept, gone):
        deliver(store, queue_id)
    index(store)
    with clock_at(store, NOW_MS), store.database.write() as tx:
        from relaygw.store.queue_entry import delete_messages

        delete_messages(tx, [gone])
    assert found(store, "a@cust") == [kept]
    with store.database.read() as tx:
        assert tx.connection.exec_driver_sql("SELECT count(*) FROM mail_search").scalar() == 1
        assert find_index.stray_words(tx, limit=9) == []


def test_what_an_older_version_deleted_is_cleared(store: Store) -> None:
    queue_id = accept(store, "a@cust.test")
    index(store)
    with store.database.write() as tx:
        tx.connection.exec_driver_sql("DELETE FROM message")
    assert found(store, "a@cust") == []
    store.janitor.purge({"orphans": 1}, limit=10)
    with store.database.read() as tx:
        assert tx.connection.exec_driver_sql("SELECT count(*) FROM mail_search").scalar() == 0
    assert queue_id


# --- mail from before this version ----------------------------------------------------------


@pytest.fixture
def old_mail(store: Store) -> list[str]:
    """Return messages of which an earlier version knew nothing more."""
    ids = [
        accept(store, f"c{number}@cust.test", at_ms=NOW_MS - number * HOUR_MS, subject="common")
        for number in range(9)
    ]
    with store.database.write() as tx:
        tx.connection.exec_driver_sql("DELETE FROM search_todo")
        tx.connection.exec_driver_sql(
            "INSERT INTO search_backfill (search_no, before_id) VALUES (0, 'ZZZZZZZZZZZZZZZZZZZZZ')"
        )
    return ids


def test_older_mail_is_written_beside_new_mail_and_told_of(
    store: Store, old_mail: list[str]
) -> None:
    assert store.find.progress().older_than_ms is not None
    new = accept(store, "new@cust.test", subject="common", at_ms=NOW_MS + HOUR_MS)
    # the new one, which is there already when it is looked at among the older ones, and two more
    assert store.find.index_batch(limit=4) == 4, "new mail does not keep the older one waiting"
    assert found(store, "common") == [new, *old_mail[:2]]
    older = store.find.progress().older_than_ms
    assert older == NOW_MS - HOUR_MS
    newer = accept(store, "new@cust.test", subject="common", at_ms=NOW_MS + 2 * HOUR_MS)
    index(store)
    assert found(store, "common") == [newer, new, *old_mail]
    assert found(store, "c7@cust") == [old_mail[7]]
    assert store.find.progress().older_than_ms is None
    assert pages_of(store, "common", limit=2) == [newer, new, *old_mail]


def test_old_mail_that_changed_before_its_turn_keeps_one_row(
    store: Store, old_mail: list[str]
) -> None:
    deliver(store, old_mail[8], reply="250 Ok: queued as LATE12345")
    index(store)
    assert found(store, "late12345") == [old_mail[8]]
    assert sorted(found(store, "common")) == sorted(old_mail)


# --- the same by every way ------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 2, 20_000])
@pytest.mark.parametrize("frequent", [0, 50])
def test_it_is_found_by_reading_and_by_the_index(
    store: Store, monkeypatch: pytest.MonkeyPatch, window: int, frequent: int
) -> None:
    monkeypatch.setattr(finding, "PATIENCE_S", 60.0)
    monkeypatch.setattr(finding, "_NEWEST", window)
    monkeypatch.setattr(finding, "_FREQUENT", frequent)
    monkeypatch.setattr(finding, "_FIRST_SLICE", 2)
    monkeypatch.setattr(finding, "_SLICE", 3)
    ids = [
        accept(store, "a.b@cust.test", subject=f"{words} {number}", at_ms=NOW_MS + number)
        for number, words in enumerate(["order"] * 4 + ["other", "reorder"] * 4)
    ]
    index(store)
    orders, inside = ids[3::-1], ids[11:4:-2]
    assert found(store, "order") == found(store, "order -reorder") == orders
    assert pages_of(store, "a.b@cust order", limit=100) == [*orders, *inside]
    assert found(store, "eorder") == inside
    assert found(store, "order uid:1") == found(store, "other after:2026-12-24") == []
    assert found(store, "reorder after:2026-11-01 is:waiting") == inside
    assert found(store, "eorder is:waiting") == inside
    assert pages_of(store, "order", limit=3) == [*orders, *inside]
    assert look(store, "order").read_inside == look(store, "eorder").read_inside == 0
    monkeypatch.setattr(finding, "READ_INSIDE", 4)
    page = look(store, "eorder")
    assert page.read_inside == 4 and [one.queue_id for one in page.entries] == inside[:2]


def test_a_search_that_takes_long_says_how_far_it_came(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "PATIENCE_S", -1.0)
    monkeypatch.setattr(finding, "_FIRST_SLICE", 2)
    monkeypatch.setattr(finding, "_SLICE", 2)
    ids = [accept(store, f"c{number}@x.test", at_ms=NOW_MS + number) for number in range(5)]
    page = look(store, "larger:1M")
    assert page.entries == () and page.next == f"newest.{ids[3]}"
    assert page.until_ms == NOW_MS + 3
    assert pages_of(store, "larger:1M", limit=9) == []
    assert pages_of(store, "larger:1b", limit=9) == ids[::-1]


def test_mail_with_very_many_recipients_is_found_by_the_first_ones(store: Store) -> None:
    people = [NewRecipient(address=f"customer{number:05}@cust.test") for number in range(5000)]
    part = NewDelivery(route="default", stream="transactional", recipients=tuple(people))
    queue_id = accept(store, deliveries=(part,), subject="to all")
    index(store)
    assert found(store, "customer00700@cust.test") == found(store, '"to all"') == [queue_id]
    assert found(store, "to:customer00700@cust.test") == [queue_id]


def test_released_mail_is_found_by_whom_it_goes_to(store: Store) -> None:
    from relaygw.mail.envelope import Released
    from relaygw.store.release import Release

    captured = NewRecipient(address="a@cust.test", state=RecipientState.CAPTURED, reason="sandbox")
    queue_id = accept(store, captured)
    index(store)
    part = NewDelivery(
        released=Released.ALLOWED, route="default", stream="transactional",
        recipients=(NewRecipient(address="qa@team.test"),),
    )  # fmt: skip
    store.sandbox.release_captured([Release(queue_id=queue_id, deliveries=(part,), entry=AUDITED)])
    index(store)
    assert found(store, "qa@team") == found(store, "is:captured a@cust") == [queue_id]
    assert DeliveryState.INCOMING in {one.state for one in look(store, "qa").entries[0].deliveries}


# --- nothing that stands there is missed ----------------------------------------------------

_TEXT = st.text("abAB1 é'.-_@ßя²日&|:*\"\\", max_size=12)
_MAIL = st.tuples(_TEXT, _TEXT, _TEXT, _TEXT)


@pytest.mark.campaign
@settings(
    max_examples=times(8, campaign=100),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(mails=st.lists(_MAIL, min_size=1, max_size=4), data=st.data())
def test_no_word_that_stands_there_is_missed(
    store: Store, mails: list[tuple[str, str, str, str]], data: st.DataObject
) -> None:
    ids = {}
    for subject, message_id, sender, address in mails:
        queue_id = accept(
            store, address or "x", subject=subject, message_id=message_id, sender=sender
        )
        ids[queue_id] = (subject, message_id, sender, address or "x")
    if data.draw(st.booleans()):
        index(store)
    for queue_id, texts in ids.items():
        for text in texts:
            words = split_words(text)
            if not words:
                continue
            first = data.draw(st.integers(0, len(words) - 1))
            wanted = words[first : data.draw(st.integers(first + 1, len(words)))]
            wanted[-1] = wanted[-1][: data.draw(st.integers(1, len(wanted[-1])))]
            for query in (" ".join(wanted), f'"{" ".join(wanted)}"'):
                assert queue_id in found(store, query), query


@each_of(
    ("reply", "expected"),
    [
        ("250 2.0.0 Ok: queued as 4F3A2B1C0D", ["4F3A2B1C0D"]),
        ("250 Ok 0100018c7d2f-aa-000000", ["0100018c7d2f-aa-000000"]),
        ("250 2.0.0 OK  1411234567 a1si123.12 - gsmtp", ["1411234567", "a1si123.12"]),
        ("250 Ok: queued as jGkQnWZbQcmVdfGmRQabcd", ["jGkQnWZbQcmVdfGmRQabcd"]),
        ("250 Great success", []),
        ("250 2.6.0 <1.2@shop.test> Queued mail for delivery", ["<1.2@shop.test>"]),
    ],
)
def test_what_may_be_an_id_in_a_reply(reply: str, expected: list[str]) -> None:
    assert list(reply_ids(reply)) == expected
