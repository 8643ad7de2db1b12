"""Sending again on every database: the new message and the line that names both are one step."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from relaygw.inbound.intake import Intake
from relaygw.inbound.local_mail import Resender
from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import RecipientUpdate
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.operations.resend import RESEND, ResendRequest, ResendResult, plan_resend, send_again
from relaygw.settings.model import Settings
from relaygw.store import intake
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.rules import StoreRules
from relaygw.store.selection import Selection
from relaygw.store.store import Store, open_store, read_content
from tests.builders import accepted, instance, update_of
from tests.processes import PROCESSES

PATIENCE_S = 60.0
PIECES = [b"Subject: x\r\n\r\n" + b"x" * 262_130 + b"\r\n", *[b"y" * 262_142 + b"\r\n"] * 5]
KILLS = ("never", "chunks", "message", "audit")  # right before that is written


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = open_store(url, rules=StoreRules(keep_content=True))
    store.instances.register(instance("one"))
    yield store
    store.close()


def resender(directory: Path) -> Resender:
    settings = Settings.model_validate(
        {
            "mode": "production",
            "hostname": "gw.test",
            "providers": {"main": {"host": "smtp.test"}},
            "routes": [{"name": "default", "providers": ["main"]}],
        }
    )
    return Resender(Intake(settings, state_dir=directory))


def bounced(store: Store) -> str:
    """Store a large message that nobody got; return its id."""
    message = accepted(
        "ann@cust.test",
        at_ms=clock_ms(),
        content=b"",
        stored_chunks=len(PIECES),
        size_bytes=sum(map(len, PIECES)),
    )
    queue_id = message.queue_id
    store.intake.add_chunks(queue_id, 0, PIECES)
    store.intake.accept_batch([replace(message, content=())])
    (mine,) = store.leases.claim("default", limit=9, incarnation="one", now_ms=clock_ms())
    outcome = RecipientUpdate(
        rcpt_no=mine.recipients[0].rcpt_no,
        state=RecipientState.BOUNCED,
        reply="550 5.1.1 no such user",
        dsn="5.1.1",
        provider="main",
    )
    update = update_of(queue_id, recipients=(outcome,))
    now = clock_ms()
    assert store.leases.record_batch([update], incarnation="one", now_ms=now).is_alive
    return queue_id


def resend(store: Store, directory: Path, planned: ResendResult) -> ResendResult:
    return send_again(
        store, resender(directory), planned, actor="ann", now_ms=clock_ms(), detail=""
    )


def plan(store: Store, directory: Path, queue_id: str) -> ResendResult:
    return plan_resend(store, resender(directory), [queue_id], ResendRequest())


def resend_and_die(url: str, directory: Path, queue_id: str, before: str) -> None:
    """Send a message again; the process is killed right before that is written."""

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    store = open_store(url, rules=StoreRules(keep_content=True))
    planned = plan(store, directory, queue_id)
    if before == "chunks":
        type(store.intake).add_chunks = die  # type: ignore[method-assign,assignment]
    elif before != "never":
        setattr(intake, {"message": "insert_messages", "audit": "add_audit"}[before], die)
    resend(store, directory, planned)
    store.close()


def copies(store: Store, queue_id: str) -> list[QueueEntry]:
    selection = Selection(states=frozenset(DeliveryState))
    found = store.queue.search(selection, limit=100)
    return [one for one in found if one.queue_id != queue_id]


def pairs(store: Store) -> list[str]:
    return [one.target for one in store.audit.entries(limit=100) if one.action == RESEND]


@pytest.mark.parametrize("before", KILLS)
def test_killed_at_any_write_both_are_there_or_none(
    url: str, store: Store, tmp_path: Path, before: str
) -> None:
    queue_id = bounced(store)
    process = PROCESSES.Process(target=resend_and_die, args=(url, tmp_path, queue_id, before))
    process.start()
    process.join(PATIENCE_S)
    assert process.exitcode == (0 if before == "never" else -signal.SIGKILL)
    new = copies(store, queue_id)
    assert pairs(store) == [f"{queue_id} {one.queue_id}" for one in new]
    assert len(new) == (before == "never")
    if not new:  # nothing is in the way of the next one
        assert len(resend(store, tmp_path, plan(store, tmp_path, queue_id)).messages) == 1
        new = copies(store, queue_id)
    assert b"".join(read_content(store, new[0])).endswith(b"".join(PIECES))
    assert new[0].deliveries[0].released == "resent"


def test_of_two_who_were_shown_the_same_one_sends_it(store: Store, tmp_path: Path) -> None:
    queue_id = bounced(store)
    planned = plan(store, tmp_path, queue_id)
    assert len(resend(store, tmp_path, planned).messages) == 1
    second = resend(store, tmp_path, planned)
    assert second.messages == () and second.left[0].is_temporary
    assert len(copies(store, queue_id)) == len(pairs(store)) == 1
    again = plan(store, tmp_path, queue_id)
    assert "is already going to receive it" in again.left[0].why


def test_content_that_went_meanwhile_sends_nothing(store: Store, tmp_path: Path) -> None:
    queue_id = bounced(store)
    planned = plan(store, tmp_path, queue_id)
    while store.janitor.shed_content(-60_000):
        pass  # in pieces
    assert resend(store, tmp_path, planned).messages == ()
    assert copies(store, queue_id) == [] and pairs(store) == []
