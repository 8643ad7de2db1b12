"""Commands on 100,000 queued messages, and the front while half of them are deleted."""

from __future__ import annotations

import smtplib
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Self

from sqlalchemy import text

from bench.rig.gateway import ROOT, Gateway, provider, python
from bench.rig.latency import percentile
from bench.rig.ports import free_port
from bench.rig.postgres import postgres_queue
from bench.rig.sendmail import install_ours
from bench.standing.figure import Figure, Result
from bench.standing.latency import summary
from bench.standing.setting import Setting
from relaygw.mail.envelope import AcceptedMessage, NewDelivery, NewRecipient, Source
from relaygw.mail.queue_id import QueueIdSource
from relaygw.store import migrate
from relaygw.store.store import Store, open_store

_BATCH = 500
_SPAN_MS = 86_400_000
_CONTENT_BYTES = 4096
_PROBE_BYTES = 10_000
_QUIET_S = 5.0
_SUBJECT = "Newsletter of November"
_RARE = 100  # every hundredth order is one of a kind
_HUMAN = "Your order no. {number} has been received"
_RETURN = "Return of order no. {number}"


def queue_commands(setting: Setting) -> Result:
    """List, mailq, shape and delete over 100,000 queued messages, on SQLite."""
    with setting.directory() as root:
        url = f"sqlite:///{root}/gateway/state/queue.db"
        (root / "gateway" / "state").mkdir(parents=True)
        migrate.upgrade(url)
        return _measure(setting, root, url, lambda: open_store(url))


def queue_commands_postgres(setting: Setting) -> Result:
    """List, mailq, shape and delete over 100,000 queued messages, on PostgreSQL."""
    with ExitStack() as stack:
        root = stack.enter_context(setting.directory())
        url = stack.enter_context(postgres_queue())
        return _measure(setting, root, url, lambda: open_store(url))


