"""Who is told of mail that failed or waits, when nobody is, and of what nothing is known."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relaygw.delivery.notices import Notices, audiences
from relaygw.inbound.intake import Intake
from relaygw.inbound.local_mail import NoticeComposer
from relaygw.mail.attempt_state import AttemptState
from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import AcceptedMessage, NewRecipient, RecipientUpdate
from relaygw.mail.notice import Cause, DueNotice, NoticedRecipient, NoticeKind
from relaygw.mail.state import RecipientState
from relaygw.observe.observer import DeliveryObserver
from relaygw.observe.readings import Readings
from relaygw.settings.model import Settings
from relaygw.store.queue_entry import AttemptEntry
from relaygw.store.rules import StoreRules
from relaygw.store.store import Store, open_store
from tests.builders import NOW_MS, accepted, instance, update_of
from tests.logs import text_log
from tests.queues import make_queue
from tests.tables import each_of

SENDER, POSTMASTER = "a@shop.test", "postmaster@gw.test"
_R = RecipientState


def recipient(
    rcpt_no: int, notify: str | None = None, state: RecipientState = _R.BOUNCED
) -> NoticedRecipient:
    return NoticedRecipient(
        rcpt_no=rcpt_no,
        delivery_no=0,
        address=f"r{rcpt_no}@cust.test",
        original=None,
        state=state,
        provider="p",
        reply="550 no",
        dsn="5.0.0",
        changed_at_ms=NOW_MS,
        dsn_notify=notify,
        dsn_orcpt=None,
    )


def due(*recipients: NoticedRecipient, kind: NoticeKind = NoticeKind.FAILED) -> DueNotice:
    return DueNotice(
        queue_id="4Q",
        kind=kind,
        tries=0,
        sender=SENDER,
        subject="x",
        message_id="<1@shop.test>",
        accepted_at_ms=NOW_MS,
        size_bytes=20,
        smtputf8=False,
        mode="production",
        source_listener=None,
        source_user=None,
        dsn_ret=None,
        dsn_envid=None,
        recipients=recipients,
    )


@each_of(
    "kind, told, people, expected",
    [
        ("failed", "sender", [(None, _R.BOUNCED), (None, _R.BOUNCED)], {SENDER: [0, 1]}),
        ("failed", "none", [(None, _R.BOUNCED), ("FAILURE", _R.BOUNCED)], {SENDER: [1]}),
        ("failed", "sender", [("NEVER", _R.BOUNCED), ("DELAY", _R.BOUNCED)], {}),
        (
            *("failed", POSTMASTER),
            [(None, _R.BOUNCED), ("FAILURE", _R.BOUNCED)],
            {SENDER: [1], POSTMASTER: [0, 1]},
        ),
        ("failed", "A@SHOP.test", [("FAILURE", _R.BOUNCED)], {"A@SHOP.test": [0]}),
        # what came to an end meanwhile waits no more
        ("delayed", "sender", [(None, _R.PENDING), (None, _R.DELIVERED)], {SENDER: [0]}),
        ("delayed", "sender", [(None, _R.DELIVERED)], {}),
        ("delayed", POSTMASTER, [(None, _R.DELIVERED)], {}),
        ("delayed", POSTMASTER, [("FAILURE", _R.PENDING)], {POSTMASTER: [0]}),
        ("relayed", "none", [("SUCCESS", _R.DELIVERED)], {SENDER: [0]}),
        ("relayed", POSTMASTER, [("SUCCESS", _R.DELIVERED)], {SENDER: [0]}),
    ],
)
def test_who_is_told_of_whom(
    kind: str,
    told: str,
    people: list[tuple[str | None, RecipientState]],
    expected: dict[str, list[int]],
) -> None:
    notice = due(
        *(recipient(number, *one) for number, one in enumerate(people)), kind=NoticeKind(kind)
    )
    found = audiences(notice, told)
    assert {target: [one.rcpt_no for one in mine] for target, mine in found.items()} == expected


class Desk:
    """What makes the notices of a queue in which mail failed; what it said."""

    def __init__(self, url: str, directory: Path) -> None:
        self.store: Store = open_store(url, rules=StoreRules(tells_failures=True))
        self.store.instances.register(instance("w"))
        settings = Settings.model_validate(
            {
                "mode": "production",
                "hostname": "gw.test",
                "providers": {"p": {"host": "127.0.0.1", "tls": "none"}},
                "routes": [{"name": "default", "providers": ["p"]}],
                "bounces": {"to": "sender"},
                "queue": {"min_free": "0%"},
            }
        )
        self.log, self.woken = io.StringIO(), 0
        self.composer = NoticeComposer(Intake(settings, state_dir=directory))
        self.notices = Notices(
            settings,
            self.store,
            DeliveryObserver(text_log(self.log)),
            composer=self.composer,
            wake_workers=self._wake,
        )

    def _wake(self) -> None:
        self.woken += 1

    def fail(self, content: bytes = b"Subject: x\r\n\r\nhello\r\n") -> AcceptedMessage:
        now_ms = clock_ms()
        message = accepted(NewRecipient(address="b@cust.test"), at_ms=now_ms, content=content)
        self.store.intake.accept_batch([message])
        self.store.leases.claim("default", limit=9, incarnation="w", now_ms=now_ms + 10)
        refused = RecipientUpdate(
            rcpt_no=0, state=_R.BOUNCED, reply="550 no", dsn="5.1.1", provider="p"
        )
        update = replace(update_of(message.queue_id, recipients=(refused,)), due_at_ms=now_ms)
        self.store.leases.record_batch([update], incarnation="w", now_ms=now_ms)
        return message

    def make(self) -> None:
        made: list[Any] = []
        self.notices.make_due(made)
        self.notices.tell(made)

    def told(self, message: AcceptedMessage) -> list[str]:
        return [one.detail for one in self.store.queue.record_of(message.queue_id).notices]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    url = f"sqlite:///{tmp_path}/queue.db"
    make_queue(url)
    desk = Desk(url, tmp_path)
    yield desk
    desk.store.close()


def test_the_sender_is_told_unless_its_mail_objects(desk: Desk) -> None:
    plain, robot = desk.fail(), desk.fail(b"Auto-Submitted: auto-replied\r\n\r\nx\r\n")
    desk.make()
    assert desk.told(plain) == [f"told {SENDER}"]
    (why_not,) = desk.told(robot)
    assert why_not == "none is sent: its Auto-Submitted is auto-replied"
    log = desk.log.getvalue()
    assert f"{plain.queue_id}: sender non-delivery notification: " in log
    assert f"{robot.queue_id}: no non-delivery notification: {why_not}" in log
    assert desk.woken == 1
    desk.make()
    assert desk.log.getvalue() == log, "once"


def test_mail_whose_notice_ended_three_processes_is_read_no_more(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    readings = Readings(tmp_path, tell=lines.append)
    monkeypatch.setattr(desk.notices, "_readings", readings.of(0))
    message = desk.fail()
    for _ in range(3):
        if not (pid := os.fork()):
            try:
                monkeypatch.setattr(desk.notices, "_composed", lambda _: os._exit(1))
                desk.make()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        readings.end(0, "delivery (pid 11)")
    assert f"message {message.queue_id} for its notice, 3 times by now" in lines[-1]
    other = desk.fail()
    desk.make()
    assert (desk.told(message), desk.told(other)) == ([], [f"told {SENDER}"])
    assert "reading it ended a process 3 times" in desk.log.getvalue()


def test_notices_wait_for_room_on_the_disk_and_the_log_says_so_once(desk: Desk) -> None:
    message = desk.fail()
    desk.composer.has_space = lambda: False
    for _ in range(2):
        desk.make()
        assert desk.told(message) == []
    waits = "warning: notices wait: the volume that holds the queue is nearly full"
    assert desk.log.getvalue().count(waits) == 1
    desk.composer.has_space = lambda: True
    desk.make()
    assert desk.told(message) == [f"told {SENDER}"]
    desk.composer.has_space = lambda: False
    desk.fail()
    desk.make()
    assert desk.log.getvalue().count(waits) == 2


@each_of(
    "reply, provider, relay, cause",
    [
        ("no reply is known", "p", "mx[10.0.0.1]:25", Cause(relay="mx[10.0.0.1]:25")),
        ("550 no", "gone", "mx[10.0.0.1]:25", Cause(relay="mx[10.0.0.1]:25")),
        ("55 no", "p", None, Cause()),
    ],
)
def test_of_a_reply_that_nobody_knows_the_relay_is_told(
    desk: Desk, reply: str, provider: str, relay: str | None, cause: Cause
) -> None:
    attempt = AttemptEntry(
        delivery_no=0,
        rcpt_no=0,
        at_ms=NOW_MS,
        since_ms=NOW_MS,
        times=1,
        provider=provider,
        relay=relay,
        stage="RCPT TO",
        state=AttemptState.BOUNCED,
        reply=reply,
        dsn="5.0.0",
        next_at_ms=None,
    )
    expected = replace(cause, attempted_at_ms=NOW_MS)
    assert desk.notices.cause_of(recipient(0), [attempt]) == expected
    assert desk.notices.cause_of(recipient(0), []) == Cause()
