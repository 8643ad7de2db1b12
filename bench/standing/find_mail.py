"""Searches over a million messages in every state, and writing their words, on both databases."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice

from sqlalchemy import text

from bench.rig.postgres import PostgresServer
from bench.standing.figure import Figure, Result
from bench.standing.setting import Setting
from relaygw.mail.clock import clock_ms
from relaygw.mail.queue_id import first_id_at
from relaygw.mail.search import parse_find
from relaygw.store import migrate
from relaygw.store.database import Row, Write, insert_into
from relaygw.store.store import Store, open_store

_PAGE = 50
_BATCH = 20_000
_SPAN_MS = 7 * 86_400_000
_RARE = (*["bounced"] * 20, *["expired"] * 4, "blocked", "cancelled")  # of a thousand
_MESSAGES = insert_into(
    "message",
    "queue_id accepted_at_ms sender subject message_id source_user finished_at_ms mode client_key"
    " link_value",
    size_bytes=4096, chunk_count=0, is_8bit=False, has_long_line=False, smtputf8=False,
)  # fmt: skip
_DELIVERIES = insert_into(
    "delivery", "queue_id route stream state due_at_ms changed_at_ms provider client_key",
    delivery_no=0, attempts=1, doubts=0, reclaims=0, held_ms=0,
)  # fmt: skip
_RECIPIENTS = insert_into(
    "recipient", "queue_id address state changed_at_ms provider reply dsn",
    rcpt_no=0, delivery_no=0, attempts=1,
)  # fmt: skip
_TABLES = (_MESSAGES, _DELIVERIES, _RECIPIENTS)


def find_mail(setting: Setting) -> Result:
    """Searches over a million messages, on SQLite."""
    with setting.directory() as root:
        url = f"sqlite:///{root}/queue.db"
        migrate.upgrade(url)
        return _measure(setting, url)


def find_mail_postgres(setting: Setting) -> Result:
    """Searches over a million messages, on PostgreSQL."""
    with PostgresServer() as server:
        return _measure(setting, server.url)


def _measure(setting: Setting, url: str) -> Result:
    count = setting.size.finished
    store = open_store(url)
    try:
        _fill(setting, store, count)
        index_s = _index_outcomes(store, url)
        locked_ms, written_s = _write_words(setting, store)
        notes = [
            f"index of rare outcomes: {index_s:.1f} s; words of {count:,} messages: "
            f"{written_s:.0f} s without a rest, at most {max(locked_ms):.0f} ms a step",
        ]
        figures = [Figure("words of a message", written_s / count * 1e6, "us")]
        for name, at_least, aim, query in _queries(count):
            times = [_time(store, query()) for _ in range(setting.size.searches)]
            p95 = statistics.quantiles([took for took, _ in times], n=20)[18]
            figures.append(Figure(f"find {name}, p95", p95, "ms", at_least, aim))
            notes.append(
                f"  {name:24} median {statistics.median(t for t, _ in times):6.1f} ms, "
                f"{statistics.median(n for _, n in times):.0f} found"
            )
        return Result(figures, notes)
    finally:
        store.close()


def _queries(count: int) -> Iterator[tuple[str, float | None, float | None, Callable[[], str]]]:
    chance = random.Random(1)
    day = (clock_ms() - 2 * 86_400_000) // 1000

    def number() -> int:
        return chance.randrange(count)

    yield "address part", 300, 100, lambda: f"customer{number() * 7919 % 50_000}@"
    yield "part of all addresses", 300, 100, lambda: "@example.net"
    yield "inside of an address", 300, 100, lambda: f"ustomer{number() * 7919 % 50_000}@"
    yield "subject word", 300, 100, lambda: chance.choice(_THINGS)
    yield (
        "two subject words",
        300,
        100,
        lambda: f"{chance.choice(_THINGS)} {chance.choice(_COLOURS)}",
    )
    yield "order number", 300, 100, lambda: f"#{number():09}"
    yield (
        "Message-ID",
        300,
        100,
        lambda: f"<{(n := number())}.{n * 104729 % 999983}@web.bench.test>",
    )
    yield "link of an order", 300, 100, lambda: f"order:{number()}"
    yield "link of a short one", 300, 100, lambda: f"order:{number() % 10}"
    yield "link of no mail", 300, 100, lambda: f"order:{number()}0000000"
    yield "nothing", 300, 100, lambda: f"xyzzy{number()}"
    yield "is:bounced of a day", 200, 80, lambda: f"is:bounced after:{day} before:{day + 86_400}"
    yield "is:expired of a day", 200, 80, lambda: f"is:expired after:{day} before:{day + 86_400}"
    yield "is:delivered of a day", 200, 80, lambda: f"is:delivered before:{day}"
    yield (
        "address and is:bounced",
        300,
        100,
        lambda: f"customer{number() * 7919 % 50_000}@ is:bounced",
    )
    yield "user, rare", None, None, lambda: "user:shop-rare"
    yield "all mail", 200, 80, lambda: ""


def _time(store: Store, query: str) -> tuple[float, int]:
    began_s = time.perf_counter()
    found = store.find.find(parse_find(query), limit=_PAGE)
    return (time.perf_counter() - began_s) * 1000, len(found.entries)


def _write_words(setting: Setting, store: Store) -> tuple[list[float], float]:
    """Write all words; return how long each step took, in ms, and all of them, in seconds."""
    steps, began_s, done = [], time.monotonic(), 0
    while True:
        step_s = time.perf_counter()
        number = store.find.index_batch(limit=100)
        steps.append((time.perf_counter() - step_s) * 1000)
        done += number
        if not number:
            return steps, time.monotonic() - began_s
        if done % 100_000 == 0:
            store.janitor.checkpoint()
            setting.say(f"{done:,} written after {time.monotonic() - began_s:.0f} s")


# --- a million messages, as an earlier version left them -------------------------------------

_THINGS = [f"{a}{b}" for a in ("jack", "scar", "lamp", "boot", "mug") for b in ("et", "fa", "on")]
_COLOURS = ["black", "navy", "olive", "sand", "burgundy", "charcoal", "ivory", "rust", "teal"]


def _fill(setting: Setting, store: Store, count: int) -> None:
    numbers = iter(range(count))
    chance = random.Random(2)
    first_ms = clock_ms() - _SPAN_MS
    while batch := list(islice(numbers, _BATCH)):
        rows = [_rows(number, first_ms + number * _SPAN_MS // count, chance) for number in batch]
        with store.database.write(Write.UNSYNCED) as tx:
            for statement, some in zip(_TABLES, zip(*rows, strict=True), strict=True):
                statement.run(tx, some)
        store.janitor.checkpoint()
        if batch[-1] % 200_000 < _BATCH:
            setting.say(f"{batch[-1] + 1:,} of {count:,} messages made")
    with store.database.write() as tx:
        tx.execute(text("DELETE FROM search_todo"))
        tx.execute(text(f"INSERT INTO search_backfill VALUES (0, '{'Z' * 21}')"))
        tx.execute(text("DROP INDEX recipient_outcome"))
        if tx.is_postgres:
            tx.execute(text("ANALYZE"))


def _index_outcomes(store: Store, url: str) -> float:
    """Make the index of rare outcomes as an upgrade does; return the seconds it took."""
    began_s = time.monotonic()
    migrate.upgrade(url)  # on PostgreSQL, beside writers
    with store.database.write() as tx:
        if not tx.is_postgres:
            tx.execute(text(_INDEX))
    return time.monotonic() - began_s


_INDEX = (
    "CREATE INDEX recipient_outcome ON recipient (state, changed_at_ms, queue_id)"
    " WHERE state IN ('bounced', 'expired', 'blocked', 'cancelled')"
)


def _rows(number: int, at_ms: int, chance: random.Random) -> tuple[Row, Row, Row]:
    queue_id = first_id_at(at_ms)[:-4] + f"{number % 10_000:04}"
    place = number * 7919 % 1000
    state = _RARE[place] if place < len(_RARE) else "delivered"
    subject = f"Your {chance.choice(_COLOURS)} {chance.choice(_THINGS)}, order #{number:09}"
    message_id = f"<{number}.{number * 104729 % 999983}@web.bench.test>"
    user = "shop-rare" if number % 200_000 == 7 else f"shop{number % 7}"
    return (
        (queue_id, at_ms, f"shop{number % 7}@tx.bench.test", subject, message_id, user, at_ms + 900,
         "production", "k", str(number)),
        (queue_id, "default", "transactional", "finished", at_ms, at_ms + 900, "ses", "k"),
        (queue_id, f"customer{number * 7919 % 50_000}@example.net", state, at_ms + 900, "ses",
         f"250 2.0.0 Ok: queued as {chance.getrandbits(40):010X}", "2.0.0"),
    )  # fmt: skip
