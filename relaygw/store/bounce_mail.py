"""Bounce mails that were accepted: noted with them as a post to read, so that none is forgotten.

The post has the queue id of the mail, whose content stays where it is: people may look at it.
"""

from __future__ import annotations

from collections.abc import Sequence

from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.verdict import BOUNCE_MAIL
from relaygw.store.database import Transaction, insert_into

_ADD_POST = insert_into("event_post", "provider received_at_ms due_at_ms body", tries=0)


def note_bounce_mail(tx: Transaction, messages: Sequence[AcceptedMessage]) -> None:
    """Have those read that are bounce mails; written with them or not at all."""
    queue_ids = [one.queue_id for one in messages if one.is_bounce_mail]
    now_ms = tx.now_ms()
    _ADD_POST.run(tx, [(BOUNCE_MAIL, now_ms, now_ms, one.encode()) for one in queue_ids])
