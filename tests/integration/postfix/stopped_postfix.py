"""A real Postfix with mail in each of its queues.

with FilledPostfix(per_queue=10, provider_port=port) as postfix:
    postfix.stop()
    ... postfix.queue is as a Postfix that ended leaves it ...
"""

from __future__ import annotations

import smtplib
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.e2e.ports import free_port
from tests.real_postfix import PATIENCE_S, PostfixInstance

_MAIN = """relayhost = [127.0.0.1]:{provider}
transport_maps = inline:{{
    {{later.test=smtp:[127.0.0.1]:{closed}}}, {{slow.test=slow:[127.0.0.1]:{silent}}} }}
virtual_alias_maps = inline:{{ {{two@later.test=one@later.test, other@later.test}} }}
smtpd_recipient_restrictions =
    check_sender_access inline:{{ {{held@shop.test=HOLD}} }}, permit_mynetworks, reject
qmgr_message_active_limit = {active}
qmgr_message_recipient_limit = 100000
in_flow_delay = 0
smtpd_milters = {milters}
slow_destination_concurrency_limit = 5
slow_initial_destination_concurrency = 5
minimal_backoff_time = 4000s
smtp_destination_recipient_limit = 1
"""
CONTENT = b"Subject: order %d\r\n\r\nhello\r\n.dot\r\n"


class FilledPostfix(PostfixInstance):
    """`sent` and `senders` tell of mail by number."""

    def __init__(self, *, per_queue: int, provider_port: int, milter_port: int = 0) -> None:
        self._silent = socket.create_server(("127.0.0.1", 0), backlog=1024)
        values = {
            "provider": provider_port,
            "closed": free_port(),
            "silent": self._silent.getsockname()[1],
            "active": per_queue,
            "milters": f"inet:127.0.0.1:{milter_port}" if milter_port else "",
        }
        super().__init__(_MAIN.format_map(values))
        self.per_queue = per_queue
        self.sent: dict[int, tuple[str, ...]] = {}
        self.senders: dict[int, str] = {}

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._silent.close()

    def send_all(self, mails: Sequence[tuple[str, tuple[str, ...]]]) -> None:
        """Send numbered mail."""
        with smtplib.SMTP("127.0.0.1", self.port, local_hostname="client.test") as client:
            for sender, recipients in mails:
                number = len(self.sent)
                client.sendmail(sender, recipients, CONTENT % number)
                self.sent[number], self.senders[number] = recipients, sender

    def fill(self, *, deferred: int = 0) -> None:
        """Put as many messages into each of the four queues; so many are in one already."""
        count = self.per_queue
        self.send_all([("a@shop.test", ("b@later.test",))] * count)
        self.send_all([("held@shop.test", ("b@later.test",))] * count)
        self.wait_for({"deferred": deferred + count, "hold": count})
        self.send_all([("a@shop.test", ("b@slow.test",))] * count)
        self.wait_for({"active": count})
        self.send_all([("a@shop.test", ("b@slow.test",))] * count)
        self.wait_for({"incoming": count})

    def files(self, queue: str) -> list[Path]:
        """Return the files of a queue."""
        return sorted(path for path in (self.queue / queue).rglob("*") if path.is_file())

    def counts(self) -> dict[str, int]:
        """Return how many files there are by queue."""
        queues = ("incoming", "active", "deferred", "hold", "maildrop")
        return {name: len(found) for name in queues if (found := self.files(name))}

    def wait_for(self, counts: Mapping[str, int]) -> None:
        """Wait until queues have so many files."""
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            now = self.counts()
            if all(now.get(name, 0) == count for name, count in counts.items()):
                return
            time.sleep(0.05)
        raise TimeoutError(f"{self.counts()} instead of {counts}")
