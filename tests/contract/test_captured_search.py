"""What every store must find: each field, and the same as a search by hand."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaygw.mail.content_facts import ContentFacts
from relaygw.mail.envelope import NewRecipient
from relaygw.mail.search import Field, MailSearch, Term, parse_search
from relaygw.mail.searchable_text import searchable
from relaygw.mail.state import RecipientState
from relaygw.store import sandbox
from relaygw.store.store import Store
from tests.builders import NOW_MS
from tests.campaign import times
from tests.contract.captured import AUDITED, capture, contact, found, indexed
from tests.tables import each_of

DAY_MS = 86_400_000
DAY = "2026-11-25"  # of NOW_MS


@pytest.fixture
def order(store: Store) -> str:
    """Return a message that most searches here find, among others that they do not."""
    facts = ContentFacts(
        sender=contact("orders@shop.test", "Nordlicht Müller"),
        to=(contact("anna@cust.test", "Anna"), contact("ben@cust.test")),
        cc=(contact("carla@cust.test"),),
        reply_to=(contact("help@shop.test"),),
        attachments=1,
        words="Your order no. 100% is_on its way; a\\b\nSTRASSE zum Ω, привет 日本語テスト",
    )
    indexed(store, "x@other.test", facts=ContentFacts(words="quite another"), subject="other")
    queue_id = indexed(
        store,
        "anna@cust.test",
        "hidden@cust.test",
        facts=facts,
        subject="Bestellung №5 received",
        message_id="<20261125.7@web.shop.test>",
        sender="bounce@shop.test",
        size_bytes=5000,
        at_ms=NOW_MS + DAY_MS,
    )
    store.sandbox.set_tags([queue_id], ["Checkout"])
    indexed(store, "y@other.test", facts=ContentFacts(inlines=2), at_ms=NOW_MS + 2 * DAY_MS)
    return queue_id


@each_of(
    "query",
    [
        "order",
        "ORDER",
        "rde",
        "your order",
        "order way",
        '"order no"',
        '"on its"',
        "way order",
        '"way a\\b"',
        '"way; (a\\b)"',
        "straße",
        "Strasse",
        "müller",
        "MU\u0308LLER",
        "привет",
        "ПРИВЕТ",
        "ривет",
        "日本語",
        "語",
        "Ω",
        "ω",
        "or",
        "№",
        "100%",
        "is_on",
        "a\\b",
        "№5",
        "bestellung",
        "anna@cust",
        "hidden@",
        "bounce@",
        "20261125.7@web",
        "order -another",
        "-another way",
        "order -zz",
        '"order no" -"order yes" wa',
        "from:orders",
        'from:"Nordlicht Müller"',
        "to:ben",
        "to:anna to:ben",
        "cc:carla",
        "bcc:hidden",
        "-bcc:anna bcc:cust.test",
        "reply-to:help",
        "addressed:help",
        "addressed:hidden",
        "addressed:orders",
        "-addressed:other addressed:cust",
        "subject:received",
        'subject:"bestellung №5"',
        "message-id:20261125",
        "message-id:<20261125.7@web.shop.test>",
        "tag:checkout",
        "is:tagged",
        "has:attachment",
        "larger:4k",
        "larger:4999b",
        "after:2026-11-26 before:2026-11-27 order",
        "reason:sandbox order",
        "-tag:other is:tagged",
        "is:unread order",
    ],
)
def test_it_is_found(store: Store, order: str, query: str) -> None:
    assert found(store, query) == [order]


@each_of(
    "query",
    [
        "order -order",
        "orderx",
        "order another",
        '"order way"',
        "100x",  # a percent sign is no wildcard
        "i%n",
        "is-on",  # nor is an underscore
        "1__%",
        "a\\\\b",
        '"received 20261125"',  # no phrase runs over two fields
        "from:anna",
        "to:hidden",
        "to:carla",
        "cc:anna",
        "bcc:anna",
        "subject:order",
        "message-id:7@web.shop.testx",
        "tag:check",
        "-is:tagged order",
        "-has:attachment order",
        "has:inline order",
        "larger:5000b",
        "smaller:5000b order",
        "before:2026-11-20",
        "order after:2026-11-28",
        "reason:staging",
        "is:read",
        "' OR 1=1 --",
        "NEAR(order)x",
    ],
)
def test_it_is_not_found(store: Store, order: str, query: str) -> None:
    assert order not in found(store, query)


@each_of(
    "query",
    [
        *("-after:2026-99-99", "-after:xx", "-before:2026-99-99", "!larger:xyz", "-smaller:0"),
        *("-is:foo", "-has:foo", "-subject:", "-tag:", '-from:" "', "-addressed:*", "-from: x"),
        *('order -"..."', "order -!!!", "-to:*@shop.test", "--is:tagged", "-(is:tagged)"),
    ],
)
def test_a_mistake_finds_nothing(store: Store, order: str, query: str) -> None:
    assert found(store, query) == []


@each_of("query", ["is:unread", "-order", "-is:tagged", "-larger:4k", "-to:anna"])
def test_the_newest_come_first(store: Store, order: str, query: str) -> None:
    ids = found(store, query)
    assert ids == sorted(ids, reverse=True) and len(ids) >= 2


def test_a_long_text_is_searched_as_far_as_it_goes(store: Store) -> None:
    queue_id = indexed(
        store, facts=ContentFacts(words="x" * 15_000 + " tail " + "y " * 9000 + "zz9")
    )
    assert found(store, "tail") == [queue_id]
    assert found(store, "zz9") == []


def test_a_long_phrase_is_found(store: Store) -> None:
    phrase = " ".join(f"word{number}" for number in range(110))
    queue_id = indexed(store, facts=ContentFacts(words=f"before {phrase} after"))
    indexed(store, facts=ContentFacts(words=phrase[:-1]))
    assert found(store, f'"{phrase}"') == [queue_id]
    assert found(store, f'-"{phrase}" before') == []


def test_words_of_a_search_are_no_language(store: Store) -> None:
    queue_id = indexed(store, facts=ContentFacts(words='this AND that NOT "those" ^it {col}:x*'))
    for query in ("AND", "NOT", '"that NOT"', "^it", "{col}:x*", "x*"):
        assert found(store, query) == [queue_id]
    assert found(store, '"this that"') == found(store, "xyz*") == []


def test_addresses_before_rewriting_and_after_it_are_found(store: Store) -> None:
    queue_id = indexed(
        store,
        NewRecipient(
            address="ops@cust.test", original="root@web1", state=RecipientState.CAPTURED, reason="x"
        ),
    )
    assert found(store, "bcc:root@web1") == [queue_id]
    assert found(store, "ops@cust") == [queue_id]


def test_many_hits_and_their_page(store: Store) -> None:
    ids = [capture(store, at_ms=NOW_MS + number, subject=f"order {number}") for number in range(60)]
    store.sandbox.index({one: ContentFacts(words="common") for one in ids})
    search = parse_search("common")
    page = store.sandbox.find_captured(search, start=55, limit=50)
    assert [one.entry.queue_id for one in page] == ids[4::-1]
    store.sandbox.delete_captured(ids[:30], entry=AUDITED)
    assert found(store, "common") == ids[:29:-1]
    assert store.sandbox.count_captured(search) == (30, 30)


@pytest.mark.parametrize("newest", [1, 3, 6])
def test_hits_beyond_the_newest_are_found_too(
    store: Store, monkeypatch: pytest.MonkeyPatch, newest: int
) -> None:
    monkeypatch.setattr(sandbox, "_NEWEST", newest)
    ids = [
        indexed(store, facts=ContentFacts(words=words), at_ms=NOW_MS + number)
        for number, words in enumerate(("order", "order", "other", "order", "other"))
    ]
    assert found(store, "order") == [ids[3], ids[1], ids[0]]
    assert found(store, "-order") == [ids[4], ids[2]]
    for start in range(4):
        page = store.sandbox.find_captured(parse_search("order"), start=start, limit=2)
        expected = [ids[3], ids[1], ids[0]][start : start + 2]
        assert [one.entry.queue_id for one in page] == expected


# --- against a search by hand -------------------------------------------------------------

_LETTERS = "abé%_ \\'ßя"


@dataclass(frozen=True)
class Mail:
    """A captured message, as far as these searches go."""

    subject: str
    words: str
    to: str
    is_read: bool
    tag: str


def holds(term: Term, mail: Mail) -> bool:
    match term.field:
        case Field.TEXT:
            texts = [searchable(text) for text in (mail.subject, mail.words, mail.to)]
            is_found = any(term.text in text for text in texts)
        case Field.SUBJECT:
            is_found = term.text in searchable(mail.subject)
        case Field.TO:
            is_found = term.text in searchable(mail.to)
        case Field.TAG:
            is_found = term.text == mail.tag
        case _:
            assert term.field is Field.IS_UNREAD
            is_found = not mail.is_read
    return is_found != term.is_negated


_TEXT = st.text(_LETTERS, max_size=8)
_MAIL = st.builds(Mail, _TEXT, _TEXT, _TEXT, st.booleans(), st.sampled_from(["x", "y"]))
_TERM = st.one_of(
    st.builds(
        Term,
        field=st.sampled_from([Field.TEXT, Field.TEXT, Field.SUBJECT, Field.TO]),
        text=st.text(_LETTERS, min_size=1, max_size=5).map(searchable).filter(bool),
        is_negated=st.booleans(),
    ),
    st.builds(Term, field=st.just(Field.IS_UNREAD), is_negated=st.booleans()),
    st.builds(Term, field=st.just(Field.TAG), text=st.just("x"), is_negated=st.booleans()),
)


@pytest.mark.campaign
@settings(
    max_examples=times(5, campaign=100),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(_MAIL, min_size=1, max_size=6), st.lists(st.lists(_TERM, max_size=4), min_size=8))
def test_it_finds_what_a_search_by_hand_finds(
    store: Store, mails: list[Mail], searches: list[list[Term]]
) -> None:
    store.sandbox.delete_captured(None, entry=AUDITED)
    ids = {}
    for mail in mails:
        facts = ContentFacts(words=mail.words, to=(contact(mail.to),))
        queue_id = capture(
            store,
            "z",
            subject=mail.subject,
            message_id="",
            sender="",
            reason="",
            at_ms=NOW_MS + len(ids),
        )
        store.sandbox.index({queue_id: facts})
        store.sandbox.set_tags([queue_id], [mail.tag])
        store.sandbox.mark_read([queue_id], is_read=mail.is_read)
        ids[queue_id] = mail
    for terms in searches:
        search = MailSearch(terms=tuple(terms))
        expected = [one for one, mail in ids.items() if all(holds(term, mail) for term in terms)]
        page = store.sandbox.find_captured(search, start=0, limit=100)
        assert [one.entry.queue_id for one in page] == expected[::-1], search
        unread = sum(not ids[one].is_read for one in expected)
        assert store.sandbox.count_captured(search) == (len(expected), unread)
        assert store.sandbox.captured_ids(search, limit=100) == expected
