"""A process that records a failure and makes its notice, killed at a write of its choice."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from relaygw.delivery.notices import Notices
from relaygw.inbound.intake import Intake
from relaygw.inbound.local_mail import NoticeComposer
from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import RecipientUpdate
from relaygw.mail.state import RecipientState
from relaygw.observe.observer import DeliveryObserver
from relaygw.settings.model import Settings
from relaygw.settings.provider import Provider
from relaygw.settings.routes import Route
from relaygw.store.rules import StoreRules
from relaygw.store.store import Store, store_on
from tests.builders import instance, update_of
from tests.integration.dying_worker import DyingDatabase
from tests.logs import text_log

TELLS = StoreRules(tells_failures=True)
REFUSED = RecipientUpdate(
    rcpt_no=0,
    state=RecipientState.BOUNCED,
    reply="550 5.1.1 User unknown",
    dsn="5.1.1",
    provider="p",
)


def notices_on(store: Store, state_dir: Path) -> Notices:
    """Return what makes the notices of a queue."""
    settings = Settings.model_validate(
        {
            "mode": "production",
            "hostname": "gw.test",
            "providers": {"p": Provider(host="127.0.0.1", tls="none")},
            "routes": [Route(name="default", providers=("p",))],
            "bounces": {"to": "sender"},
            "queue": {"min_free": "0%"},
        }
    )
    return Notices(
        settings,
        store,
        DeliveryObserver(text_log(io.StringIO())),
        composer=NoticeComposer(Intake(settings, state_dir=state_dir)),
        wake_workers=lambda: None,
    )


def fail(store: Store, incarnation: str) -> None:
    """Let all that is due bounce."""
    now_ms = clock_ms()
    claimed = store.leases.claim("default", limit=99, incarnation=incarnation, now_ms=now_ms + 10)
    for one in claimed:
        if one.sender:  # a notice waits for its turn
            update = update_of(one.queue_id, recipients=(REFUSED,))
            update = replace(update, due_at_ms=now_ms)
            store.leases.record_batch([update], incarnation=incarnation, now_ms=now_ms)


def work(directory: Path, incarnation: str, number: int, is_after: bool) -> None:
    """Let what is due bounce and make the notices, unless the `number`th write comes before."""
    database = DyingDatabase(f"sqlite:///{directory}/queue.db")
    database.number, database.is_after = number, is_after
    store = store_on(database, TELLS)
    store.instances.register(instance(incarnation))
    fail(store, incarnation)
    notices_on(store, directory).make_due([])
    store.instances.bury(incarnation)
    store.close()
