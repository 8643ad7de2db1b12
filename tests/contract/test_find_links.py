"""Mail found by the whole value of web.link_header, new mail and what was there before."""

from __future__ import annotations

import pytest

from relaygw.mail.search import parse_find
from relaygw.mail.search_words import link_word
from relaygw.store.find_words import words_in
from relaygw.store.store import Store
from tests.builders import NOW_MS
from tests.contract.test_find import accept, deliver, found, index

HEADER = "X-Order-Id"


def head(number: str) -> bytes:
    return f"Received: by gw\r\nX-ORDER-ID:\r\n {number}\r\nSubject: x\r\n\r\nhello\r\n".encode()


@pytest.mark.parametrize("is_written", [False, True])
def test_a_whole_value_in_any_case_and_nothing_else(store: Store, is_written: bool) -> None:
    order = accept(store, link_value="W-7 b")
    other = accept(store, link_value="W-77 b", subject="W-7 b")
    accept(store, link_value="Ärger 1")
    accept(store)
    if is_written:
        index(store)
    assert found(store, 'order:"W-7 b"') == found(store, 'order:"w-7  B"') == [order]
    assert found(store, "order:W-7") == found(store, "order:7") == []
    assert len(found(store, 'order:"Ärger 1"')) == 1
    assert found(store, '-order:"W-7 b" subject:W-7') == [other]
    assert found(store, '"W-77 b"') == [other]  # its words are among those of the mail


def test_a_short_number_is_rare_among_many_that_begin_so(store: Store) -> None:
    """A word of its own stands for the whole value, so that an index leads to it at once."""
    wanted = accept(store, link_value="7", at_ms=NOW_MS)
    for number in range(70, 80):
        accept(store, link_value=str(number), subject="7 7 7", at_ms=NOW_MS + number)
    index(store)
    assert found(store, "order:7") == [wanted]
    assert words_in(parse_find("order:7")).wanted == (link_word("7"),)


def test_older_mail_is_read_while_its_content_is_kept(store: Store) -> None:
    kept = [accept(store, content=head(f"A{number}"), at_ms=NOW_MS + number) for number in range(7)]
    gone = accept(store, content=head("B1"))
    its_own = accept(store, content=head("C1"), link_value="C2", at_ms=NOW_MS + 9)
    without = accept(store, at_ms=NOW_MS + 10)
    with store.database.write() as tx:
        tx.connection.exec_driver_sql(f"DELETE FROM chunk WHERE queue_id = '{gone}'")
        tx.connection.exec_driver_sql(
            f"UPDATE message SET chunk_count = 0 WHERE queue_id = '{gone}'"
        )
    index(store)
    assert found(store, "order:A3") == []
    while store.find.index_batch(limit=2, link_header=HEADER):
        pass
    assert [found(store, f"order:A{number}") for number in range(7)] == [[one] for one in kept]
    assert found(store, "order:B1") == found(store, "order:C1") == []
    assert found(store, "order:C2") == [its_own]
    assert found(store, "-order:C2 -order:A1")[0] == without
    assert store.find.index_batch(limit=2, link_header="x-order-id") == 0  # it is done


def test_another_field_is_read_from_the_newest_mail_on(store: Store) -> None:
    queue_id = accept(store, content=head("A1"))
    deliver(store, accept(store))
    for header in ("X-Other", HEADER):
        while store.find.index_batch(limit=1, link_header=header):
            pass
    assert found(store, "order:a1") == [queue_id]
