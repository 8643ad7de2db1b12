"""Content of captured mail is read once, and what is wrong with one message is its own affair."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest

from relaygw.errors import StoreUnavailable, Unstorable
from relaygw.mail.content_facts import ContentFacts
from relaygw.mail.mime_tree import MimeTree
from relaygw.mail.search import EVERYTHING, parse_search
from relaygw.store.store import Store
from relaygw.web import indexing
from relaygw.web.indexing import Indexer, keep_findable, keep_indexed
from tests.altered_store import AlteredStore

Capture = Callable[..., str]
MAIL = (
    b"From: Shop <shop@x.test>\r\nTo: Ann <ann@x.test>\r\nSubject: %(subject)s\r\n"
    b"Content-Type: text/html\r\n\r\n<p>Hello %(subject)s"
)


def mail(subject: str) -> bytes:
    return MAIL % {b"subject": subject.encode()}


def found(store: Store, query: str) -> list[str]:
    return store.sandbox.captured_ids(parse_search(query), limit=100)


def test_content_is_findable_after_it_was_read(store: Store, capture: Capture) -> None:
    ids = [capture(mail(f"order {number}")) for number in range(60)]
    assert found(store, "hello") == []
    assert Indexer(store).catch_up(within_s=None)
    assert found(store, "hello") == ids
    assert found(store, '"hello order 59"') == found(store, "from:shop 59") == ids[59:]
    one = store.sandbox.captured_entry(ids[0])
    assert one is not None and one.facts is not None
    assert (one.facts.snippet, one.facts.to[0]["Name"]) == ("Hello order 0", "Ann")


def test_what_comes_later_is_read_later(store: Store, capture: Capture) -> None:
    indexer = Indexer(store)
    capture(mail("first"))
    indexer.catch_up(within_s=None)
    second = capture(mail("second"))
    indexer.catch_up(within_s=None)
    assert found(store, "hello -first") == [second]


def test_a_message_that_cannot_be_read_keeps_nobody_waiting(
    store: Store, capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_facts = indexing.read_facts

    def fail_on_one(tree: MimeTree) -> ContentFacts:
        if tree.first("Subject") == "broken":
            raise RuntimeError("defect")
        return read_facts(tree)

    monkeypatch.setattr(indexing, "read_facts", fail_on_one)
    broken, other = capture(mail("broken")), capture(mail("other"))
    assert Indexer(store).catch_up(within_s=None)
    assert found(store, "hello") == [other]
    assert found(store, "subject:broken") == [broken]  # as its row says
    assert store.sandbox.unindexed(limit=9) == []


class RefusingStore(AlteredStore):
    """Refuses a batch that has the words of one message in it."""

    def index(self, facts: Mapping[str, ContentFacts]) -> None:
        if any("refused" in one.words for one in facts.values()):
            raise Unstorable("a row it must refuse")
        super().index(facts)


def test_a_message_that_cannot_be_stored_keeps_nobody_waiting(
    store: Store, capture: Capture, tmp_path: Path
) -> None:
    ids = [capture(mail(subject)) for subject in ("one", "refused", "two")]
    refusing = RefusingStore(f"sqlite:///{tmp_path}/queue.db")
    assert Indexer(refusing).catch_up(within_s=None)
    refusing.close()
    assert found(store, "hello") == [ids[0], ids[2]]
    assert store.sandbox.unindexed(limit=9) == []


def test_a_request_waits_for_so_long_only(store: Store, capture: Capture) -> None:
    ids = [capture(mail(f"order {number}")) for number in range(60)]
    indexer = Indexer(store)
    assert not indexer.catch_up(within_s=0.0)
    begun = found(store, "hello")
    assert 0 < len(begun) < 60 and begun == ids[: len(begun)]
    assert indexer.catch_up(within_s=None)
    assert found(store, "hello") == ids


def test_of_large_mail_what_was_read_is_findable_soon(
    store: Store, capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "_BATCH_S", 0.0)
    ids = [capture(mail(f"order {number}")) for number in range(3)]
    assert not Indexer(store).catch_up(within_s=0.0)
    assert found(store, "hello") == ids[:1]


def test_threads_share_the_work(store: Store, capture: Capture) -> None:
    ids = [capture(mail(f"order {number}")) for number in range(50)]
    indexers = [Indexer(store), Indexer(store)]
    works = [partial(each.catch_up, within_s=None) for each in indexers * 2]
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found(store, "hello") == ids
    assert store.sandbox.count_captured(parse_search("hello")) == (50, 50)


def test_a_request_does_not_wait_for_another_for_longer(
    store: Store, capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on = threading.Event(), threading.Event()
    read_facts = indexing.read_facts

    def read_slowly(tree: MimeTree) -> ContentFacts:
        began.set()
        assert go_on.wait(60)
        return read_facts(tree)

    monkeypatch.setattr(indexing, "read_facts", read_slowly)
    queue_id = capture(mail("slow"))
    indexer = Indexer(store)
    thread = threading.Thread(target=lambda: indexer.catch_up(within_s=None))
    thread.start()
    assert began.wait(60)
    assert not indexer.catch_up(within_s=0.05)
    assert found(store, "slow") == []
    go_on.set()
    assert indexer.catch_up(within_s=60)
    assert found(store, "slow") == [queue_id]
    thread.join()


async def test_it_keeps_up_by_itself(
    store: Store, capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "LOOK_S", 0.01)
    failures = iter([StoreUnavailable("away")])
    unindexed = store.sandbox.unindexed

    def fail_once(*, limit: int) -> list[object]:
        for error in failures:
            raise error
        return list(unindexed(limit=limit))

    monkeypatch.setattr(store.sandbox, "unindexed", fail_once)
    stop = asyncio.Event()
    task = asyncio.create_task(keep_indexed(Indexer(store), stop))
    for subject in ("first", "second"):
        queue_id = capture(mail(subject))
        deadline_s = time.monotonic() + 30
        while found(store, f"hello {subject}") != [queue_id]:
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.01)
    stop.set()
    await task
    assert store.sandbox.count_captured(EVERYTHING) == (2, 2)


def test_large_mail_is_read_without_its_files(store: Store, capture: Capture) -> None:
    head = b'Subject: big\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n'
    text = b"--b\r\n\r\nthe words\r\n"
    file = b"--b\r\nContent-Disposition: attachment; filename=a.bin\r\n\r\n" + b"x" * 5 * 2**20
    queue_id = capture(head + text + file + b"\r\n--b--\r\n")
    Indexer(store).catch_up(within_s=None)
    assert found(store, '"the words" a.bin has:attachment larger:5m') == [queue_id]


@pytest.mark.parametrize(
    ("taken", "took_s", "expected_s"),
    [
        pytest.param(0, 0.001, 2.0, id="nothing waits"),
        pytest.param(3, 0.001, 2.0, id="what came since the last look"),
        pytest.param(100, 0.001, 0.03, id="more waits"),
        pytest.param(100, 0.2, 1.0, id="more waits, and the queue is slow"),
    ],
)
def test_a_few_new_messages_do_not_take_the_lock_of_the_queue_again_at_once(
    taken: int, took_s: float, expected_s: float
) -> None:
    assert indexing.rest_s(taken, took_s) == pytest.approx(expected_s)


async def test_words_are_written_in_full_batches_and_then_there_is_a_rest(
    store: Store, capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "_FINDABLE_BATCH", 2)
    for number in range(5):
        capture(mail(f"order {number}"))
    stop, batches, work = asyncio.Event(), [], itertools.count()
    rest_s = indexing.rest_s

    def noted(taken: int, took_s: float) -> float:
        batches.append((taken, rest_s(taken, 0.0)))
        if taken < 2:
            stop.set()
        return 0.0

    monkeypatch.setattr(indexing, "rest_s", noted)
    async with asyncio.timeout(30):
        await keep_findable(store, None, stop, told=partial(next, work))
    assert batches == [(2, 0.03), (2, 0.03), (1, 2.0)]
    assert next(work) == 3, "each batch is work, which keeps the web role"
