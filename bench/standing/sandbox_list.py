"""Lists and searches of the sandbox with 100,000 captured messages of a shop, on both databases."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from bench.rig.postgres import PostgresServer
from bench.rig.shop_mail import ShopMail, shop_mail
from bench.standing.figure import Figure, Result
from bench.standing.setting import Setting
from relaygw.mail.envelope import AcceptedMessage, NewDelivery, NewRecipient, Source
from relaygw.mail.queue_id import QueueIdSource
from relaygw.mail.search import parse_search
from relaygw.mail.state import RecipientState
from relaygw.store import migrate
from relaygw.store.log_check import database_path
from relaygw.store.store import Store, open_store
from relaygw.web.indexing import Indexer

PAGE_ROWS = 50
_BATCH = 200
_SPACING_MS = 20
_TAGGED = 400
_READ = 300  # every third of the newest, as if somebody had been looking

_SEARCHES = {
    "nothing": "xyzzy",
    "one message": "100000500",
    "rare word": "zimmermann",
    "common word": "order",
    "in every message": "withdrawal",
    "part of a word": "immerman",
    "two words": "klarna burgundy",
    "two common words": "order warehouse",
    "phrase": '"on its way"',
    "phrase in every message": '"managing directors: petra lang"',
    "not in ASCII": "müller",
    "negated": "order -klarna",
    "only negated": "-order",
    "two letters": "zo",
    "from:": "from:promo",
    "from: everybody": "from:shop.test",
    "to:": "to:customer123@",
    "subject:": 'subject:"reset your"',
    "addressed:": "addressed:accounting",
    "reason:": "reason:sandbox",
    "tag:": "tag:checkout",
    "before:": "before:{middle}",
    "after: and a word": "after:{middle} order",
    "is:read": "is:read",
    "has:attachment": "has:attachment rechnung",
    "larger:": "larger:8k",
}


@dataclass(frozen=True)
class _Timings:
    """Durations in ms of a list or a search, by what was asked for."""

    by_name: dict[str, list[float]]

    def p95(self) -> float:
        return statistics.quantiles(chain.from_iterable(self.by_name.values()), n=20)[18]

    def lines(self, hits: dict[str, int]) -> Iterator[str]:
        for name, durations in self.by_name.items():
            yield (
                f"  {name:26} {statistics.median(durations):6.1f} ms, "
                f"at most {max(durations):6.1f}; {hits[name]:7,} hits"
            )


def sandbox_list(setting: Setting) -> Result:
    """Page and search of 100,000 captured messages, on SQLite."""
    with setting.directory() as root:
        url = f"sqlite:///{root}/queue.db"
        migrate.upgrade(url)
        store = open_store(url)
        try:
            return _measure(setting, store, lambda: _sqlite_bytes(store, database_path(url)))
        finally:
            store.close()


def sandbox_list_postgres(setting: Setting) -> Result:
    """Page and search of 100,000 captured messages, on PostgreSQL."""
    with PostgresServer() as server:
        store = open_store(server.url)
        try:
            return _measure(setting, store, lambda: _postgres_bytes(store))
        finally:
            store.close()


def _measure(setting: Setting, store: Store, size_bytes: Callable[[], int]) -> Result:
    count = setting.size.captured
    middle_ms = _fill(setting, store, count)
    before_bytes = size_bytes()
    index_s = _index(setting, store)
    index_bytes = size_bytes() - before_bytes
    setting.say(f"indexed in {index_s:.0f} s; now looking")
    newest = store.sandbox.captured_ids(parse_search(""), limit=count)[-_READ * 3 :]
    store.sandbox.mark_read(newest[::3], is_read=True)
    store.sandbox.set_tags(newest[: _TAGGED // 2] + newest[-_TAGGED // 2 :], ["checkout"])
    searches = {name: text.format(middle=middle_ms) for name, text in _SEARCHES.items()}
    pages, page_hits = _time(
        setting, store, {"first page": ("", 0), "in the middle": ("", count // 2)}
    )
    found, hits = _time(setting, store, {name: (text, 0) for name, text in searches.items()})
    return Result(
        [
            Figure("list page and its counts, p95", pages.p95(), "ms", 100, 50),
            Figure("search, page and its counts, p95", found.p95(), "ms", 300, 150),
            Figure("indexing of a message", index_s / count * 1000, "ms"),
            Figure("database for a message, indexed", index_bytes / count / 1000, "kB"),
        ],
        [
            f"{count:,} messages in {before_bytes / 1e6:.0f} MB, and {index_bytes / 1e6:.0f} MB "
            f"of index, made in {index_s:.0f} s",
            *pages.lines(page_hits),
            *found.lines(hits),
        ],
    )


def _fill(setting: Setting, store: Store, count: int) -> int:
    """Store messages as the front does; return when the middle one was captured."""
    setting.say(f"capturing {count:,} messages")
    first_ms = time.time_ns() // 1_000_000 - count * _SPACING_MS
    ids = QueueIdSource()
    messages = (
        _accepted(shop_mail(number), ids, first_ms + number * _SPACING_MS)
        for number in range(count)
    )
    done = 0
    while batch := list(islice(messages, _BATCH)):
        store.intake.accept_batch(batch)
        done += len(batch)
        if done % 20_000 < _BATCH:
            store.janitor.checkpoint()
            setting.say(f"{done:,} captured")
    return first_ms + count // 2 * _SPACING_MS


def _accepted(mail: ShopMail, ids: QueueIdSource, at_ms: int) -> AcceptedMessage:
    recipient = NewRecipient(
        address=mail.recipient, state=RecipientState.CAPTURED, reason="sandbox mode"
    )
    return AcceptedMessage(
        queue_id=ids.next_id(at_ms),
        accepted_at_ms=at_ms,
        sender=mail.sender,
        deliveries=(NewDelivery(route="default", stream="transactional", recipients=(recipient,)),),
        content=(mail.content,),
        size_bytes=len(mail.content),
        subject=mail.subject,
        message_id=mail.message_id,
        is_8bit=False,
        has_long_line=False,
        smtputf8=False,
        mode="sandbox",
        source=Source(client="10.0.0.5", helo="web.shop.test", listener="127.0.0.1:1025"),
        client_key="10.0.0.0/24",
    )


def _index(setting: Setting, store: Store) -> float:
    """Let everything be read; return the seconds it took."""
    indexer = Indexer(store)
    began_s = time.monotonic()
    while not indexer.catch_up(within_s=10.0):
        indexed = store.sandbox.count_captured(parse_search("larger:1"))[0]
        setting.say(f"{indexed:,} indexed")
        store.janitor.checkpoint()
    return time.monotonic() - began_s


def _time(
    setting: Setting, store: Store, asked: dict[str, tuple[str, int]]
) -> tuple[_Timings, dict[str, int]]:
    """Time each page with its counts, taking turns."""
    durations: dict[str, list[float]] = {name: [] for name in asked}
    hits: dict[str, int] = {}
    for number in range(setting.size.searches):
        setting.say(f"round {number + 1} of {setting.size.searches}")
        for name, (text, start) in asked.items():
            began_s = time.perf_counter()
            search = parse_search(text)
            store.sandbox.find_captured(search, start=start, limit=PAGE_ROWS)
            hits[name], _ = store.sandbox.count_captured(search)
            durations[name].append((time.perf_counter() - began_s) * 1000)
    return _Timings(durations), hits


def _sqlite_bytes(store: Store, path: Path) -> int:
    while store.janitor.checkpoint():
        pass
    return path.stat().st_size


def _postgres_bytes(store: Store) -> int:
    with store.database.read() as connection:
        size: int = connection.connection.exec_driver_sql(
            "SELECT pg_database_size(current_database())"
        ).scalar_one()
        return size
