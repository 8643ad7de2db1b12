"""Fills a queue database with rows as the gateway itself writes them, by plain SQL.

The gateway must have created the database and be stopped. Messages spread evenly over a span
of the past, several clients and several recipients, like those of a shop.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LENGTH = 17
_CHANCE_BITS = 40
_BATCH = 20_000
_CLIENTS = 12
_RECIPIENTS = 50_000

Row = dict[str, Any]


@dataclass(frozen=True)
class Mail:
    """`count` messages of one state: `finished`, `incoming` or `deferred`.

    They were accepted between `oldest_s` and `newest_s` ago. Deferred ones are due in
    `due_in_s`, which may be negative. All but finished ones have `content_bytes` of content.
    """

    count: int
    state: str
    route: str
    stream: str = "transactional"
    sender_domain: str = "tx.bench.test"
    provider: str | None = None
    oldest_s: float = 6 * 86400.0
    newest_s: float = 3600.0
    due_in_s: float = 0.0
    content_bytes: int = 4096


def fill(database: Path, *mails: Mail) -> float:
    """Insert all messages, fold the log into the file, sync it; return the seconds it took."""
    began_s = time.monotonic()
    connection = sqlite3.connect(database, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous=OFF")  # nothing is lost that matters
        connection.execute("PRAGMA cache_size=-400000")
        for mail in mails:
            _insert(connection, mail)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()
    return time.monotonic() - began_s


def _insert(connection: sqlite3.Connection, mail: Mail) -> None:
    numbered = iter(range(mail.count))
    now_ms = time.time_ns() // 1_000_000
    content = _content(mail.content_bytes)
    while numbers := list(islice(numbered, _BATCH)):
        messages = [_message(mail, number, now_ms) for number in numbers]
        connection.execute("BEGIN IMMEDIATE")
        _insert_rows(connection, "message", messages)
        _insert_rows(connection, "delivery", (_delivery(mail, row, now_ms) for row in messages))
        _insert_rows(connection, "recipient", (_recipient(mail, row) for row in messages))
        if mail.state != "finished":
            _insert_rows(connection, "chunk", (_chunk(row, content) for row in messages))
        connection.execute("COMMIT")


def _insert_rows(
    connection: sqlite3.Connection, table: str, rows: list[Row] | Iterator[Row]
) -> None:
    rows = list(rows)
    names = list(rows[0])
    marks = ", ".join(f":{name}" for name in names)
    connection.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", rows)


def _message(mail: Mail, number: int, now_ms: int) -> Row:
    oldest_ms, newest_ms = int(mail.oldest_s * 1000), int(mail.newest_s * 1000)
    accepted_at_ms = now_ms - oldest_ms + (oldest_ms - newest_ms) * number // mail.count
    is_finished = mail.state == "finished"
    return {
        "queue_id": _queue_id(accepted_at_ms, _place(mail) + number),
        "accepted_at_ms": accepted_at_ms,
        "sender": f"shop{number % 7}@{mail.sender_domain}",
        "subject": f"Your order no. {number} has been received",
        "message_id": f"<{number}.{accepted_at_ms}@{mail.sender_domain}>",
        "size_bytes": mail.content_bytes,
        "chunk_count": 0 if is_finished else 1,
        "is_8bit": False,
        "has_long_line": False,
        "smtputf8": False,
        "mode": "production",
        "client_key": f"10.0.{number % _CLIENTS}.0/24",
        "source_client": f"10.0.{number % _CLIENTS}.5",
        "source_helo": "web.bench.test",
        "source_listener": "127.0.0.1:25",
        "finished_at_ms": accepted_at_ms + 900 if is_finished else None,
    }


def _delivery(mail: Mail, message: Row, now_ms: int) -> Row:
    is_new = mail.state == "incoming"
    changed_at_ms = message["accepted_at_ms"] + (0 if is_new else 900)
    is_deferred = mail.state == "deferred"
    return {
        "queue_id": message["queue_id"],
        "delivery_no": 0,
        "route": mail.route,
        "stream": mail.stream,
        "state": mail.state,
        "due_at_ms": now_ms + int(mail.due_in_s * 1000)
        if is_deferred
        else message["accepted_at_ms"],
        "changed_at_ms": changed_at_ms,
        "client_key": message["client_key"],
        "attempts": 0 if is_new else 1,
        "doubts": 0,
        "reclaims": 0,
        "held_ms": 0,
        "provider": None if is_new else mail.provider,
        "reason": "451 4.3.0 try again later" if is_deferred else None,
    }


def _recipient(mail: Mail, message: Row) -> Row:
    reply, dsn = {
        "finished": ("250 2.0.0 Ok: queued as 4f3a2b1c0d", "2.0.0"),
        "deferred": ("451 4.3.0 try again later", "4.3.0"),
    }.get(mail.state, (None, None))
    is_new = mail.state == "incoming"
    return {
        "queue_id": message["queue_id"],
        "rcpt_no": 0,
        "delivery_no": 0,
        "address": f"customer{message['accepted_at_ms'] * 7919 % _RECIPIENTS}@example.net",
        "state": "delivered" if mail.state == "finished" else "pending",
        "attempts": 0 if is_new else 1,
        "changed_at_ms": message["accepted_at_ms"] + (0 if is_new else 900),
        "provider": None if is_new else mail.provider,
        "reply": reply,
        "dsn": dsn,
    }


def _chunk(message: Row, content: bytes) -> Row:
    return {"queue_id": message["queue_id"], "chunk_no": 0, "body": content}


def _content(size_bytes: int) -> bytes:
    head = (
        b"Received: from web.bench.test (10.0.0.5) by gw.bench.test; "
        b"Mon, 1 Jan 2024 10:00:00 +0000\r\n"
        b"From: <shop@bench.test>\r\nTo: <customer@example.net>\r\nSubject: order\r\n\r\n"
    )
    line = b"x" * 76 + b"\r\n"
    rest_bytes = max(0, size_bytes - len(head))
    # the rest of the division is a shorter last line: a message is as long as its row says
    return head + line * (rest_bytes // len(line)) + line[len(line) - rest_bytes % len(line) :]


def _place(mail: Mail) -> int:
    """Return where a state's chance bits begin, so that two kinds of mail never clash."""
    return ["finished", "incoming", "deferred"].index(mail.state) << 32


def _queue_id(at_ms: int, chance: int) -> str:
    """Return an id like the gateway's: milliseconds, then 40 bits, in Crockford's base32."""
    number = at_ms << _CHANCE_BITS | chance
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(5 * _LENGTH - 5, -1, -5))
