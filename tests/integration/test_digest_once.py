"""A digest is sent once: by killed processes, several instances, and receivers in trouble."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import signal
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest

from relaygw.alerting.digest import last_period
from relaygw.alerting.digest_sender import SETTLED_MS
from relaygw.mail.clock import clock_ms
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.selection import Selection
from relaygw.store.store import Store, open_store, read_content
from relaygw.store.watch import DigestState
from tests.builders import instance
from tests.e2e.ports import free_port
from tests.fakes.notice_receiver import Behaviour, NoticeReceiver
from tests.integration.dying_digests import sender_on, settings_of, work
from tests.queues import make_queue

ALL = Selection(states=frozenset(DeliveryState))
DAY_MS = 86_400_000
BEGUN = DigestState(until_ms=1, tries=0, again_at_ms=0)


def begun(store: Store, *ways: str) -> None:
    """Let digests be those of long ago."""
    for way in ways:
        store.digests.digest_state(way, until_ms=1)


def mails(store: Store) -> list[QueueEntry]:
    return store.queue.search(ALL, limit=99)


def content_of(store: Store, entry: QueueEntry) -> EmailMessage:
    found = message_from_bytes(b"".join(read_content(store, entry)), policy=default)
    assert isinstance(found, EmailMessage)
    return found


async def test_several_instances_send_one_mail_of_the_last_day(
    queue_url: str, tmp_path: Path
) -> None:
    settings = settings_of(to="ops@cust.test", sender="gw@shop.test")
    stores = [open_store(queue_url) for _ in range(3)]
    senders = [
        sender_on(store, tmp_path, f"i{number}", settings)[0] for number, store in enumerate(stores)
    ]
    for sender in senders:  # what never was begins at this midnight
        await sender.send_due()
    store = stores[0]
    period = last_period(store.clock_ms() - SETTLED_MS, 86_400)
    assert mails(store) == []
    state = store.digests.digest_state("mail", until_ms=0)
    assert state.until_ms == period.until_ms
    # five days without a gateway: one of the last day alone, whoever has the duty
    assert store.digests.pass_digest("mail", state=state, until_ms=period.until_ms - 5 * DAY_MS)
    for sender in senders:  # as if each had the duty
        sender.store.watch.duty = lambda *_: True  # type: ignore[method-assign]
    await asyncio.gather(*(sender.send_due() for sender in senders * 2))
    (mail,) = mails(store)
    assert (mail.sender, mail.recipients[0].address) == ("gw@shop.test", "ops@cust.test")
    content = content_of(store, mail)
    assert content["Subject"] == f"[relaygw gw.test] Digest of {period.words}"
    assert content["From"].addresses[0].addr_spec == "gw@shop.test"
    text, page = (content.get_body((kind,)) for kind in ("plain", "html"))
    assert text is not None
    assert page is not None
    assert "There are no counts of the week before." in text.get_content()
    assert "<h2>Mail</h2>" in page.get_content()
    # a lost row makes no second mail
    assert store.digests.pass_digest(
        "mail", state=store.digests.digest_state("mail", until_ms=0), until_ms=1
    )
    await senders[1].send_due()
    assert len(mails(store)) == 1
    assert store.digests.digest_state("mail", until_ms=0).until_ms == period.until_ms
    # nor does a clock that was far ahead once keep it from coming
    far_ms = period.until_ms + 900 * DAY_MS
    state = store.digests.digest_state("mail", until_ms=0)
    store.digests.pass_digest("mail", state=state, until_ms=far_ms)
    await senders[1].send_due()
    assert store.digests.digest_state("mail", until_ms=0).until_ms == period.until_ms
    for one in stores:
        one.close()


async def test_several_instances_post_one(queue_url: str, tmp_path: Path) -> None:
    with NoticeReceiver() as receiver:
        settings = settings_of(webhook=receiver.url)
        stores = [open_store(queue_url) for _ in range(3)]
        begun(stores[0], "webhook")
        made = [sender_on(one, tmp_path, f"i{n}", settings) for n, one in enumerate(stores)]
        for sender, _ in made:  # as if each had the duty
            sender.store.watch.duty = lambda *_: True  # type: ignore[method-assign]
        due = [sender.due_digests() for sender, _ in made]  # before anybody has told
        assert list(map(len, due)) == [1, 1, 1]
        await asyncio.gather(*(made[n][0].post_digest(one) for n, (one,) in enumerate(due)))
        assert len(receiver.bodies) == 1
        for store in stores:
            store.close()


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
def test_whenever_its_process_is_killed_there_is_one(tmp_path: Path, is_after: bool) -> None:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.integration.dying_digests"])
    with NoticeReceiver() as receiver:
        settings = settings_of(to="ops@cust.test", webhook=receiver.url)
        for number in itertools.count(1):
            directory = tmp_path / str(number)
            directory.mkdir()
            make_queue(f"sqlite:///{directory}/queue.db")
            store = open_store(f"sqlite:///{directory}/queue.db")
            begun(store, "mail", "webhook")
            before, was_killed = len(receiver.bodies), False
            for incarnation, at in (("first", number), ("second", 0), ("third", 0)):
                process = processes.Process(
                    target=work, args=(directory, incarnation, settings, at, is_after)
                )
                process.start()
                process.join(60)
                assert process.exitcode in (0, -signal.SIGKILL)
                was_killed |= process.exitcode != 0
                store.instances.bury(incarnation)
            assert len(mails(store)) == 1, number
            posts = len(receiver.bodies) - before
            assert posts == 1 or (posts == 0 and was_killed and is_after), number  # never two
            store.close()
            if not was_killed:
                break
    assert number == 4, "duty, mail and webhook were writes to be killed at"


async def test_a_webhook_in_trouble_is_tried_again_unless_it_may_have_taken_it(
    tmp_path: Path,
) -> None:
    make_queue(f"sqlite:///{tmp_path}/queue.db")
    store = open_store(f"sqlite:///{tmp_path}/queue.db")

    async def send(url: str) -> str:
        sender, log = sender_on(store, tmp_path, "one", settings_of(webhook=url))
        await sender.send_due()
        store.instances.bury("one")
        return log.getvalue()

    begun(store, "webhook")
    assert "digest not sent: 127.0.0.1:" in await send(f"http://127.0.0.1:{free_port()}/x")
    state = store.digests.digest_state("webhook", until_ms=0)
    assert (state.until_ms, state.tries) == (1, 1)
    assert 0 < state.again_at_ms - clock_ms() <= 60_000
    with NoticeReceiver() as receiver:
        assert await send(receiver.url) == ""  # not yet
        store.digests.put_off_digest("webhook", state=BEGUN, until_ms=1, wait_ms=-1000)
        assert "answered 200" in await send(receiver.url)
        assert await send(receiver.url) == ""
        (body,) = receiver.bodies
        assert body["host"] == "gw.test"
        assert {"news", "counts", "tables", "text", "html"} <= body.keys()
    with NoticeReceiver(Behaviour.FAIL) as receiver:
        reset(store)
        assert "answered 500; tried again in 60 s" in await send(receiver.url)
    with NoticeReceiver(Behaviour.CLOSE) as receiver:
        reset(store)
        assert "may not have been taken" in await send(receiver.url)
        store.digests.put_off_digest("webhook", state=BEGUN, until_ms=2, wait_ms=0)  # of another
        assert await send(receiver.url) == ""
    store.close()


def reset(store: Store) -> None:
    state = store.digests.digest_state("webhook", until_ms=0)
    store.digests.pass_digest("webhook", state=state, until_ms=1)


@pytest.mark.parametrize(
    ("settings", "state"),
    [
        ({"mode": "sandbox"}, RecipientState.CAPTURED),
        ({"mode": "staging"}, RecipientState.CAPTURED),
        ({"mode": "staging", "recipients": {"allow": ["@cust.test"]}}, RecipientState.PENDING),
        ({"recipients": {"block": ["@cust.test"]}}, RecipientState.BLOCKED),
    ],
)
async def test_the_lists_hold_for_a_digest(
    tmp_path: Path, settings: dict[str, Any], state: RecipientState
) -> None:
    make_queue(f"sqlite:///{tmp_path}/queue.db")
    store = open_store(f"sqlite:///{tmp_path}/queue.db")
    begun(store, "mail")
    sender, _ = sender_on(store, tmp_path, "one", settings_of(to="ops@cust.test") | settings)
    await sender.send_due()
    (mail,) = mails(store)
    assert (mail.sender, mail.recipients[0].state) == ("", state)
    if state is not RecipientState.BLOCKED:
        assert "relaygw@gw.test" in content_of(store, mail)["From"]
    store.close()


def test_who_has_no_duty_sends_none(tmp_path: Path) -> None:
    make_queue(f"sqlite:///{tmp_path}/queue.db")
    store = open_store(f"sqlite:///{tmp_path}/queue.db")
    store.instances.register(instance("other"))
    assert store.watch.duty("digest", "other")
    begun(store, "mail")
    sender, _ = sender_on(store, tmp_path, "one", settings_of(to="ops@cust.test"))
    asyncio.run(sender.send_due())
    assert mails(store) == []
    store.close()