def _measure(setting: Setting, root: Path, url: str, open_store: Callable[[], Store]) -> Result:
    count = setting.size.queued
    setting.say(f"queueing {count:,} messages")
    _fill(open_store(), count)
    upstream = provider(free_port())
    gateway = Gateway(root / "gateway", providers={"sink": upstream}, queue={"url": url})
    sendmail = install_ours(root / "programs", gateway.directory / "maildrop")
    with gateway:
        time.sleep(_QUIET_S)
        command = [python(), "-m", "relaygw", "--config", str(gateway.directory / "relaygw.yaml")]
        mailq = [str(Path(sendmail.words[0]).parents[1] / "bin" / "mailq")]

        def timed(*words: str) -> float:
            return _median_s(setting, [*command, *words])

        one_in_100 = timed("queue", "list", "--subject", "Return of")
        none = timed("queue", "list", "--subject", "no such subject")
        shape = timed("queue", "shape")
        listed = _median_s(setting, mailq, {**sendmail.environment})
        whole = timed("queue", "list", "--mailq")
        setting.say("the front alone")
        with Client(gateway.smtp_port) as client:
            time.sleep(_QUIET_S)
        before_ms = client.durations_ms
        setting.say(f"deleting {count // 2:,} messages")
        with Client(gateway.smtp_port) as client:
            delete_s = _run_s([*command, "queue", "delete", "--subject", _SUBJECT, "--yes"])
        during_ms = client.durations_ms
    deleted = _count_deleted(open_store())
    return Result(
        [
            Figure("queue list --subject, 1 % match", one_in_100, "s", 1.0, 0.7),
            Figure("queue list --subject, none match", none, "s", 1.0, 0.7),
            Figure("mailq", listed, "s", 3.0, 2.0),
            Figure("queue list --mailq", whole, "s", 3.0, 2.0),
            Figure("queue shape", shape, "s", 3.0, 2.0),
            Figure("delete of half of them by subject", delete_s, "s", 10.0, 6.0),
            Figure("front, p99 meanwhile", percentile(during_ms, 0.99), "ms", 50.0, 25.0),
            Figure("not deleted", count // 2 - deleted, "", 0, 0),
        ],
        [
            f"front alone:     {summary(before_ms)}",
            f"front meanwhile: {summary(during_ms)} ({len(during_ms)} messages)",
        ],
    )


class Client:
    """Sends one message after another over one connection for the length of a with block."""

    def __init__(self, port: int) -> None:
        self.durations_ms: list[float] = []
        self._port = port
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _send(self) -> None:
        head = b"From: <shop@tx.bench.test>\r\nTo: <customer@example.net>\r\nSubject: order\r\n\r\n"
        content = head + (b"x" * 76 + b"\r\n") * (_PROBE_BYTES // 78)
        with smtplib.SMTP("127.0.0.1", self._port, local_hostname="client.test") as connection:
            while not self._is_over.is_set():
                begun_s = time.perf_counter()
                connection.sendmail("shop@tx.bench.test", ["customer@example.net"], content)
                self.durations_ms.append((time.perf_counter() - begun_s) * 1000)


def _median_s(
    setting: Setting, words: list[str], environment: dict[str, str] | None = None
) -> float:
    setting.say(" ".join(words[-3:]))
    return statistics.median(_run_s(words, environment) for _ in range(3))


def _run_s(words: list[str], environment: dict[str, str] | None = None) -> float:
    """Return how long a command takes from start to end; raises when it fails."""
    begun_s = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, cwd=ROOT, env=environment)
    return time.perf_counter() - begun_s


def _fill(store: Store, count: int) -> None:
    """Store messages as the front does, then let all of them wait for their second try."""
    first_ms = time.time_ns() // 1_000_000 - _SPAN_MS
    ids = QueueIdSource()
    messages = (
        _accepted(number, first_ms + number * _SPAN_MS // count, ids) for number in range(count)
    )
    try:
        while batch := list(islice(messages, _BATCH)):
            store.intake.accept_batch(batch)
        with store.database.write() as connection:
            connection.execute(
                text(
                    "UPDATE delivery SET state = 'deferred', attempts = 1, provider = 'sink',"
                    " reason = '451 4.3.0 try again later', due_at_ms = due_at_ms + 10 * :day_ms"
                ),
                {"day_ms": _SPAN_MS},
            )
        with store.database.write() as connection:
            connection.execute(
                text(
                    "UPDATE recipient SET attempts = 1, provider = 'sink', dsn = '4.3.0',"
                    " reply = '451 4.3.0 try again later'"
                )
            )
        with store.database.write() as connection:
            if connection.is_postgres:  # as autovacuum does within a minute
                connection.execute(text("ANALYZE"))
        while store.janitor.checkpoint():
            pass
    finally:
        store.close()


def _accepted(number: int, at_ms: int, ids: QueueIdSource) -> AcceptedMessage:
    is_order = number % 2 == 0
    is_return = number % (2 * _RARE) == 0 or number % (2 * _RARE) == _RARE
    subject = (_RETURN if is_return else _HUMAN).format(number=number) if is_order else _SUBJECT
    content = b"Subject: " + subject.encode() + b"\r\n\r\n" + b"x" * _CONTENT_BYTES + b"\r\n"
    recipient = NewRecipient(address=f"customer{number * 7919 % 50_000}@example.net")
    return AcceptedMessage(
        queue_id=ids.next_id(at_ms),
        accepted_at_ms=at_ms,
        sender=f"shop{number % 7}@tx.bench.test",
        deliveries=(NewDelivery(route="default", stream="transactional", recipients=(recipient,)),),
        content=(content,),
        size_bytes=len(content),
        subject=subject,
        message_id=f"<{number}@tx.bench.test>",
        is_8bit=False,
        has_long_line=True,
        smtputf8=False,
        mode="production",
        source=Source(client=f"10.0.{number % 12}.5", helo="web.bench.test"),
        client_key=f"10.0.{number % 12}.0/24",
    )


def _count_deleted(store: Store) -> int:
    try:
        with store.database.read() as connection:
            found: int = connection.execute(
                text("SELECT count(*) FROM delivery WHERE state = 'deleted'")
            ).scalar_one()
            return found
    finally:
        store.close()
