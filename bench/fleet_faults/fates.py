"""Tells the history how the queue has each recipient, and how many doubts it recorded of it."""

from __future__ import annotations

from bench.history import History
from bench.rig.message import id_of, named
from bench.rig.queue_fates import Queue, ask

_ALL = """
    SELECT r.address, r.state, d.state, (
        SELECT coalesce(sum(a.times), 0) FROM attempt a
        WHERE a.queue_id = r.queue_id AND a.delivery_no = r.delivery_no
        AND (a.rcpt_no IS NULL OR a.rcpt_no = r.rcpt_no)
        AND a.state IN ('in doubt', 'interrupted')
    ) FROM recipient r
    JOIN delivery d ON d.queue_id = r.queue_id AND d.delivery_no = r.delivery_no
    WHERE r.address LIKE '%@cust.test'
"""


def tell_all_fates(queue: Queue, history: History) -> None:
    """Tell all that is in the queue, also what is finished: nothing of it was deleted yet."""
    for address, recipient, delivery, doubts in ask(queue, _ALL):
        state = recipient
        if recipient == "pending":
            state = "held" if delivery == "held" else "queued"
        about = {"message": id_of(address), **named([address])}
        history.info("queue", "fate", **about, state=state, doubts=int(doubts))
