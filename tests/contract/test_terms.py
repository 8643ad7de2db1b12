"""A selector of lists and the search term of the same name mean the same, on every database."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update

from relaygw.mail.envelope import NewRecipient, Source
from relaygw.mail.search import EVERYTHING, parse_find, parse_search
from relaygw.store.queue_tables import delivery
from relaygw.store.store import Store
from tests.builders import NOW_MS, accepted, selected
from tests.contract.captured import capture, indexed
from tests.tables import each_of

ANNA = NewRecipient(address="anna@cust.test", original="root@web1")
LOCAL = Source(uid=33, script="/srv/Shop/cron.php")


def accept(store: Store, *recipients: str | NewRecipient, **more: Any) -> str:
    message = accepted(*recipients, **more)
    store.intake.accept_batch([message])
    return message.queue_id


@pytest.fixture
def mails(store: Store) -> dict[str, str]:
    """Return messages by a name of each."""
    ids = {
        "shop": accept(store, "b@x.test", sender="Shop@x.test", subject="Straße №5"),
        "bounce": accept(store, "b@x.test", sender="", source=Source(client="10.0.0.1")),
        "anna": accept(store, ANNA, source=Source(host="Web7", client="10.0.0.2")),
        "local": accept(store, "b@x.test", source=LOCAL),
        "promo": accept(store, "b@x.test", route="promo"),
    }
    with store.database.write() as tx:
        is_promo = delivery.c.queue_id == ids["promo"]
        tx.execute(update(delivery).where(is_promo).values(provider="ses"))
    return ids


@each_of(
    "selector, term, name",
    [
        ({"sender": "SHOP@"}, "from:SHOP@", "shop"),
        ({"sender": "<>"}, "from:<>", "bounce"),
        ({"subject": "STRASSE №5"}, "subject:xyzzy", ""),
        ({"subject": "straße №5"}, 'subject:"straße №5"', "shop"),
        ({"recipient": "anna@"}, "to:anna@", "anna"),
        ({"recipient": "ROOT@web1"}, "to:ROOT@web1", "anna"),
        ({"host": "WEB7"}, "host:WEB7", "anna"),
        ({"host": "10.0.0.1"}, "host:10.0.0.1", "bounce"),
        ({"host": "10.0.0.2"}, "host:10.0.0.2", ""),
        ({"host": "local", "uid": 33}, "host:local uid:33", "local"),
        ({"script": "shop/CRON"}, "script:shop/CRON", "local"),
        ({"route": "promo"}, "route:Promo", "promo"),
        ({"provider": "ses"}, "provider:SES", "promo"),
        ({"provider": "s"}, "provider:s", ""),
    ],
)
def test_both_find_the_same(
    store: Store, mails: dict[str, str], selector: dict[str, Any], term: str, name: str
) -> None:
    expected = [mails[name]] if name else []
    assert store.queue.search_ids(selected(**selector), limit=9) == expected
    assert [one.queue_id for one in store.find.find(parse_find(term), limit=9).entries] == expected


def test_a_null_sender_is_left_out_too(store: Store, mails: dict[str, str]) -> None:
    left = {one.queue_id for one in store.find.find(parse_find("-from:<>"), limit=9).entries}
    assert left == {*mails.values()} - {mails["bounce"]}


def test_only_names_of_settings_are_compared_in_small_letters(
    store: Store, mails: dict[str, str]
) -> None:
    assert store.queue.search_ids(selected(route="Promo"), limit=9) == []


@pytest.fixture
def captured(store: Store) -> dict[str, str]:
    """Return captured messages by a name of each."""
    return {
        "shop": indexed(store, "b@x.test", sender="shop@x.test", subject="Order 1"),
        "bounce": indexed(store, "anna@x.test", sender="", at_ms=NOW_MS + 1),
    }


@pytest.mark.parametrize("query", ["", "is:unread"])
@each_of(
    "selector, names",
    [
        ({}, "bounce shop"),
        ({"sender": "<>"}, "bounce"),
        ({"sender": "SHOP@"}, "shop"),
        ({"recipient": "anna"}, "bounce"),
        ({"subject": "ORDER"}, "shop"),
        ({"accepted_before_ms": NOW_MS + 1}, "shop"),
        ({"subject": "order", "recipient": "anna"}, ""),
    ],
)
def test_captured_mail_is_selected_by_its_envelope(
    store: Store, captured: dict[str, str], query: str, selector: dict[str, Any], names: str
) -> None:
    selection = selected(**selector)
    found = store.sandbox.find_captured(parse_search(query), start=0, limit=9, selection=selection)
    assert [one.entry.queue_id for one in found] == [captured[name] for name in names.split()]


def test_captured_mail_is_selected_page_by_page(store: Store) -> None:
    ids = [capture(store, "b@x.test", subject=f"order {n}", at_ms=NOW_MS + n) for n in range(5)]
    capture(store, "b@x.test", subject="other", at_ms=NOW_MS + 9)
    chosen = selected(subject="order")
    pages = [
        store.sandbox.find_captured(EVERYTHING, start=start, limit=2, selection=chosen)
        for start in (0, 2, 4)
    ]
    assert [one.entry.queue_id for page in pages for one in page] == ids[::-1]
