from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from relaygw.cli import main
from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import AcceptedMessage, DeliveryUpdate, NewRecipient, RecipientUpdate
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store.instances import Instance
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.selection import Selection
from relaygw.store.store import open_store
from tests.builders import accepted
from tests.forked import RelaygwProcess
from tests.queues import make_queue

CONFIG = """\
mode: production
hostname: gw.shop.test
queue: {{url: "sqlite:///{directory}/state/queue.db"}}
maildrop: {{path: "{directory}/maildrop"}}
providers:
  main: {{host: smtp.provider.test, port: 2525, tls: none}}
routes:
  - {{name: default, providers: [main]}}
"""


class Desk:
    """An operator's desk: a queue on disk, its configuration, and the commands."""

    def __init__(self, directory: Path) -> None:
        self.config = directory / "relaygw.yaml"
        self.config.write_text(CONFIG.format(directory=directory))
        self.url = f"sqlite:///{directory}/state/queue.db"
        make_queue(self.url)
        self.store = open_store(self.url)
        self._environ = {"COLUMNS": "80", "PYTHONUNBUFFERED": ""}

    def run(self, *words: str, stdin: str | None = None, columns: int = 80) -> Result:
        """Run a command in this process."""
        environ = {**self._environ, "COLUMNS": str(columns)}
        # what a command blocks ends with its process: the next test starts others
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            return CliRunner().invoke(
                main, ["--config", str(self.config), *words], input=stdin, env=environ
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def lines(self, *words: str) -> list[dict[str, Any]]:
        """Run a command that prints JSON and return the objects."""
        result = self.run(*words)
        assert result.exit_code == 0, result.output
        return [json.loads(line) for line in result.stdout.splitlines()]

    def popen(self, *words: str, **more: Any) -> subprocess.Popen[bytes]:
        """Start a command as a process of its own."""
        argv = ["--config", str(self.config), *words]
        environ = {**os.environ, **self._environ}
        return RelaygwProcess(argv, env=environ, stderr=subprocess.PIPE, **more)

    def add(self, *recipients: str | NewRecipient, age_s: int = 0, **more: Any) -> str:
        """Put a message into the queue; return its id."""
        message = accepted(*recipients, at_ms=clock_ms() - age_s * 1000, **more)
        return self.add_message(message)

    def add_message(self, message: AcceptedMessage) -> str:
        self.store.intake.accept_batch([message])
        return message.queue_id

    def add_large(self, address: str, pieces: list[bytes], *, stored: int | None = None) -> str:
        """Put a message of several chunks into the queue; the first `stored` of them stay there."""
        message = accepted(
            address,
            content=b"",
            stored_chunks=len(pieces),
            size_bytes=sum(map(len, pieces)),
        )
        self.store.intake.add_chunks(message.queue_id, 0, pieces)
        self.add_message(replace(message, content=()))
        if stored is not None:
            with self.store.database.write() as connection:
                connection.connection.exec_driver_sql(
                    "DELETE FROM chunk WHERE queue_id = ? AND chunk_no >= ?",
                    (message.queue_id, stored),
                )
        return message.queue_id

    def add_captured(self, address: str = "b@cust.test", **more: Any) -> str:
        """Put a captured message into the sandbox; return its id."""
        recipient = NewRecipient(
            address=address, state=RecipientState.CAPTURED, reason="sandbox mode"
        )
        return self.add(recipient, **more)

    def due_at_ms(self, queue_id: str) -> int:
        """Return when a message of one delivery is due."""
        (entry,) = self.store.queue.entries([queue_id])
        return entry.deliveries[0].due_at_ms

    def claim(self, route: str = "default") -> str:
        """Take what is due on a route as a worker does; return the worker's incarnation."""
        incarnation = os.urandom(6).hex()
        self.store.instances.register(
            Instance(
                incarnation=incarnation,
                name="gw.shop.test",
                role="delivery",
                pid=4711,
                version="0.1.0",
                fingerprint="0" * 16,
            )
        )
        self.claimed = self.store.leases.claim(
            route, limit=1000, incarnation=incarnation, now_ms=clock_ms()
        )
        return incarnation

    def attempt(
        self,
        state: DeliveryState,
        *,
        due_in_s: int = 600,
        reason: str,
        route: str = "default",
        doubted: bool = False,
    ) -> None:
        """Let a worker try everything that is due on a route once; nobody gets it."""
        incarnation = self.claim(route)
        updates = [
            DeliveryUpdate(
                queue_id=one.queue_id,
                delivery_no=one.delivery_no,
                state=state,
                due_at_ms=clock_ms() + due_in_s * 1000,
                provider="main",
                reason=reason,
                doubted=doubted,
                recipients=tuple(
                    RecipientUpdate(
                        rcpt_no=who.rcpt_no,
                        state=RecipientState.PENDING,
                        reply=reason,
                        dsn="4.7.0",
                        provider="main",
                    )
                    for who in one.recipients
                ),
            )
            for one in self.claimed
        ]
        assert self.store.leases.record_batch(
            updates, incarnation=incarnation, now_ms=clock_ms()
        ).is_alive

    def entry(self, queue_id: str) -> QueueEntry:
        selection = Selection(queue_ids=(queue_id,), states=frozenset(DeliveryState))
        (found,) = self.store.queue.search(selection, limit=1)
        return found

    def states(self, queue_id: str) -> set[DeliveryState]:
        return {part.state for part in self.entry(queue_id).deliveries}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.store.close()
