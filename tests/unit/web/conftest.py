from __future__ import annotations

from collections.abc import Callable

import pytest

from relaygw.mail.envelope import Source
from relaygw.mail.state import RecipientState
from relaygw.store.queue_entry import QueueEntry, RecipientEntry

MakeEntry = Callable[..., QueueEntry]


@pytest.fixture(scope="session")
def make_entry() -> MakeEntry:
    """Build a captured message as the store returns it; recipients may be (given, rewritten)."""

    def make(*recipients: str | tuple[str, str], **changes: object) -> QueueEntry:
        pairs = [(to, to) if isinstance(to, str) else to for to in recipients]
        values: dict[str, object] = {
            "queue_id": "01JDABCDEFGHJKMNP",
            "accepted_at_ms": 1_764_064_800_123,
            "sender": "bounces@shop.test",
            "subject": "Order 7",
            "message_id": "<m1@shop.test>",
            "size_bytes": 100,
            "chunk_count": 1,
            "mode": "sandbox",
            "source": Source(user="shop1"),
            "captured_at_ms": 1_764_064_800_123,
            "read_at_ms": None,
            "deliveries": (),
            "recipients": tuple(
                RecipientEntry(
                    rcpt_no=number,
                    delivery_no=0,
                    address=address,
                    original=None if given == address else given,
                    state=RecipientState.CAPTURED,
                    provider=None,
                    reply=None,
                    dsn=None,
                    attempts=0,
                    changed_at_ms=0,
                )
                for number, (given, address) in enumerate(pairs)
            ),
        }
        return QueueEntry(**(values | changes))  # type: ignore[arg-type]

    return make
