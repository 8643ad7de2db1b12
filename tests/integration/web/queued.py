"""Mail in a queue for the tests of pages and of the gateway's API."""

from __future__ import annotations

import itertools
import time
from typing import Any

from relaygw.mail.envelope import DeliveryUpdate, RecipientUpdate, Source
from relaygw.mail.outcome import Stage, Verdict
from relaygw.mail.queue_id import QueueIdSource
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.settings.model import Settings
from relaygw.store.store import Store
from tests.builders import accepted, instance
from tests.integration.web.people import with_logins

WORKER = "worker"
GREYLISTED = "451 4.7.1 Greylisted, please try again in five minutes"
CONTENT = (
    b"From: Shop <shop@shop.test>\r\nTo: ann@cust.test\r\nSubject: hello\r\n"
    b"Content-Type: text/html\r\n\r\n<p>Hello <b>Ann</b></p><script>alert(1)</script>\r\n"
)
_steps = itertools.count()


def now_ms() -> int:
    """Return the time of this machine."""
    return time.time_ns() // 1_000_000


def gateway(**more: Any) -> Settings:
    """Return settings of a production gateway with users, tokens and two providers."""
    providers = {
        "main": {"host": "smtp.main.test", "daily_quota": 1000, "rate": "10/s"},
        "spare": {"host": "smtp.spare.test"},
    }
    routes = [{"name": "default", "providers": ["main", "spare"]}]
    return with_logins("production", relay={"providers": providers, "routes": routes}, **more)


def queue_mail(store: Store, subject: str = "hello", *to: str, **more: Any) -> str:
    """Put a message into the queue; return its id. `age_s` is how long ago it was accepted."""
    at_ms = now_ms() - int(more.pop("age_s", 0) * 1000)
    queue_id = QueueIdSource().next_id(at_ms + next(_steps))
    content = more.pop("content", CONTENT)
    source = Source(client="10.0.0.7", helo="web1.shop.test", uid=33, script="/srv/shop/cron.php")
    message = accepted(
        *(to or ("ann@cust.test",)),
        queue_id=queue_id,
        at_ms=at_ms,
        subject=subject,
        content=content,
        **{"source": source, **more},
    )
    store.intake.accept_batch([message])
    return queue_id


def defer(store: Store, *, reply: str = GREYLISTED, provider: str = "main") -> list[str]:
    """Let a worker try all that is due and be told to come again; return the ids."""
    return _try(store, reply, provider, RecipientState.PENDING)


def bounce(store: Store, reply: str, *, provider: str = "main") -> list[str]:
    """Let a worker try all that is due and be refused for good; return the ids."""
    return _try(store, reply, provider, RecipientState.BOUNCED)


def deliver(store: Store, *, provider: str = "main") -> list[str]:
    """Let a worker deliver all that is due; its content goes. Return the ids."""
    reply = "250 2.0.0 Ok: queued as 4F1B23C04D"
    return _try(store, reply, provider, RecipientState.DELIVERED)


_TOLD = {
    RecipientState.PENDING: ("4.7.1", Verdict.RETRY),
    RecipientState.BOUNCED: ("5.1.1", Verdict.BOUNCE),
    RecipientState.DELIVERED: ("2.0.0", Verdict.DELIVERED),
}


def _try(store: Store, reply: str, provider: str, to: RecipientState) -> list[str]:
    is_over, (dsn, verdict) = to is not RecipientState.PENDING, _TOLD[to]
    worker = f"{WORKER}{next(_steps)}"
    store.instances.register(instance(worker, name="gw.test", fingerprint="x"))
    now = now_ms() + 1000
    claimed = store.leases.claim("default", limit=1000, incarnation=worker, now_ms=now)
    updates = [
        DeliveryUpdate(
            queue_id=one.queue_id,
            delivery_no=one.delivery_no,
            state=DeliveryState.FINISHED if is_over else DeliveryState.DEFERRED,
            due_at_ms=now + 3_600_000,
            provider=provider,
            reason=None if is_over else reply,
            recipients=tuple(
                RecipientUpdate(
                    rcpt_no=each.rcpt_no,
                    state=to,
                    reply=reply,
                    dsn=dsn,
                    provider=provider,
                    stage=Stage.CONTENT if to is RecipientState.DELIVERED else Stage.RCPT,
                    verdict=verdict,
                )
                for each in one.recipients
            ),
        )
        for one in claimed
    ]
    assert store.leases.record_batch(updates, incarnation=worker, now_ms=now).is_alive
    return [one.queue_id for one in claimed]


def state_of(store: Store, queue_id: str) -> str:
    """Return the state of a message's first delivery."""
    (entry,) = store.queue.entries([queue_id])
    return entry.deliveries[0].state.value
